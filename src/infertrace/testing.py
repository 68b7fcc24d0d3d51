"""Spans in memory, for the tests of a traced program.

    from infertrace.testing import SpanRecorder

    with SpanRecorder() as recorder:
        with recorder.tracer.start_span("gpt-4") as span:
            span.set_batch_size(8)
        assert recorder.one().fields["batch_size"] == 8

With pytest, the fixture `recorded_spans` is such a recorder.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

from infertrace.exporting.answer import Answer
from infertrace.exporting.envelope import Request
from infertrace.exporting.transport import Transport
from infertrace.generated.span_pb2 import SendSpanBatchRequest, SpanKind, TokenIntervals
from infertrace.generated.span_pb2 import Span as EncodedSpan
from infertrace.span import Scalar
from infertrace.tracer import Tracer

__all__ = ["RecordedEvent", "RecordedLink", "RecordedSpan", "SpanRecorder"]

_TIMEOUT_S: Final = 10.0
_MAX_BUFFER_BYTES: Final = 64 * 1024 * 1024
# A tracer needs an endpoint. This one starts neither a process nor gRPC, and `capture` replaces it
# before the tracer sends anything.
_UNUSED_ENDPOINT: Final = "file:///dev/null"


@dataclass(frozen=True)
class RecordedEvent:
    """Something that happened during a span."""

    name: str
    time_ns: int
    """Nanoseconds since 1970."""
    attributes: Mapping[str, Scalar]


@dataclass(frozen=True)
class RecordedLink:
    """A reference to another span."""

    trace_id: str
    span_id: str
    attributes: Mapping[str, Scalar]


@dataclass(eq=False)
class RecordedSpan:
    """A span that has ended, as a collector would receive it."""

    trace_id: str
    """32 lower-case hexadecimal digits."""
    span_id: str
    """16 lower-case hexadecimal digits."""
    parent_span_id: str | None
    """None at the root of a trace."""
    model: str | None
    operation: str
    service_name: str
    status: str
    """`OK`, `ERROR` or `CANCELLED`."""
    status_message: str | None
    start_ns: int
    """Nanoseconds since 1970."""
    duration_ns: int
    fields: Mapping[str, str | int | float | list[int]]
    """What the program set about the inference, named as in `start_span`: `batch_size`, ..."""
    tags: Mapping[str, str]
    attributes: Mapping[str, Scalar]
    events: tuple[RecordedEvent, ...]
    links: tuple[RecordedLink, ...]
    resources: Mapping[str, str | int | float]
    """Readings of GPU and process; empty unless the tracer samples them."""
    invalid_fields: int
    """How many invalid values the tracer left out or clamped."""
    kind: str | None = None
    """`server`, `client`, ...; None where the program did not say it."""
    parent: RecordedSpan | None = field(default=None, repr=False)
    """The enclosing span; None also if that one is not recorded or has not ended."""
    children: list[RecordedSpan] = field(default_factory=list, repr=False)
    """In the order in which they started."""

    def text_tree(self, fields: Iterable[str] = ()) -> str:
        """This span and its descendants, one per line, without ids and times.

        fields: names of `fields` to show where they are set.
        """
        return "\n".join(_tree_lines(self, "", "", tuple(fields)))


class SpanRecorder:
    """A tracer whose spans stay in memory, and the spans it recorded.

    Used in a `with` statement, it closes itself. It starts no process and opens no connection.
    """

    tracer: Tracer
    """Records all spans, whatever the environment says about sampling."""

    def __init__(self, service_name: str = "tests") -> None:
        self._memory = _Memory()
        self._captured: list[Tracer] = []
        self.tracer = Tracer(
            _UNUSED_ENDPOINT,
            service_name=service_name,
            enabled=True,
            sample_rate=1,
            max_buffer_bytes=_MAX_BUFFER_BYTES,
            resource_interval_s=0,
            flush_on_sigterm=False,
        )
        self.capture(self.tracer)

    def capture(self, tracer: Tracer) -> None:
        """Record the spans of this tracer too, instead of delivering them, until `close()`.

        For a tracer that the program makes when it is imported. Spans that it already holds are
        neither recorded nor delivered. It keeps its settings: traces that it does not sample are
        not recorded.
        """
        before = _Memory()
        tracer._exporter.divert(lambda: _MemoryTransport(before))
        _read_out(tracer)
        tracer._exporter.divert(lambda: _MemoryTransport(self._memory))
        self._captured.append(tracer)

    @property
    def spans(self) -> list[RecordedSpan]:
        """The ended spans, in the order in which they started.

        Raises RuntimeError if they cannot be read within 10 seconds.
        """
        for tracer in self._captured:
            _read_out(tracer)
        spans = [
            _recorded(span)
            for request in self._memory.requests
            for span in SendSpanBatchRequest.FromString(request).spans
        ]
        spans.sort(key=lambda span: span.start_ns)
        by_id = {(span.trace_id, span.span_id): span for span in spans}
        for span in spans:
            if span.parent_span_id is not None:
                span.parent = by_id.get((span.trace_id, span.parent_span_id))
            if span.parent is not None:
                span.parent.children.append(span)
        return spans

    @property
    def roots(self) -> list[RecordedSpan]:
        """The `spans` without a recorded parent; the others are in their `children`."""
        return [span for span in self.spans if span.parent is None]

    def find(
        self, operation: str | None = None, *, model: str | None = None, status: str | None = None
    ) -> list[RecordedSpan]:
        """The `spans` of this operation, model and status; None matches any."""
        return [
            span
            for span in self.spans
            if operation in (None, span.operation)
            and model in (None, span.model)
            and status in (None, span.status)
        ]

    def one(
        self, operation: str | None = None, *, model: str | None = None, status: str | None = None
    ) -> RecordedSpan:
        """The only span that `find` returns; otherwise raises an AssertionError that shows all."""
        matches = self.find(operation, model=model, status=status)
        if len(matches) != 1:
            message = f"expected one span, found {len(matches)} among\n{self.text_tree()}"
            raise AssertionError(message)
        return matches[0]

    def text_tree(self, fields: Iterable[str] = ()) -> str:
        """All spans as indented text without ids and times, to compare or to print.

        fields: names of `RecordedSpan.fields` to show where they are set.
        """
        shown = tuple(fields)
        return "\n".join(root.text_tree(shown) for root in self.roots)

    def clear(self) -> None:
        """Discard the spans recorded so far."""
        for tracer in self._captured:
            _read_out(tracer)
        self._memory.requests.clear()

    def close(self) -> None:
        """Shut down `tracer`; the captured ones deliver again. The spans stay readable."""
        captured, self._captured = self._captured, []
        for tracer in captured:
            _read_out(tracer)
            if tracer is not self.tracer:
                tracer._exporter.divert(None)
        self.tracer.shutdown(_TIMEOUT_S)

    def __enter__(self) -> SpanRecorder:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class _Memory:
    """Encoded requests, in the order in which they were sent."""

    def __init__(self) -> None:
        self.requests: list[bytes] = []


class _MemoryTransport(Transport):
    """Takes every request."""

    def __init__(self, memory: _Memory) -> None:
        self._memory = memory

    def send(self, request: Request, span_count: int, timeout_s: float) -> Answer:
        self._memory.requests.append(b"".join(request))
        return Answer(span_count, 0, "")

    def close(self) -> None:
        pass

    def after_fork_in_child(self) -> None:
        pass


def _read_out(tracer: Tracer) -> None:
    """Move all spans that have ended into memory."""
    if not tracer.flush(_TIMEOUT_S):
        raise RuntimeError(f"spans cannot be read within {_TIMEOUT_S:g} s: {tracer.stats()}")


def _recorded(span: EncodedSpan) -> RecordedSpan:
    fields = _set_fields(span.inference)
    model = fields.pop("model_name", None)
    return RecordedSpan(
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_span_id=span.parent_span_id.hex() or None,
        model=model,
        operation=span.operation_name,
        service_name=span.service_name,
        status=span.status or "OK",  # unset by another library
        status_message=span.status_message or None,
        start_ns=span.start_time_unix_nano,
        duration_ns=span.duration_nanos,
        fields=fields,
        tags=dict(span.tags),
        attributes=_attributes(span.attributes),
        events=tuple(
            RecordedEvent(event.name, event.time_unix_nano, _attributes(event.attributes))
            for event in span.events
        ),
        links=tuple(
            RecordedLink(link.trace_id.hex(), link.span_id.hex(), _attributes(link.attributes))
            for link in span.links
        ),
        resources=_set_fields(span.resources),
        invalid_fields=span.invalid_field_count,
        kind=SpanKind.Name(span.kind).removeprefix("SPAN_KIND_").lower() if span.kind else None,
    )


def _set_fields(message: Message) -> dict[str, Any]:
    """The fields set in the message. A 32-bit float reads as its shortest decimal: 0.9."""
    # protobuf's JSON mapping writes 64-bit integers as strings.
    shown = MessageToDict(message, preserving_proto_field_name=True)
    return {
        descriptor.name: [value.offset, *value.counts]  # as its setter takes it
        if isinstance(value, TokenIntervals)
        else type(value)(shown[descriptor.name])
        for descriptor, value in message.ListFields()
    }


def _attributes(encoded: Mapping[str, Any]) -> dict[str, Scalar]:
    return {key: getattr(value, value.WhichOneof("value")) for key, value in encoded.items()}


def _tree_lines(
    span: RecordedSpan, first_indent: str, indent: str, fields: tuple[str, ...]
) -> Iterator[str]:
    words = [span.operation, *([span.model] if span.model else [])]
    words += [f"{name}={span.fields[name]}" for name in fields if name in span.fields]
    if span.status != "OK":
        words.append(span.status + (f": {span.status_message}" if span.status_message else ""))
    yield first_indent + " ".join(words)
    for child in span.children:
        is_last = child is span.children[-1]
        yield from _tree_lines(
            child,
            indent + ("└─ " if is_last else "├─ "),
            indent + ("   " if is_last else "│  "),
            fields,
        )
