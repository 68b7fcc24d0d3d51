"""ONNX Runtime: a span for each run of a session, however it is run.

What is known of the inputs is read of their shapes alone: nothing is copied, and no device waits.

Option: `model_name`, a function that gives a session its name. By default it is that of its file,
or of the folder of a `model.onnx`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from infertrace.integrations.switch import Switch
from infertrace.span import Span

_OPERATION: Final = "inference"
_FRAMEWORK: Final = "onnx"
_ANY_MODEL: Final = "model"
# Where we keep ours on objects of the library.
_DESCRIPTION: Final = "_infertrace_description"
_BATCH: Final = "_infertrace_batch"


class _Description(NamedTuple):
    """What is the same for each run of a session."""

    model_name: str
    batched_input: str | None
    """The input whose first dimension may have any length, else the first one."""
    provider: str


def _install(switch: Switch, module: str) -> None:
    from onnxruntime.capi.onnxruntime_inference_collection import IOBinding, Session

    def of_inputs(original: Callable[..., Any]) -> Callable[..., Any]:
        def run(
            self: Any, output_names: Any, inputs: Any, run_options: Any = None, *rest: Any
        ) -> Any:
            span = _begin(switch, self, inputs)
            if span is None:
                return original(self, output_names, inputs, run_options, *rest)
            with span:
                try:
                    return original(self, output_names, inputs, run_options, *rest)
                except Exception:
                    if _is_terminated(span, run_options):
                        span.end()  # before the exception does, as an error
                    raise

        return run

    def in_background(original: Callable[..., Any]) -> Callable[..., Any]:
        def run_async(
            self: Any,
            output_names: Any,
            input_feed: Any,
            callback: Any,
            user_data: Any,
            run_options: Any = None,
        ) -> Any:
            span = _begin(switch, self, input_feed)
            if span is None:
                return original(self, output_names, input_feed, callback, user_data, run_options)

            def done(results: Any, data: Any, error: str) -> None:
                if error and not _is_terminated(span, run_options):
                    span.set_status("ERROR", error)
                span.end()
                with span.activate():
                    callback(results, data, error)

            try:
                return original(self, output_names, input_feed, done, user_data, run_options)
            except BaseException as error:
                span.__exit__(type(error), error, None)  # it was never entered: this only ends it
                raise

        return run_async

    def of_binding(original: Callable[..., Any]) -> Callable[..., Any]:
        def run_with_iobinding(self: Any, iobinding: Any, run_options: Any = None) -> Any:
            span = _begin(switch, self, None)
            if span is None:
                return original(self, iobinding, run_options)
            batch_size = getattr(iobinding, _BATCH, None)
            if batch_size is not None:
                span.set_batch_size(batch_size)
            with span:
                try:
                    return original(self, iobinding, run_options)
                except Exception:
                    if _is_terminated(span, run_options):
                        span.end()  # before the exception does, as an error
                    raise

        return run_with_iobinding

    def binding(shape_of: Callable[..., Any]) -> Callable[[Any], Callable[..., Any]]:
        """Keeps the batch of an input that is bound, of which nothing can be asked later."""

        def wrap(original: Callable[..., Any]) -> Callable[..., Any]:
            def bind(self: Any, name: str, *arguments: Any, **keywords: Any) -> Any:
                result = original(self, name, *arguments, **keywords)
                with switch.guarded():
                    _keep_batch(self, shape_of(*arguments, **keywords))
                return result

            return bind

        return wrap

    def clearing(original: Callable[..., Any]) -> Callable[..., Any]:
        def clear_binding_inputs(self: Any) -> Any:
            vars(self).pop(_BATCH, None)
            return original(self)

        return clear_binding_inputs

    switch.patches.wrap(Session, "run", of_inputs)
    switch.patches.wrap(Session, "run_with_ort_values", of_inputs)
    switch.patches.wrap(Session, "run_async", in_background)
    switch.patches.wrap(Session, "run_with_iobinding", of_binding)
    switch.patches.wrap(IOBinding, "bind_cpu_input", binding(_shape_of_value))
    switch.patches.wrap(IOBinding, "bind_ortvalue_input", binding(_shape_of_value))
    switch.patches.wrap(IOBinding, "bind_input", binding(_shape_of_buffer))
    switch.patches.wrap(IOBinding, "clear_binding_inputs", clearing)


def _begin(switch: Switch, session: Any, inputs: Mapping[str, Any] | None) -> Span | None:
    """The span of a run; None where it is not traced."""
    if not switch.is_on:
        return None
    try:
        found: _Description | None = getattr(session, _DESCRIPTION, None)
        if found is None:
            found = _describe(session, switch.options["model_name"])
            setattr(session, _DESCRIPTION, found)
        span = switch.start_span(found.model_name, _OPERATION, framework=_FRAMEWORK)
        if not span.is_recording:
            return span
        span.set_attribute("onnxruntime.provider", found.provider)
        if inputs:
            value = inputs.get(found.batched_input or "")
            shape = _shape(next(iter(inputs.values())) if value is None else value)
            if shape:
                span.set_batch_size(int(shape[0]))
        return span
    except Exception as error:
        switch.note_failure(error)
        return None


def _describe(session: Any, name_of: Callable[[Any], str] | None) -> _Description:
    name = (name_of or _name)(session)
    inputs = session.get_inputs()
    batched = [one.name for one in inputs if one.shape and not isinstance(one.shape[0], int)]
    batched += [one.name for one in inputs if one.shape]
    (provider, *_) = session.get_providers()
    return _Description(name, batched[0] if batched else None, provider)


def _name(session: Any) -> str:
    path = getattr(session, "_model_path", None)
    if not path:  # it came as bytes
        return str(session.get_modelmeta().graph_name)
    path = Path(path)
    return path.parent.name if path.stem == _ANY_MODEL and path.parent.name else path.stem


def _shape(value: Any) -> Any:
    """Of an array, an OrtValue or nested lists; None of anything else."""
    shape = getattr(value, "shape", None)
    if shape is None:
        return (len(value),) if isinstance(value, (list, tuple)) else None
    return shape() if callable(shape) else shape


def _shape_of_value(*arguments: Any, **keywords: Any) -> Any:
    """Of the one value that is bound."""
    (value,) = (*arguments, *keywords.values())
    return _shape(value)


def _shape_of_buffer(
    device_type: Any, device_id: Any, element_type: Any, shape: Any, buffer_ptr: Any
) -> Any:
    return shape


def _keep_batch(iobinding: Any, shape: Any) -> None:
    """The first input that has a dimension says it."""
    if shape and not hasattr(iobinding, _BATCH):
        setattr(iobinding, _BATCH, int(shape[0]))


def _is_terminated(span: Span, run_options: Any) -> bool:
    """Whether it failed because the program has stopped it, which is then its status."""
    if not getattr(run_options, "terminate", False):
        return False
    span.set_status("CANCELLED", "the run was terminated")
    return True


_SWITCH: Final = Switch("onnxruntime", _install, model_name=None)
instrument: Final = _SWITCH.on
uninstrument: Final = _SWITCH.off
