from collections.abc import Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Final, final

from typing_extensions import Unpack, disjoint_base

from infertrace.buffering.batch import Batch
from infertrace.buffering.ledger import DropReason
from infertrace.buffering.spool_file import SpoolFile
from infertrace.generated.pure_fields import NoopFieldSetters as FieldSetters
from infertrace.generated.span_setters import SpanColumns, SpanFields
from infertrace.recording.activation import Activation
from infertrace.recording.values import Scalar
from infertrace.span import Decode, Prefill, SpanKeywords, SpanKind
from infertrace.span import Span as AnySpan
from infertrace.trace_context import TraceContext

__all__ = [
    "NAME",
    "NOOP",
    "Recorder",
    "Span",
    "TracerBase",
    "current",
    "exchange_current",
    "monotonic_ns",
    "restore_current",
    "roundtrip",
    "set_current",
]

NAME: Final[str]
NOOP: Final[AnySpan]

def monotonic_ns() -> int: ...
def token_ns() -> int: ...
def roundtrip(
    descriptor: int, parts: tuple[bytes, ...], head: int, size_at: int, timeout_s: float
) -> bytes: ...
def current() -> AnySpan | None: ...
def set_current(span: AnySpan | None) -> None: ...
def exchange_current(span: AnySpan | None) -> AnySpan | None: ...
def restore_current(span: AnySpan | None, previous: AnySpan | None) -> None: ...

@final
class Span(FieldSetters):
    @property
    def trace_id(self) -> str: ...
    @property
    def span_id(self) -> str: ...
    @property
    def parent_span_id(self) -> str | None: ...
    @property
    def traceparent(self) -> str: ...
    @property
    def is_recording(self) -> bool: ...
    @property
    def context(self) -> TraceContext: ...
    @property
    def propagates(self) -> bool: ...
    @property
    def token_count(self) -> int: ...
    def scheduled(self) -> None: ...
    def token(self, count: int = 1) -> None: ...
    def stream(self, iterable: Any) -> Any: ...
    def set_tag(self, key: str, text: str) -> None: ...
    def set_attribute(self, key: str, value: Scalar) -> None: ...
    def add_event(self, name: str, attributes: Mapping[str, Scalar] | None = None) -> None: ...
    def add_link(
        self, other: AnySpan | str, attributes: Mapping[str, Scalar] | None = None
    ) -> None: ...
    def record_exception(self, error: BaseException) -> None: ...
    def set_status(self, status: str, message: str | None = None) -> None: ...
    def set_operation_name(self, name: str) -> None: ...
    def activate(self) -> Activation: ...
    def end(self) -> None: ...
    def __enter__(self) -> Span: ...
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...
    async def __aenter__(self) -> Span: ...
    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...

@final
class Recorder:
    enabled: bool
    service_name: str
    sample: tuple[bytes, int] | None
    anchor: int
    def __init__(
        self, *, max_buffer_bytes: int, max_batch_bytes: int, wake: Callable[[], None]
    ) -> None: ...
    def reset(self) -> None: ...
    def put_encoded(self, record: bytes) -> None: ...
    def set_sample_rate(self, rate: float) -> None: ...
    def new_span_id(self) -> int: ...
    def start_span(
        self,
        model_name: str | None = None,
        operation_name: str = "inference",
        *,
        parent: AnySpan | str | None = None,
        links: Iterable[AnySpan | str] | None = None,
        tags: Mapping[str, str] | None = None,
        attributes: Mapping[str, Scalar] | None = None,
        kind: SpanKind | None = None,
        **fields: Unpack[SpanFields],
    ) -> Any: ...
    def start_step(
        self,
        model_name: str | None = None,
        operation_name: str = "step",
        *,
        prefill: Prefill | None = None,
        decode: Decode | None = None,
        capacity: int | None = None,
        parent: AnySpan | str | None = None,
        links: Iterable[AnySpan | str] | None = None,
        tags: Mapping[str, str] | None = None,
        attributes: Mapping[str, Scalar] | None = None,
        kind: SpanKind | None = None,
        **fields: Unpack[SpanFields],
    ) -> Any: ...
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
        parent: AnySpan | str | None = None,
        status: str = "OK",
        status_message: str | None = None,
        **fields: Unpack[SpanKeywords],
    ) -> Any: ...
    def record(
        self,
        model_name: str | None = None,
        operation_name: str = "inference",
        *,
        start_ns: int,
        duration_ns: int,
        parent: AnySpan | str | None = None,
        status: str = "OK",
        status_message: str | None = None,
        **fields: Unpack[SpanKeywords],
    ) -> Any: ...
    def record_batch(
        self,
        model_name: str | None = None,
        operation_name: str = "inference",
        *,
        start_ns: Any,
        duration_ns: Any,
        parent: AnySpan | str | None = None,
        parents: Sequence[AnySpan | str | None] | None = None,
        trace_ids: Sequence[str | None] | None = None,
        tags: Sequence[Mapping[str, str] | None] | None = None,
        kind: SpanKind | None = None,
        **columns: Unpack[SpanColumns],
    ) -> int: ...
    def take(self, partial: bool = True) -> Batch | None: ...
    def encode_some(self) -> bool: ...
    def settle(self, batch: Batch, delivered: int, reason: DropReason) -> None: ...
    def run_delivery_loop(
        self,
        descriptor: int,
        producer: bytes,
        resource: bytes,
        batch_sequence: int,
        *,
        head: int,
        size_at: int,
        timeout_s: float,
        interval_s: float,
        stay_s: float,
    ) -> tuple[int, Batch | None, bytes | OSError | None] | None: ...
    def interrupt(self) -> None: ...
    def sample_process(
        self, interval_s: float, duration_s: float, gpu: tuple[int, int, int, int] | None = None
    ) -> bool: ...
    def sample_gpu(
        self, interval_s: float, duration_s: float, identity: bytes, *queries: int
    ) -> None: ...
    def stop_sampling(self, stopped: bool = True) -> None: ...
    def sleep(self) -> None: ...
    def close(self) -> None: ...
    def attach_spool(self, file: SpoolFile) -> None: ...
    def detach_spool(self) -> None: ...
    def share_memory(self, producer_id: bytes, resource: bytes) -> None: ...
    @property
    def memory_descriptor(self) -> int | None: ...
    @property
    def packing(self) -> None: ...
    def discard(self) -> None: ...
    def counts(self) -> tuple[int, int, int, tuple[int, ...], int]: ...

@disjoint_base
class TracerBase:
    _recorder: Recorder
    @staticmethod
    def add_start_span(tracer: type, documentation: str) -> None: ...
    @staticmethod
    def add_start_step(tracer: type, documentation: str) -> None: ...
