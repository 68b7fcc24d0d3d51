"""The tracer: the one Python layer above both backends."""

from __future__ import annotations

import os
import threading
import weakref

from infertrace import backend
from infertrace.decorator import traced

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from typing import Any, Final, ParamSpec, TypeAlias, TypeVar, overload

    from typing_extensions import Unpack

    from infertrace.buffering.ledger import Ledger
    from infertrace.configuration import Settings
    from infertrace.generated.span_setters import SpanColumns, SpanFields
    from infertrace.span import (
        Decode,
        Prefill,
        Scalar,
        Span,
        SpanKeywords,
        SpanKind,
        StartSpanKeywords,
    )

    P = ParamSpec("P")
    R = TypeVar("R")
    TracerBase: TypeAlias = object
else:
    TracerBase = backend.selected.TracerBase

    def overload(function):
        return function


_FLUSH_TIMEOUT_S: Final = 10.0
_SHUTDOWN_TIMEOUT_S: Final = 10.0

# What can change after construction; the buffer cannot.
_FIXED: Final = ("max_buffer_bytes", "max_batch_bytes", "spool_dir")


class Tracer(TracerBase):
    """Makes spans and ships them in the background.

    Every setting may also come from the environment: an argument goes before
    `INFERTRACE_<NAME>`, that before OpenTelemetry's variable of the same meaning, that
    before the default.

    endpoint: `HOST:PORT` or `http://HOST:PORT` in the clear, `https://HOST:PORT` over
        TLS, or `file:///PATH`, a file for `infertrace replay`; default `localhost:4317`. With
        a protocol of OTLP also a URL with a path; over HTTP its default is
        `http://localhost:4318/v1/traces`, and `/v1/traces` is added where it is missing.
    service_name: which service the spans come from; default `unknown_service`.
    resource_attributes: texts that describe this process, sent once per batch.
    headers: gRPC metadata for each request, such as credentials.
    sample_rate: share of the traces to record, 0 to 1, decided where a trace starts;
        default 1.
    enabled: False makes every span a shared one that does nothing; default True.
    max_buffer_bytes: how much may wait for the collector, 64 KiB to 1 GiB; default 8 MiB.
    max_batch_bytes: how much goes into one request, 4 KiB to 4 MiB; default 1 MiB.
    export_interval_s: longest wait of a finished span before it is sent, 0.01 to 3,600;
        default 1.
    resource_interval_s: time between two readings of GPU and process, up to 3,600, 0 for
        none; default 1.
    gpu_device_index: the GPU to read, as NVML counts; default the process's own: the first of
        `CUDA_VISIBLE_DEVICES`, else 0.
    exit_timeout_s: how long leaving the interpreter may wait for delivery, 0 to 3,600;
        default 2.
    flush_on_sigterm: whether SIGTERM delivers what is pending, `exit_timeout_s` at most, and
        then does what it did before; default False. Set up where the tracer is made or
        configured, which must be on the main thread.
    sender_process: who sends: `shared`, one process for all of this user on the host, which
        also takes over what is pending when a traced process ends; `own`, one for this tracer;
        `none`, the traced process, which then gives gRPC the GIL. Default `shared`; `own` where
        processes cannot find one another, and `none` on Windows and in embedded or frozen
        interpreters. True and False mean `shared` and `none`.
    agent: `unix:///PATH`, the socket of an `infertrace agent`, which then is the shared sender:
        this process starts none. Default none.
    certificate_file: PEM; the authorities to trust with an `https://` endpoint, in place of
        the usual ones. client_certificate_file, client_key_file: PEM; who we are, for mutual
        TLS.
    token, token_file: sent as `authorization: Bearer ...`; the file is read again when it
        changes.
    compression: `none` or `gzip`; default none.
    spool_dir: a directory for a file that holds what is not delivered yet, and outlives the
        process; the next tracer with this directory, or `infertrace spool drain`, delivers
        it. Default none.
    protocol: `infertrace`, for a collector of infertrace, or `otlp/grpc` or `otlp/http`, for
        any receiver of OTLP; default `infertrace`, or OTLP where only OpenTelemetry's
        variables name an endpoint.
    conventions: what fields are called in OTLP, some of `otel`, `openinference` and
        `langfuse`; default `otel`.
    timeout_s: how long to wait for the answer to a request, 0.05 to 3,600; default 10.

    Raises ValueError for a bad value, naming the argument or the variable.
    """

    def __init__(
        self,
        endpoint: str | None = None,
        *,
        service_name: str | None = None,
        resource_attributes: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        sample_rate: float | None = None,
        enabled: bool | None = None,
        max_buffer_bytes: int | None = None,
        max_batch_bytes: int | None = None,
        export_interval_s: float | None = None,
        resource_interval_s: float | None = None,
        gpu_device_index: int | None = None,
        exit_timeout_s: float | None = None,
        flush_on_sigterm: bool | None = None,
        sender_process: str | bool | None = None,
        agent: str | None = None,
        certificate_file: str | os.PathLike[str] | None = None,
        client_certificate_file: str | os.PathLike[str] | None = None,
        client_key_file: str | os.PathLike[str] | None = None,
        token: str | None = None,
        token_file: str | os.PathLike[str] | None = None,
        compression: str | None = None,
        spool_dir: str | os.PathLike[str] | None = None,
        protocol: str | None = None,
        conventions: str | Iterable[str] | None = None,
        timeout_s: float | None = None,
    ) -> None:
        arguments = dict(locals())
        del arguments["self"]
        self._arguments = arguments
        # Here, not at the first span: these imports hold the GIL, gRPC's for 80 ms in slices.
        from infertrace.configuration import resolve
        from infertrace.exporting.exporter import Exporter

        self._settings: Settings = resolve(arguments, os.environ)

        self._exporter = Exporter(backend.selected, self._settings)
        self._recorder = self._exporter.recorder
        self._apply()
        # For a tracer that the program drops; at the exit, lifecycle.py shuts all of them down.
        weakref.finalize(self, self._exporter.retire).atexit = False

    def configure(self, **settings: Any) -> Tracer:
        """Change settings; returns this tracer.

        Takes the keyword arguments of the constructor but for `max_buffer_bytes`,
        `max_batch_bytes` and `spool_dir`. What is pending goes to the new endpoint. Raises
        TypeError for an unknown setting, ValueError for a bad value; then nothing has changed.
        """
        from infertrace.configuration import Settings, resolve

        for name in settings:
            if name in _FIXED:
                raise ValueError(f"{name}: can only be set when the tracer is made")
            if name not in Settings._fields:
                allowed = ", ".join(field for field in Settings._fields if field not in _FIXED)
                raise TypeError(f"{name!r} is not a setting; expected one of {allowed}")
        with self._exporter.configuring:
            arguments = {**self._arguments, **settings}
            self._settings = resolve(arguments, os.environ)
            self._arguments = arguments
            self._exporter.configure(self._settings)
            self._apply()
        return self

    def start_span(
        self,
        model_name: str | None = None,
        operation_name: str = "inference",
        *,
        parent: Span | str | None = None,
        links: Iterable[Span | str] | None = None,
        tags: Mapping[str, str] | None = None,
        attributes: Mapping[str, Scalar] | None = None,
        kind: SpanKind | None = None,
        **fields: Unpack[SpanFields],
    ) -> Span:
        """Start a span now; enter it with `with`, or end it with `end()`.

        parent: a span, or the `traceparent` of a span elsewhere; default the current span.
        links: other spans, or their `traceparent`. tags, attributes: as the span's setters.
        kind: what OpenTelemetry calls it; without one it is `server` where its parent is a
        `traceparent`, else `internal`.
        fields: model_version, batch_size, input_tokens and what else docs/fields.md names, as
        the span's setters. A wrong value never raises; it is left out or clamped, and counted.
        """
        return self._recorder.start_span(
            model_name,
            operation_name,
            parent=parent,
            links=links,
            tags=tags,
            attributes=attributes,
            kind=kind,
            **fields,
        )

    def start_step(
        self,
        model_name: str | None = None,
        operation_name: str = "step",
        *,
        prefill: Prefill | None = None,
        decode: Decode | None = None,
        capacity: int | None = None,
        parent: Span | str | None = None,
        links: Iterable[Span | str] | None = None,
        tags: Mapping[str, str] | None = None,
        attributes: Mapping[str, Scalar] | None = None,
        kind: SpanKind | None = None,
        **fields: Unpack[SpanFields],
    ) -> Span:
        """Start the span of one forward pass over a batch; use it as one of `start_span`.

        prefill: pairs of a request's span and how many tokens of its input this step reads.
            Once all of `input_tokens` (but for `cached_input_tokens`) are read, the request gets
            its first token; without `input_tokens` each such step completes it, and a third
            member, a bool, says it outright.
        decode: the spans of requests that get a token each, or pairs of one and how many.
        capacity: the largest possible batch; gives `batch_fill_ratio`.
        fields: as those of `start_span`. `engine` is "0" where it is missing, `step_index`
            counts 1, 2, 3, ... in each engine of this process; what follows from the members,
            such as `batch_size`, is set unless it is given.

        When the step ends, each member that has not ended gets it (`first_step`, `last_step`,
        `step_count`) and, unless the step failed, its tokens. A member that is not recorded
        costs nothing. What is no member is left out and counted as an invalid field.
        """
        return self._recorder.start_step(
            model_name,
            operation_name,
            prefill=prefill,
            decode=decode,
            capacity=capacity,
            parent=parent,
            links=links,
            tags=tags,
            attributes=attributes,
            kind=kind,
            **fields,
        )

    def record_step(
        self,
        model_name: str | None = None,
        operation_name: str = "step",
        *,
        start_ns: int,
        duration_ns: int,
        prefill: Prefill | None = None,
        decode: Decode | None = None,
        capacity: int | None = None,
        parent: Span | str | None = None,
        status: str = "OK",
        status_message: str | None = None,
        **fields: Unpack[SpanKeywords],
    ) -> Span:
        """Record one step that has finished already, as `record` does; its members as above.

        Its members get their tokens at its end, by the clock of `start_ns`.
        """
        return self._recorder.record_step(
            model_name,
            operation_name,
            start_ns=start_ns,
            duration_ns=duration_ns,
            prefill=prefill,
            decode=decode,
            capacity=capacity,
            parent=parent,
            status=status,
            status_message=status_message,
            **fields,
        )

    def record(
        self,
        model_name: str | None = None,
        operation_name: str = "inference",
        *,
        start_ns: int,
        duration_ns: int,
        parent: Span | str | None = None,
        status: str = "OK",
        status_message: str | None = None,
        **fields: Unpack[SpanKeywords],
    ) -> Span:
        """Record one span that has finished already, and return it.

        start_ns: nanoseconds since 1970, as `time.time_ns()` gives; more than 0.
        duration_ns: nanoseconds, 0 or more.
        fields: keywords of `start_span`. A span with wrong times is counted as dropped, for
        the reason `invalid`.
        """
        return self._recorder.record(
            model_name,
            operation_name,
            start_ns=start_ns,
            duration_ns=duration_ns,
            parent=parent,
            status=status,
            status_message=status_message,
            **fields,
        )

    def record_batch(
        self,
        model_name: str | None = None,
        operation_name: str = "inference",
        *,
        start_ns: Any,
        duration_ns: Any,
        parent: Span | str | None = None,
        parents: Sequence[Span | str | None] | None = None,
        trace_ids: Sequence[str | None] | None = None,
        tags: Sequence[Mapping[str, str] | None] | None = None,
        kind: SpanKind | None = None,
        **columns: Unpack[SpanColumns],
    ) -> int:
        """Record one finished span for each row of some columns; returns how many.

        A column of numbers is a NumPy array or any other buffer of one dimension: `start_ns` and
        `duration_ns` (as in `record`) of int64, counts (batch_size, ...) and ordinals of int32
        or int64, measures (queue_wait_time_ms, ...) of float32 or float64; docs/fields.md names
        all. Any other column is a sequence with a value, or None, for each row: texts
        (request_id, ...), `token_intervals`, `tags`, and `parents`, which are spans or the
        `traceparent` of each. A row without one is a child of `parent` or of the current span,
        or starts its own trace: a new one, or that of `trace_ids`. `kind` is that of all. A wrong
        value in a row is left out or clamped, as its setter does, and counted; a row with wrong
        times is counted as dropped (`invalid`).

        Raises TypeError or ValueError that names the column of a wrong type or shape; then
        nothing has been recorded.
        """
        return self._recorder.record_batch(
            model_name,
            operation_name,
            start_ns=start_ns,
            duration_ns=duration_ns,
            parent=parent,
            parents=parents,
            trace_ids=trace_ids,
            tags=tags,
            kind=kind,
            **columns,
        )

    @overload
    def trace_inference(self, model: Callable[P, R], /) -> Callable[P, R]: ...
    @overload
    def trace_inference(
        self,
        model: str | None = None,
        operation_name: str = "inference",
        **fields: Unpack[StartSpanKeywords],
    ) -> Callable[[Callable[P, R]], Callable[P, R]]: ...
    def trace_inference(
        self, model: Any = None, operation_name: str = "inference", **fields: Any
    ) -> Any:
        """Decorate a function, coroutine function, generator or async generator.

        Each call is a span; `fields` are keyword arguments of `start_span`. The span of a
        generator is current only while the generator runs, gets each of its items as a token
        (unless the generator does that itself), and is CANCELLED when it is closed early.
        """
        if model is not None and not isinstance(model, str):
            return self.trace_inference()(model)
        start_span = self.start_span
        start_span(None, operation_name, **fields)  # an unknown keyword fails here, not in a call
        return lambda function: traced(function, start_span, model, operation_name, fields)

    def stats(self) -> Ledger:
        """The ledger so far: `produced = delivered + pending + sum of dropped`."""
        return self._exporter.ledger()

    def flush(self, timeout: float = _FLUSH_TIMEOUT_S) -> bool:
        """Wait until no span that ended before is pending, `timeout` seconds at most.

        True when none is. What ends meanwhile is not waited for.
        """
        return self._exporter.flush(timeout)

    def shutdown(self, timeout: float = _SHUTDOWN_TIMEOUT_S) -> bool:
        """Deliver what can be delivered in `timeout` seconds, drop the rest (as `shutdown`).

        A shared sender takes over what the collector does not take within half a second, and
        delivers it after this process has ended; with a spool the rest is left there. Both stay
        `pending` in the ledger. True when everything was delivered or handed over. A second call
        does nothing, and answers as the first did; spans that end later are counted as dropped.
        """
        return not self._exporter.shutdown(timeout)

    def _apply(self) -> None:
        settings = self._settings
        self._recorder.service_name = settings.service_name
        self._recorder.set_sample_rate(settings.sample_rate)
        self._recorder.enabled = settings.enabled
        self._exporter.start_sampler()
        if settings.flush_on_sigterm:
            from infertrace import lifecycle, termination

            termination.set_up(lifecycle.deliver_at_sigterm)


# The backend's own methods replace those above, whose extra call would double a span's cost.
backend.selected.TracerBase.add_start_span(Tracer, Tracer.start_span.__doc__ or "")
backend.selected.TracerBase.add_start_step(Tracer, Tracer.start_step.__doc__ or "")


def default_tracer() -> Tracer:
    """The process's tracer of the module-level functions, made at the first call."""
    global _default
    if _default is None:
        with _default_lock:
            if _default is None:
                _default = Tracer()
    return _default


def exchange_default_tracer(tracer: Tracer | None) -> Tracer | None:
    """Make this the tracer of the module-level functions; returns the one before.

    With None, the next call of `default_tracer` makes one.
    """
    global _default
    with _default_lock:
        before, _default = _default, tracer
    return before


def configure(**settings: Any) -> Tracer:
    """Configure the default tracer; takes what `Tracer.configure` takes, returns the tracer."""
    return default_tracer().configure(**settings)


@overload
def trace_inference(model: Callable[P, R], /) -> Callable[P, R]: ...
@overload
def trace_inference(
    model: str | None = None, operation_name: str = "inference", **fields: Unpack[StartSpanKeywords]
) -> Callable[[Callable[P, R]], Callable[P, R]]: ...
def trace_inference(model: Any = None, operation_name: str = "inference", **fields: Any) -> Any:
    """`Tracer.trace_inference` on the default tracer."""
    return default_tracer().trace_inference(model, operation_name, **fields)


_default: Tracer | None = None
_default_lock = threading.RLock()


def _reset_after_fork() -> None:
    global _default_lock
    _default_lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset_after_fork)
