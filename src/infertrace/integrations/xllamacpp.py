"""xllamacpp: a span for each request to a llama.cpp server in this process.

Its class is compiled, so a subclass takes its place in the module: a program that has imported
`Server` by name before keeps the other one.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from infertrace.integrations.openai_answers import Answer, has_tokens, read
from infertrace.integrations.switch import Switch
from infertrace.span import Span

FRAMEWORK: Final = "llama.cpp"


def _install(switch: Switch, module: str) -> None:
    import xllamacpp

    plain: Any = xllamacpp.Server

    def handle(self: Any, name: str, operation: str, prompt: Any, callback: Any = None) -> Any:
        method = getattr(plain, name)
        arguments = (self, prompt) if callback is None else (self, prompt, callback)
        if not switch.is_on:
            return method(*arguments)
        with switch.start_span(
            _model_name(self), operation, framework=FRAMEWORK, kind="internal"
        ) as span:
            is_stream = False
            with switch.guarded():
                is_stream = _describe(span, prompt)
            if callback is None:
                answer = method(*arguments)
                with switch.guarded():
                    _read(span, answer)
                return answer
            return method(self, prompt, _following(switch, span, callback, is_stream))

    class Server(plain):  # type: ignore[misc]  # of any type
        __doc__ = plain.__doc__

        def __init__(self, common_params: Any) -> None:
            with switch.guarded():
                self._infertrace_model_name = _name_of(common_params)

        def handle_completions(self, prompt: Any, callback: Any = None) -> Any:
            return handle(self, "handle_completions", "text_completion", prompt, callback)

        def handle_chat_completions(self, prompt: Any, callback: Any = None) -> Any:
            return handle(self, "handle_chat_completions", "chat", prompt, callback)

        def handle_embeddings(self, prompt: Any) -> Any:
            return handle(self, "handle_embeddings", "embeddings", prompt)

        def handle_rerank(self, prompt: Any) -> Any:
            return handle(self, "handle_rerank", "rerank", prompt)

    switch.patches.set(xllamacpp, "Server", Server)


def _following(
    switch: Switch, span: Span, callback: Callable[[Any], Any], is_stream: bool
) -> Callable[[Any], Any]:
    """The program's callback, which gets the answer or each chunk of a stream, and may end it."""
    is_finished = False

    def follow(chunk: Any) -> Any:
        nonlocal is_finished
        with switch.guarded():
            is_finished |= _read(span, chunk, is_stream)
        try:
            wants_no_more = callback(chunk)
        except Exception as error:
            # xllamacpp ends the stream, and says nothing.
            span.set_status("ERROR", f"the callback raised {type(error).__name__}")
            raise
        if wants_no_more and not is_finished:
            span.set_status("CANCELLED", "the callback wanted no more")
        return wants_no_more

    return follow


def _read(span: Span, said: Any, is_chunk: bool = False) -> bool:
    """Take what an answer says, or a chunk; whether that is how it ended."""
    fields = said if isinstance(said, dict) else json.loads(said)
    if not isinstance(fields, Mapping):
        return False
    if "error" in fields:
        span.set_status("ERROR", str(fields["error"].get("message", "")))
        return True
    # It has the path of the file there.
    answer = Answer({name: value for name, value in fields.items() if name != "model"})
    if is_chunk and has_tokens(answer):
        span.token()
    return read(span, answer)


def _describe(span: Span, prompt: Any) -> bool:
    """What is known of a request before it begins; whether it asks for a stream."""
    fields = prompt if isinstance(prompt, dict) else json.loads(prompt)
    many = fields.get("input", fields.get("documents"))
    if isinstance(many, list):
        span.set_batch_size(len(many))
    return fields.get("stream") is True


def _name_of(common_params: Any) -> str:
    """What its users call the model: its alias, or its file without the ending."""
    alias = getattr(common_params, "model_alias", None)
    if isinstance(alias, (set, list, tuple)):
        alias = next(iter(alias), None)
    return str(alias) if alias else Path(common_params.model.path).stem


def _model_name(server: Any) -> str | None:
    return getattr(server, "_infertrace_model_name", None)


_SWITCH: Final = Switch("xllamacpp", _install)
instrument: Final = _SWITCH.on
uninstrument: Final = _SWITCH.off
