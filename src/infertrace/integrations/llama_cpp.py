"""llama-cpp-python: a span for each completion, chat and embedding of a `Llama`.

Its tokens are counted where it generates them, so a stream has exact numbers too.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Any, Final

from infertrace.integrations.openai_answers import Answer, read
from infertrace.integrations.switch import Switch
from infertrace.span import Span

_FRAMEWORK: Final = "llama.cpp"


class _Call:
    """A call that is not over yet."""

    def __init__(self, switch: Switch, span: Span) -> None:
        self.span = span
        self.switch = switch
        self._steps = self._tokens = 0
        self._is_finished = False

    def begin(self, prompt_length: int) -> None:
        self.span.set_tokens(input=prompt_length)

    def take_step(self, cached_tokens: int) -> None:
        if not self._steps:
            self.span.set_token_details(cached_input=cached_tokens)
        self._steps += 1

    def take_token(self) -> None:
        self._tokens += 1
        self.span.token()

    def read(self, answer: Any) -> None:
        with self.switch.guarded():
            # It has the path of the file there.
            fields = {name: value for name, value in answer.items() if name != "model"}
            self._is_finished |= read(self.span, Answer(fields))

    def end(self, error: BaseException | None = None) -> None:
        with self.switch.guarded():
            if self._steps:
                self.span.set_request(step_count=self._steps)
        self.span.__exit__(None if error is None else type(error), error, None)

    def close(self) -> None:
        """The program wants no more of it."""
        if self.span.is_recording:
            if not self._is_finished:
                self.span.set_status("CANCELLED", "the stream was closed")
            self.end()


_current: ContextVar[_Call | None] = ContextVar("call", default=None)


def _install(switch: Switch, module: str) -> None:
    from llama_cpp import Llama, llama_vocab_is_eog

    def calling(operation: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        def wrap(original: Callable[..., Any]) -> Callable[..., Any]:
            def call_model(self: Any, *arguments: Any, **keywords: Any) -> Any:
                if not switch.is_on or _current.get() is not None:
                    return original(self, *arguments, **keywords)
                call = None
                with switch.guarded():
                    name = Path(self.model_path).stem
                    span = switch.start_span(name, operation, framework=_FRAMEWORK, kind="internal")
                    call = _Call(switch, span)
                    _describe(span, operation, arguments, keywords)
                if call is None:
                    return original(self, *arguments, **keywords)
                token = _current.set(call)
                try:
                    with call.span.activate():
                        answer = original(self, *arguments, **keywords)
                except BaseException as error:
                    call.end(error)
                    raise
                finally:
                    _current.reset(token)
                if not isinstance(answer, Iterator):
                    call.read(answer)
                    call.end()
                    return answer
                followed = _follow(call, answer)
                # One that is never begun has no end of its own.
                weakref.finalize(followed, call.close).atexit = False
                return followed

            return call_model

        return wrap

    def generating(original: Callable[..., Any]) -> Callable[..., Any]:
        def generate(self: Any, tokens: Sequence[int], *arguments: Any, **keywords: Any) -> Any:
            call = _current.get()
            if call is None:
                return original(self, tokens, *arguments, **keywords)
            call.begin(len(tokens))
            return counted(self, call, original(self, tokens, *arguments, **keywords))

        return generate

    def counted(llama: Any, call: _Call, tokens: Any) -> Any:
        """The tokens of a generator, to which one may send others."""
        sent = None
        try:
            while True:
                try:
                    token = tokens.send(sent)
                except StopIteration:
                    return
                with switch.guarded():
                    if not llama_vocab_is_eog(llama._model.vocab, token):
                        call.take_token()
                sent = yield token
        finally:
            tokens.close()

    def evaluating(original: Callable[..., Any]) -> Callable[..., Any]:
        def evaluate(self: Any, tokens: Sequence[int]) -> Any:
            call = _current.get()
            if call is not None:
                with switch.guarded():
                    call.take_step(self.n_tokens)
            return original(self, tokens)

        return evaluate

    switch.patches.wrap(Llama, "create_completion", calling("text_completion"))
    switch.patches.wrap(Llama, "create_chat_completion", calling("chat"))
    switch.patches.wrap(Llama, "create_embedding", calling("embeddings"))
    switch.patches.wrap(Llama, "generate", generating)
    switch.patches.wrap(Llama, "eval", evaluating)


def _describe(span: Span, operation: str, arguments: Any, keywords: Any) -> None:
    if operation == "embeddings":
        texts = arguments[0] if arguments else keywords.get("input")
        span.set_batch_size(len(texts) if isinstance(texts, list) else 1)


def _follow(call: _Call, chunks: Any) -> Any:
    """A stream, of which the span gets all that it says."""
    try:
        while True:
            # Inside of it llama-cpp-python works, and outside of it the program does.
            token = _current.set(call)
            try:
                with call.span.activate():
                    chunk = next(chunks)
            except StopIteration:
                call.end()
                return
            except BaseException as error:
                call.end(error)
                raise
            finally:
                _current.reset(token)
            call.read(chunk)
            yield chunk
    finally:
        chunks.close()
        call.close()


_SWITCH: Final = Switch("llama-cpp", _install)
instrument: Final = _SWITCH.on
uninstrument: Final = _SWITCH.off
