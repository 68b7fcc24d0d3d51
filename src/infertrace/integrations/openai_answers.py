"""What an answer in OpenAI's protocol says about its request, and where a span has it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from infertrace.span import Span

_NAMES: Final = {
    "/chat/completions": "chat",
    "/completions": "text_completion",
    "/responses": "responses",
    "/embeddings": "embeddings",
}
# Of the events of a response: its last one, which has all of it.
_LAST_EVENTS: Final = ("response.completed", "response.incomplete", "response.failed")


def span_name(url: str) -> str | None:
    """What an address of the protocol does; None for one that is not traced."""
    return _NAMES.get(url)


def describe(span: Span, base_url: Any, body: Mapping[str, Any]) -> None:
    """What is known of a request before it is sent."""
    span.set_attribute("server.address", base_url.host)
    if base_url.port is not None:
        span.set_attribute("server.port", base_url.port)
    inputs = body.get("input")
    # Of an embedding; a response has objects there.
    if (
        isinstance(inputs, list)
        and inputs
        and all(isinstance(each, (str, list)) for each in inputs)
    ):
        span.set_batch_size(len(inputs))


def has_tokens(chunk: Any) -> bool:
    """Whether a chunk of a stream brings text, or a part of a call; the first and last may not."""
    kind = getattr(chunk, "type", None)
    if isinstance(kind, str):
        return kind.endswith(".delta")
    for choice in getattr(chunk, "choices", None) or ():
        delta = getattr(choice, "delta", None)
        if getattr(choice, "text", None) or any(
            getattr(delta, name, None)
            for name in ("content", "tool_calls", "function_call", "refusal")
        ):
            return True
        if any(_extra(delta).get(name) for name in ("reasoning_content", "reasoning")):
            return True
    return False


def is_usage_only(chunk: Any) -> bool:
    """Whether it is the chunk that a stream has because its usage was asked for."""
    return not getattr(chunk, "choices", True) and getattr(chunk, "usage", None) is not None


def add_extra(chunk: Any, hidden: Any) -> None:
    """Have a chunk say what another one says beside the protocol, as llama.cpp's `timings`."""
    for name, value in _extra(hidden).items():
        if name not in _extra(chunk):
            setattr(chunk, name, value)


def read(span: Span, answer: Any) -> bool:
    """Set what an answer, or a chunk of a stream, says; whether it says how the request ended."""
    kind = getattr(answer, "type", None)
    if kind in _LAST_EVENTS:
        if kind == "response.failed":
            span.set_status("ERROR", getattr(answer.response.error, "message", None))
        answer = answer.response
    request_id = getattr(answer, "id", None)
    if isinstance(request_id, str) and request_id:
        span.set_request_id(request_id)
    model = getattr(answer, "model", None)
    if isinstance(model, str) and model:
        span.set_attribute("gen_ai.response.model", model)
    reason = _finish_reason(answer)
    if reason:
        span.set_finish_reason(reason)
    extra = _extra(answer)
    _read_timings(span, extra.get("timings"))
    _read_usage(span, getattr(answer, "usage", None))
    _read_metrics(span, extra.get("metrics"))
    return bool(reason)


def _finish_reason(answer: Any) -> str:
    incomplete = getattr(getattr(answer, "incomplete_details", None), "reason", None)
    if incomplete:
        return str(incomplete)
    status = getattr(answer, "status", None)
    if isinstance(status, str):
        return {"completed": "stop", "failed": "error", "cancelled": "cancelled"}.get(status, "")
    choices: Iterable[Any] = getattr(answer, "choices", None) or ()
    reasons = [getattr(choice, "finish_reason", None) for choice in choices]
    return ",".join(str(reason) for reason in reasons if reason)


def _read_usage(span: Span, usage: Any) -> None:
    if usage is None:
        return
    span.set_tokens(
        input=_count(usage, "prompt_tokens", "input_tokens"),
        output=_count(usage, "completion_tokens", "output_tokens"),
    )
    read_details = _first(usage, "prompt_tokens_details", "input_tokens_details")
    written_details = _first(usage, "completion_tokens_details", "output_tokens_details")
    span.set_token_details(
        cached_input=_count(read_details, "cached_tokens"),
        reasoning_output=_count(written_details, "reasoning_tokens"),
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


def _first(owner: Any, *names: str) -> Any:
    for name in names:
        found = getattr(owner, name, None)
        if found is not None:
            return found
    return None


def _count(owner: Any, *names: str) -> int | None:
    found = _first(owner, *names)
    return found if isinstance(found, int) else None


def _extra(answer: Any) -> Mapping[str, Any]:
    """What the protocol does not have, and the server says all the same."""
    return getattr(answer, "model_extra", None) or {}


class Answer:
    """An answer as a plain mapping, in the shape in which the OpenAI client gives it."""

    def __init__(self, fields: Mapping[str, Any]) -> None:
        self.model_extra = fields

    def __getattr__(self, name: str) -> Any:
        return _shaped(self.model_extra.get(name))


def _shaped(value: Any) -> Any:
    if isinstance(value, Mapping):
        return Answer(value)
    return [_shaped(one) for one in value] if isinstance(value, list) else value
