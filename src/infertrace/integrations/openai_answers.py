"""What an answer in OpenAI's protocol says about its request, and where a span has it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from infertrace.span import Span

SPAN_NAMES: Final = {
    "/chat/completions": "chat",
    "/completions": "text_completion",
    "/responses": "responses",
    "/embeddings": "embeddings",
}
"""What an address of the protocol does; one that is not here is not traced."""
# Where we keep ours on a client.
_ADDRESS: Final = "_infertrace_address"
# What a part of a chat may bring.
_TEXTS: Final = ("content", "tool_calls", "function_call", "refusal")
# What a server says beside the protocol, and a span has.
_EXTRA: Final = frozenset(("timings", "metrics"))
# Of the events of a response: its last one, which has all of it.
_LAST_EVENTS: Final = ("response.completed", "response.incomplete", "response.failed")

_NOTHING: Final[Mapping[str, Any]] = {}


def describe(span: Span, client: Any, body: Mapping[str, Any]) -> None:
    """What is known of a request before it is sent."""
    # The client keeps the URL as an object, which is taken apart once. Its property for it takes
    # as long as all else here.
    held = vars(client)
    url = held.get("_base_url") or client.base_url
    known: tuple[Any, str, int | None] | None = held.get(_ADDRESS)
    if known is None or known[0] is not url:
        known = (url, url.host, url.port)
        setattr(client, _ADDRESS, known)
    span.set_attribute("server.address", known[1])
    if known[2] is not None:
        span.set_attribute("server.port", known[2])
    inputs = body.get("input")
    # Of an embedding; a response has objects there.
    if isinstance(inputs, list) and inputs and all(isinstance(one, (str, list)) for one in inputs):
        span.set_batch_size(len(inputs))


def has_tokens(chunk: Any) -> bool:
    """Whether a chunk of a stream brings text, or a part of a call; the first and last may not."""
    said = _said(chunk)
    kind = said.get("type")
    if isinstance(kind, str):
        return kind.endswith(".delta")
    for choice in said.get("choices") or ():
        choice_said = _said(choice)
        delta = choice_said.get("delta")
        delta_said = _said(delta)
        if choice_said.get("text") or any(delta_said.get(name) for name in _TEXTS):
            return True
        extra = _extra(delta)
        if extra and (extra.get("reasoning_content") or extra.get("reasoning")):
            return True
    return False


def type_of_chat(chunk: Any) -> type | None:
    """Its type where it is a chunk of a chat, which has the fields that `is_text_only` asks for."""
    said = _said(chunk)
    choices = said.get("choices")
    if not choices or "usage" not in said or not hasattr(chunk, "__pydantic_extra__"):
        return None
    has_all = _said(choices[0]).keys() >= {"delta", "finish_reason"}
    return type(chunk) if has_all and "content" in _said(choices[0].delta) else None


def is_text_only(chunk: Any) -> bool:
    """Whether a chunk of a chat brings text and says nothing else, as nearly all do.

    A chat has a hundred of them and more: attributes that are there are read in nanoseconds, those
    that are not in microseconds.
    """
    try:
        (choice,) = chunk.choices
        return (
            choice.finish_reason is None
            and chunk.usage is None
            and bool(choice.delta.content)
            and (not chunk.__pydantic_extra__ or _EXTRA.isdisjoint(chunk.__pydantic_extra__))
        )
    except (AttributeError, TypeError, ValueError):
        return False


def usage_only(chunk: Any) -> Any:
    """The usage where that is all a chunk brings: a stream has one because it was asked for."""
    said = getattr(chunk, "__dict__", _NOTHING)
    return None if said.get("choices", True) else said.get("usage")


def read_usage_only(span: Span, usage: Any, chunk: Any) -> None:
    """The same as `read` of such a chunk, which is not the first."""
    if chunk.__pydantic_extra__:
        _read_numbers(span, usage, chunk.__pydantic_extra__)
    else:
        _read_usage(span, usage)


def add_extra(chunk: Any, hidden: Any) -> None:
    """Have a chunk say what another one says beside the protocol, as llama.cpp's `timings`."""
    for name, value in _extra(hidden).items():
        if name not in _extra(chunk):
            setattr(chunk, name, value)


def read(span: Span, answer: Any, is_first: bool = True) -> bool:
    """Set what an answer, or a chunk of a stream, says; whether it says how the request ended.

    What each chunk of a stream says is taken from the first.
    """
    said = _said(answer)
    if said.get("type") in _LAST_EVENTS:
        if said["type"] == "response.failed":
            span.set_status("ERROR", getattr(answer.response.error, "message", None))
        answer = answer.response
        said, is_first = _said(answer), True
    if is_first:
        read_names(span, said)
    reason = _finish_reason(said)
    if reason:
        span.set_finish_reason(reason)
    _read_numbers(span, said.get("usage"), _extra(answer))
    return bool(reason)


def _read_numbers(span: Span, usage: Any, extra: Mapping[str, Any]) -> None:
    if extra:
        _read_timings(span, extra.get("timings"))
    if usage is not None:
        _read_usage(span, usage)
    if extra:
        _read_metrics(span, extra.get("metrics"))


def read_names(span: Span, said: Mapping[str, Any]) -> None:
    """What each chunk of a stream says: which request it is of, and which model answers."""
    request_id, model = said.get("id"), said.get("model")
    if isinstance(request_id, str) and request_id:
        span.set_request_id(request_id)
    if isinstance(model, str) and model:
        span.set_attribute("gen_ai.response.model", model)


def _finish_reason(said: Mapping[str, Any]) -> str:
    choices = said.get("choices")
    if choices is not None:
        reasons = [_said(choice).get("finish_reason") for choice in choices]
        return ",".join([str(reason) for reason in reasons if reason])
    incomplete = getattr(said.get("incomplete_details"), "reason", None)
    if incomplete:
        return str(incomplete)
    status = said.get("status")
    if isinstance(status, str):
        return {"completed": "stop", "failed": "error", "cancelled": "cancelled"}.get(status, "")
    return ""


def _read_usage(span: Span, usage: Any) -> None:
    said = getattr(usage, "__dict__", _NOTHING)
    read, written = said.get("prompt_tokens"), said.get("completion_tokens")
    read_details = said.get("prompt_tokens_details")
    written_details = said.get("completion_tokens_details")
    if read is None and written is None:
        read, written = said.get("input_tokens"), said.get("output_tokens")
        read_details = said.get("input_tokens_details")
        written_details = said.get("output_tokens_details")
    span.set_tokens(
        input=read if isinstance(read, int) else None,
        output=written if isinstance(written, int) else None,
    )
    if read_details is not None or written_details is not None:
        span.set_token_details(
            cached_input=_count(_said(read_details).get("cached_tokens")),
            reasoning_output=_count(_said(written_details).get("reasoning_tokens")),
        )


def _read_timings(span: Span, timings: Any) -> None:
    """llama.cpp's: tokens, and milliseconds in which it read and generated them."""
    if not isinstance(timings, Mapping):
        return
    cached = timings.get("cache_n")
    prompt, predicted = timings.get("prompt_n"), timings.get("predicted_n")
    if isinstance(prompt, int) and isinstance(predicted, int):
        span.set_tokens(input=prompt + (cached or 0), output=predicted)
    if isinstance(cached, int):
        span.set_token_details(cached_input=cached)
    _set_numbers(span, "llama_cpp.timings.", timings)


def _read_metrics(span: Span, metrics: Any) -> None:
    """vLLM's, which it says with `--enable-per-request-metrics`; in milliseconds."""
    if not isinstance(metrics, Mapping):
        return
    waited_ms = metrics.get("queue_time_ms")
    if isinstance(waited_ms, (int, float)):
        span.set_queue(wait_time_ms=waited_ms)
    _set_numbers(span, "vllm.metrics.", metrics)


def _set_numbers(span: Span, prefix: str, numbers: Mapping[str, Any]) -> None:
    for name, value in numbers.items():
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            span.set_attribute(f"{prefix}{name}", value)


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) else None


def _said(part: Any) -> Mapping[str, Any]:
    """The fields of a part of an answer. Asking it for one that it lacks takes microseconds."""
    return getattr(part, "__dict__", _NOTHING)


def _extra(part: Any) -> Mapping[str, Any]:
    """What the protocol does not have, and the server says all the same."""
    return getattr(part, "__pydantic_extra__", None) or _NOTHING


class Answer:
    """An answer as a plain mapping, in the shape in which the OpenAI client gives it."""

    def __init__(self, fields: Mapping[str, Any]) -> None:
        vars(self).update((name, _shaped(value)) for name, value in fields.items())
        self.__pydantic_extra__ = fields


def _shaped(value: Any) -> Any:
    if isinstance(value, Mapping):
        return Answer(value)
    return [_shaped(one) for one in value] if isinstance(value, list) else value
