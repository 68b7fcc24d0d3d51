"""The OpenAI client: a span for each chat, completion, response and embedding that it asks for.

Synchronous, asynchronous and streamed, from whichever server speaks the protocol. The span carries
its `traceparent` to the server.

Option: `include_usage`, default True. A stream says how many tokens it had only where the request
asks for that, in a chunk of its own. Where the program does not ask, we do, and keep that chunk
from it. A server that refuses a request because of this gets it again without, and is not asked
again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final
from weakref import WeakSet

from infertrace.current import current_span
from infertrace.integrations.openai_answers import SPAN_NAMES, describe
from infertrace.integrations.openai_streams import OpenAICall, follow, follow_async
from infertrace.integrations.other_instrumentation import traces_library
from infertrace.integrations.switch import Switch

_RAW_HEADER: Final = "X-Stainless-Raw-Response"
_REFUSALS: Final = (400, 422)
# OpenTelemetry's own, OpenLLMetry's, OpenInference's.
_OTHERS: Final = tuple(
    (module, "OpenAIInstrumentor")
    for module in (
        "opentelemetry.instrumentation.openai_v2",
        "opentelemetry.instrumentation.openai",
        "openinference.instrumentation.openai",
    )
)

# Clients of servers that do not know `stream_options`.
_without_usage: WeakSet[Any] = WeakSet()


def _install(switch: Switch, module: str) -> None:
    import openai
    from openai._base_client import AsyncAPIClient, SyncAPIClient

    def synchronous(original: Callable[..., Any]) -> Callable[..., Any]:
        def request(self: Any, cast_to: Any, options: Any, *rest: Any, **keywords: Any) -> Any:
            call = _begin(switch, self, options)
            if call is None:
                return original(self, cast_to, options, *rest, **keywords)
            try:
                with call.span.activate():
                    try:
                        result = original(self, cast_to, options, *rest, **keywords)
                    except openai.APIStatusError as error:
                        if not _takes_back(call, self, options, error):
                            raise
                        result = original(self, cast_to, options, *rest, **keywords)
                        _without_usage.add(self)
            except BaseException as error:
                _fail(call, error)
                raise
            return follow(call, result)

        return request

    def asynchronous(original: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def request(
            self: Any, cast_to: Any, options: Any, *rest: Any, **keywords: Any
        ) -> Any:
            call = _begin(switch, self, options)
            if call is None:
                return await original(self, cast_to, options, *rest, **keywords)
            try:
                with call.span.activate():
                    try:
                        result = await original(self, cast_to, options, *rest, **keywords)
                    except openai.APIStatusError as error:
                        if not _takes_back(call, self, options, error):
                            raise
                        result = await original(self, cast_to, options, *rest, **keywords)
                        _without_usage.add(self)
            except BaseException as error:
                _fail(call, error)
                raise
            return follow_async(call, result)

        return request

    def retried(original: Callable[..., Any]) -> Callable[..., Any]:
        def sleep(self: Any, *arguments: Any, **keywords: Any) -> Any:
            with switch.guarded():
                _count_retry(keywords.get("retries_taken"), keywords.get("response"))
            return original(self, *arguments, **keywords)

        return sleep

    switch.patches.wrap(SyncAPIClient, "request", synchronous)
    switch.patches.wrap(AsyncAPIClient, "request", asynchronous)
    for client in (SyncAPIClient, AsyncAPIClient):
        switch.patches.wrap_if_there(client, "_sleep_for_retry", retried)


def _begin(switch: Switch, client: Any, options: Any) -> OpenAICall | None:
    """A call with its span, and what the request gets of it; None for one that has none."""
    given = vars(options)  # a model, of which each attribute is looked for in its classes first
    name = SPAN_NAMES.get(given.get("url", ""))
    if name is None or not switch.is_on or given["method"].lower() != "post":
        return None
    if traces_library(*_OTHERS):
        return None
    call = None
    try:
        body, headers = given.get("json_data"), given.get("headers")
        # What they nearly always are; whether one is any mapping takes longer.
        body = body if type(body) is dict else _mapping(body)
        headers = headers if type(headers) is dict else _mapping(headers)
        model = body.get("model")
        span = switch.start_span(model if isinstance(model, str) else None, name, kind="client")
        call = OpenAICall(span, switch)
        if not span.is_recording:
            return None
        describe(span, client, body)
        if headers:
            call.is_raw = headers.get(_RAW_HEADER)
        if not headers or not any(name.lower() == "traceparent" for name in headers):
            # By assignment, setting a field of a model takes microseconds.
            given["headers"] = {**headers, "traceparent": span.traceparent}
        if body.get("stream") is True and switch.options["include_usage"]:
            _ask_for_usage(call, client, given, body)
    except Exception as error:
        switch.note_failure(error)
    return call


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if value and isinstance(value, Mapping) else {}


def _ask_for_usage(
    call: OpenAICall, client: Any, given: dict[str, Any], body: Mapping[str, Any]
) -> None:
    options = body.get("stream_options") or {}
    if "include_usage" in options or "stream_options" in (given.get("extra_json") or {}):
        return
    if client in _without_usage or not given["url"].endswith("/completions"):
        return
    call.body_before = body
    given["json_data"] = {**body, "stream_options": {**options, "include_usage": True}}


def _takes_back(call: OpenAICall, client: Any, options: Any, error: Any) -> bool:
    """Whether the server may have refused what we had added, which then is not there any more."""
    if call.body_before is None or error.status_code not in _REFUSALS:
        return False
    options.json_data, call.body_before = call.body_before, None
    return True


def _fail(call: OpenAICall, error: BaseException) -> None:
    with call.switch.guarded():
        status = getattr(error, "status_code", None)
        if isinstance(status, int):
            call.span.set_attribute("http.response.status_code", status)
    call.end(error)


def _count_retry(retries_taken: Any, response: Any) -> None:
    span = current_span()
    count = retries_taken + 1 if isinstance(retries_taken, int) else 1
    span.set_attribute("http.request.resend_count", count)
    status = getattr(response, "status_code", None)
    span.add_event("retry", {"http.response.status_code": status} if status else None)


_SWITCH: Final = Switch("openai", _install, include_usage=True)
instrument: Final = _SWITCH.on
uninstrument: Final = _SWITCH.off
