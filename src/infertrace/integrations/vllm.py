"""vLLM: a span for each step of its engines, and for each request that they have finished.

vLLM's asynchronous engine, and so `vllm serve`, loads the class of vllm_stat_logger.py by the entry
point `vllm.stat_logger_plugins`, which switches this on: installed is traced. INFERTRACE_VLLM=false
leaves it off. Besides what that class is told, it is looked at when a request comes, which
requests got tokens of a step, and which ended without being finished. The synchronous class `LLM`
loads no plugins: vllm_offline.py.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any, Final
from weakref import WeakKeyDictionary

from infertrace.current import current_span
from infertrace.integrations.switch import Switch
from infertrace.integrations.vllm_offline import install_offline
from infertrace.integrations.vllm_requests import (
    LiveRequest,
    note_outputs,
    note_time,
    record_ended,
    served_name,
)

VARIABLE: Final = "INFERTRACE_VLLM"

logger = logging.getLogger("infertrace")

# By vLLM's OutputProcessor: its requests by the ids that the engine knows them by.
_live: WeakKeyDictionary[Any, dict[str, LiveRequest]] = WeakKeyDictionary()
# Of the request that this task adds: the `traceparent` to go under, and the model.
_arriving: ContextVar[tuple[str | None, str | None]] = ContextVar("arriving", default=(None, None))


def switch_on_by_plugin() -> Switch:
    """The switch, which is on if the environment does not object."""
    if not _SWITCH.is_on and _is_wanted():
        _SWITCH.on()
    return _SWITCH


def _is_wanted() -> bool:
    text = os.environ.get(VARIABLE, "").strip().lower()
    if text not in ("", "true", "false"):
        logger.warning("%s: expected true or false, got %r", VARIABLE, text[:100])
    return text != "false"


def _install(switch: Switch, module: str) -> None:
    if module.endswith("async_llm"):
        _install_asynchronous(switch)
    else:
        install_offline(switch, arriving_under)
    _install_requests(switch)


def arriving_under(vllm_config: Any, trace_headers: Any) -> None:
    """A request is added by this task: under the current span, or else that of the headers."""
    _arriving.set((_parent(trace_headers), served_name(vllm_config)))


def _install_asynchronous(switch: Switch) -> None:
    from vllm.v1.engine.async_llm import AsyncLLM
    from vllm.v1.engine.core_client import AsyncMPClient

    def arriving(original: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def add_request(self: Any, *arguments: Any, **keywords: Any) -> Any:
            if switch.is_on:
                with switch.guarded():
                    arriving_under(self.vllm_config, keywords.get("trace_headers"))
            return await original(self, *arguments, **keywords)

        return add_request

    def received(original: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def get_output_async(self: Any) -> Any:
            outputs = await original(self)
            with switch.guarded():
                note_time(outputs)
            return outputs

        return get_output_async

    switch.patches.wrap_if_there(AsyncMPClient, "get_output_async", received)
    switch.patches.wrap(AsyncLLM, "add_request", arriving)


def _install_requests(switch: Switch) -> None:
    """Have the requests of both kinds of engines looked at; the second time does nothing."""
    from vllm.v1.engine.output_processor import OutputProcessor

    if switch.patches.has_wrapped(OutputProcessor, "add_request"):
        return
    _live.clear()

    def added(original: Callable[..., None]) -> Callable[..., None]:
        def add_request(self: Any, request: Any, *arguments: Any, **keywords: Any) -> None:
            original(self, request, *arguments, **keywords)
            if switch.is_on:
                with switch.guarded():
                    live = _live.setdefault(self, {})
                    if request.request_id not in live:  # or it gets more of its input
                        state = self.request_states[request.request_id]
                        live[request.request_id] = LiveRequest(state, *_arriving.get())

        return add_request

    def processed(original: Callable[..., Any]) -> Callable[..., Any]:
        def process_outputs(
            self: Any,
            engine_core_outputs: Any,
            engine_core_timestamp: float | None = None,
            iteration_stats: Any = None,
            *arguments: Any,
            **keywords: Any,
        ) -> Any:
            result = original(
                self,
                engine_core_outputs,
                engine_core_timestamp,
                iteration_stats,
                *arguments,
                **keywords,
            )
            live = _live.get(self)
            if live and iteration_stats is not None and engine_core_timestamp is not None:
                with switch.guarded():
                    note_outputs(
                        live,
                        self.request_states,
                        engine_core_outputs,
                        engine_core_timestamp,
                        iteration_stats,
                    )
            return result

        return process_outputs

    def aborted(original: Callable[..., Any]) -> Callable[..., Any]:
        def abort_requests(self: Any, *arguments: Any, **keywords: Any) -> Any:
            result = original(self, *arguments, **keywords)
            live = _live.get(self)
            if live:
                with switch.guarded():
                    for request_id in result:
                        request = live.pop(request_id, None)
                        if request is not None and switch.is_on:
                            record_ended(switch, request, "CANCELLED", "abort")
            return result

        return abort_requests

    def failed(original: Callable[..., None]) -> Callable[..., None]:
        def propagate_error(self: Any, error: Exception) -> None:
            original(self, error)
            live = _live.pop(self, None) or {}
            if switch.is_on:
                with switch.guarded():
                    for request in live.values():
                        record_ended(switch, request, "ERROR", "error", type(error).__name__)

        return propagate_error

    switch.patches.wrap(OutputProcessor, "add_request", added)
    switch.patches.wrap(OutputProcessor, "process_outputs", processed)
    switch.patches.wrap(OutputProcessor, "abort_requests", aborted)
    switch.patches.wrap(OutputProcessor, "propagate_error", failed)


def _parent(trace_headers: Any) -> str | None:
    """The server's span, where that is traced, else that of the client."""
    span = current_span()
    if span.propagates:
        return span.traceparent
    return None if trace_headers is None else trace_headers.get("traceparent")


_SWITCH: Final = Switch("vllm", _install)
instrument: Final = _SWITCH.on
uninstrument: Final = _SWITCH.off
