"""transformers: a span for each `generate`, and for each request of its continuous batching.

Steps are counted by a stopping criterion, which never stops anything and reads nothing but shapes:
no device waits for us. What a device holds is not read either, so where sequences of a batch end
early there, their padding counts.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, Final

from infertrace.integrations.switch import Switch
from infertrace.integrations.transformers_batching import (
    FRAMEWORK,
    OPERATION,
    install_batching,
)
from infertrace.integrations.transformers_steps import install_steps
from infertrace.span import Span

_CPU: Final = "cpu"


def _install(switch: Switch, module: str) -> None:
    if module.endswith("continuous_api"):
        install_batching(switch, model_name)
        install_steps(switch, model_name)
    else:
        _install_generate(switch)


def _install_generate(switch: Switch) -> None:
    from transformers.generation.stopping_criteria import StoppingCriteria, StoppingCriteriaList
    from transformers.generation.utils import GenerationMixin

    class Steps(StoppingCriteria):  # type: ignore[misc]  # of any type
        def __init__(self, call: _Call) -> None:
            self._call = call

        def __call__(self, input_ids: Any, scores: Any, **keywords: Any) -> bool:
            with switch.guarded():
                self._call.take_step(input_ids.shape[1])
            return False

    def generating(original: Callable[..., Any]) -> Callable[..., Any]:
        _, *names = inspect.signature(original).parameters

        def generate(self: Any, *arguments: Any, **keywords: Any) -> Any:
            if not switch.is_on:
                return original(self, *arguments, **keywords)
            call = None
            given = {**dict(zip(names, arguments, strict=False)), **keywords}
            with switch.guarded():
                span = switch.start_span(
                    model_name(self), OPERATION, framework=FRAMEWORK, kind="internal"
                )
                call = _Call(span, self, given)
            if call is None:
                return original(self, *arguments, **keywords)
            if given.get("cache_implementation") != "paged":  # that takes no criteria
                criteria = given.get("stopping_criteria") or ()
                given["stopping_criteria"] = StoppingCriteriaList([*criteria, Steps(call)])
            with call.span:
                result = original(self, **given)
                with switch.guarded():
                    call.finish(result)
                return result

        return generate

    switch.patches.wrap(GenerationMixin, "generate", generating)


class _Call:
    """One call of `generate`."""

    def __init__(self, span: Span, model: Any, given: Mapping[str, Any]) -> None:
        self.span = span
        self._eos_ids = _eos_ids(model, given)
        self._before: int | None = None
        """The length of the sequences before the first step."""
        self._length = self._steps = 0
        prompt = given.get("inputs")
        for name in (model.main_input_name, "input_ids", "inputs_embeds"):
            prompt = given.get(name) if prompt is None else prompt
        if prompt is None:
            return
        span.set_batch_size(prompt.shape[0])
        is_text = model.main_input_name == "input_ids"
        if is_text:
            span.set_tokens(input=_count(prompt, given.get("attention_mask")))
        is_decoder_only = not getattr(model.config, "is_encoder_decoder", False)
        if is_text and is_decoder_only and prompt.ndim == 2:
            self._before = prompt.shape[1]

    def take_step(self, length: int) -> None:
        """A step has ended, and the sequences are that long now."""
        if self._before is None:
            self._before = length - 1
        self.span.token(max(1, length - (self._length or self._before)))
        self._length = length
        self._steps += 1

    def finish(self, result: Any) -> None:
        if not self._steps or self._before is None:
            return
        self.span.set_request(step_count=self._steps)
        sequences = getattr(result, "sequences", result)
        rows, generated = sequences.shape[0], self._length - self._before
        if sequences.device.type == _CPU and self._eos_ids:
            new = sequences[:, sequences.shape[1] - generated :]
            is_end = sum((new == eos_id).long() for eos_id in self._eos_ids)
            # What has no end before it.
            self.span.set_tokens(output=int(((is_end.cumsum(1) - is_end) == 0).sum()))
        else:
            self.span.set_tokens(output=rows * generated)


def model_name(model: Any) -> str | None:
    """The last part of where a model came from."""
    path = str(getattr(model, "name_or_path", "") or "").rstrip("/\\")
    return path.replace("\\", "/").rpartition("/")[2] or None


def _count(prompt: Any, mask: Any) -> int:
    """The tokens of a batch: without padding, where that can be seen without a device."""
    if mask is not None and mask.device.type == _CPU:
        return int(mask.sum())
    return int(prompt.shape[0] * prompt.shape[1])


def _eos_ids(model: Any, given: Mapping[str, Any]) -> list[int]:
    configuration = given.get("generation_config") or model.generation_config
    found = given.get("eos_token_id", getattr(configuration, "eos_token_id", None))
    if found is None:
        found = model.generation_config.eos_token_id
    return [int(one) for one in (found if isinstance(found, (list, tuple)) else [found]) if one]


_SWITCH: Final = Switch("transformers", _install)
instrument: Final = _SWITCH.on
uninstrument: Final = _SWITCH.off
