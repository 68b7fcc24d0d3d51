"""sentence-transformers: a span for each call that embeds texts, or ranks pairs of them.

Tokens are counted as the tokenizer gives them, before they go to a device.
"""

from __future__ import annotations

from collections.abc import Callable, Sized
from contextvars import ContextVar
from typing import Any, Final

from infertrace.integrations.switch import Switch
from infertrace.span import Span

_FRAMEWORK: Final = "pytorch"


class _Call:
    """One call of a model, which works on its texts in batches."""

    def __init__(self, span: Span, inputs: Any) -> None:
        self.span = span
        self._tokens = self._batches = 0
        is_one = isinstance(inputs, (str, dict)) or not isinstance(inputs, Sized)
        span.set_batch_size(1 if is_one else len(inputs))

    def take_batch(self, features: Any) -> None:
        self._batches += 1
        mask = features.get("attention_mask")
        if mask is None:
            mask = features.get("input_ids")
            self._tokens += 0 if mask is None else int(mask.numel())
        elif mask.device.type == "cpu":
            self._tokens += int(mask.sum())

    def finish(self) -> None:
        if self._batches:
            self.span.set_request(step_count=self._batches)
            self.span.set_tokens(input=self._tokens)


_current: ContextVar[_Call | None] = ContextVar("call", default=None)


def _install(switch: Switch, module: str) -> None:
    import sentence_transformers as library
    from sentence_transformers.base.model import BaseModel

    def calling(operation: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        def wrap(original: Callable[..., Any]) -> Callable[..., Any]:
            def call_model(self: Any, inputs: Any, *arguments: Any, **keywords: Any) -> Any:
                if not switch.is_on or _current.get() is not None:
                    return original(self, inputs, *arguments, **keywords)
                call = None
                with switch.guarded():
                    span = switch.start_span(_name(self), operation, framework=_FRAMEWORK)
                    call = _Call(span, inputs)
                if call is None:
                    return original(self, inputs, *arguments, **keywords)
                token = _current.set(call)
                try:
                    with call.span:
                        result = original(self, inputs, *arguments, **keywords)
                        with switch.guarded():
                            call.finish()
                        return result
                finally:
                    _current.reset(token)

            return call_model

        return wrap

    def preparing(original: Callable[..., Any]) -> Callable[..., Any]:
        def preprocess(self: Any, *arguments: Any, **keywords: Any) -> Any:
            features = original(self, *arguments, **keywords)
            call = _current.get()
            if call is not None:
                with switch.guarded():
                    call.take_batch(features)
            return features

        return preprocess

    for name in ("SentenceTransformer", "SparseEncoder", "MultiVectorEncoder"):
        kind = getattr(library, name, None)
        if kind is not None:
            switch.patches.wrap(kind, "encode", calling("embeddings"))
    switch.patches.wrap(library.CrossEncoder, "predict", calling("rerank"))
    switch.patches.wrap(BaseModel, "preprocess", preparing)


def _name(model: Any) -> str | None:
    """The last part of where the model came from."""
    card = getattr(model, "model_card_data", None)
    path = getattr(card, "base_model", None) or getattr(
        getattr(model, "config", None), "_name_or_path", None
    )
    path = str(path or "").rstrip("/\\").replace("\\", "/")
    return path.rpartition("/")[2] or None


_SWITCH: Final = Switch("sentence-transformers", _install)
instrument: Final = _SWITCH.on
uninstrument: Final = _SWITCH.off
