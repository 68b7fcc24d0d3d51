"""The pure backend: records on the caller's thread, encodes on the exporter's.

The reference for csrc/recorder/native.pyx; one test suite runs on both.
"""

from __future__ import annotations

import gc
import os
import sys
import time
from _random import Random
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from time import monotonic_ns
from types import FunctionType, TracebackType

from infertrace.buffering.batch import Batch
from infertrace.buffering.pure import SpanBuffer
from infertrace.generated.field_names import INTERVALS_FIELDS, TEXT_FIELDS
from infertrace.generated.pure_fields import FIELD_SETTERS, FieldSetters, NoopFieldSetters
from infertrace.limits import (
    INT32_MAX,
    INT64_MAX,
    MAX_ENTRIES,
    MAX_TEXT_BYTES,
    MIN_START_UNIX_NS,
)
from infertrace.recording import columns as batch_columns
from infertrace.recording import encoder, failure, invalid_values, serving_defaults, values
from infertrace.recording.activation import Activation
from infertrace.recording.initial import fill
from infertrace.recording.packing import Packer
from infertrace.recording.pure_serving import Serving, TimesNothing, TimesTokens, next_step
from infertrace.trace_context import ExternalSpan, TraceContext, parse_traceparent

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Final

    from infertrace.buffering.ledger import DropReason
    from infertrace.buffering.spool_file import SpoolFile
    from infertrace.recording.values import Scalar
    from infertrace.span import Span as AnySpan

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

NAME: Final = "pure"
roundtrip: Final = None

CURRENT: Final[ContextVar[AnySpan | None]] = ContextVar("infertrace_current_span", default=None)
current: Final = CURRENT.get


def set_current(span: AnySpan | None) -> None:
    """Make `span` (or None) the current one of this context."""
    if type(span) is Span and span._previous is NOOP:
        # Mark it as entered, or a later `with` could take a span inside it for its parent.
        span._previous = None
    _make_current(span)


def exchange_current(span: AnySpan | None) -> AnySpan | None:
    """Make `span` (or None) the current one of this context, and return the one before."""
    before = CURRENT.get()
    set_current(span)
    return before


def restore_current(span: AnySpan | None, previous: AnySpan | None) -> None:
    """Where `span` is current, make `previous` so again, or the live span around that."""
    if CURRENT.get() is span:
        _make_current(_live(previous))


if sys.version_info >= (3, 12):
    _make_current: Final = CURRENT.set
else:

    def _make_current(span: AnySpan | None) -> None:
        # The GC may run while CPython copies the map of variables; a finalizer that sets a
        # variable would then free that map in mid-copy.
        collects = gc.isenabled()
        gc.disable()
        try:
            CURRENT.set(span)
        finally:
            if collects:
                gc.enable()


STATUSES: Final = ("OK", "ERROR", "CANCELLED")

# Upper bound on a span without attributes, excluding its texts. It covers the Python objects,
# which are larger than their encoding.
_BASE_BYTES: Final = 768
# Keys, tags and lengths around one map entry, event or link.
_ENTRY_BYTES: Final = 48
# Of a count of a histogram, at most.
_COUNT_BYTES: Final = 5
# Above this bound, `_size` encodes the span to learn its exact size, so that both backends drop
# the same spans as `oversize`.
_EXACT_FROM_BYTES: Final = 16 * 1024
_ALL_TRACES: Final = 2**64
_DEFAULT_OPERATION: Final = "inference"
# A span with a longer model or operation name counts as heavy.
_LIGHT_TEXT: Final = 128


class Span(FieldSetters, TimesTokens):
    """One operation. `infertrace.Span` documents the methods."""

    __slots__ = (
        "__dict__",
        "_ended",
        "_fields",
        "_model",
        "_operation",
        "_parent_id",
        "_previous",
        "_recorder",
        "_sample",
        "_span_id",
        "_start",
        "_trace_id",
    )

    # Class attributes: a span that does not set them pays nothing for them.
    _attributes: dict[str, Scalar] | None = None
    _duration: int = 0
    _events: list[tuple[int, str, dict[str, Scalar] | None]] | None = None
    _heavy: bool = False
    """Whether it has texts or entries of unbounded size; if not, _BASE_BYTES bounds its size."""
    _invalid: int = 0
    _kind: int = 0
    """OTLP's number; 0 where it was not said."""
    _links: list[tuple[int, int, dict[str, Scalar] | None]] | None = None
    _parent_is_remote: bool = False
    _serving: Serving | None = None
    _status: str = "OK"
    _status_message: str | None = None
    _tags: dict[str, str] | None = None

    _recorder: Recorder
    _trace_id: int
    _span_id: int
    _parent_id: int
    _model: str | None
    _operation: str
    _previous: Any
    """The enclosing span, or None; until this span is entered: NOOP, which is never current."""
    _sample: tuple[bytes, int] | None
    """The latest resource sample when the span ended."""
    _ended: int
    """Monotonic nanoseconds; 0 while the span runs."""
    _start: int

    def __init__(self) -> None:
        raise TypeError("a span is made by Tracer.start_span()")

    def __reduce__(self) -> Any:
        raise TypeError("a span can be neither copied nor pickled")

    @property
    def trace_id(self) -> str:
        return f"{self._trace_id:032x}"

    @property
    def span_id(self) -> str:
        return f"{self._span_id:016x}"

    @property
    def parent_span_id(self) -> str | None:
        return f"{self._parent_id:016x}" if self._parent_id else None

    @property
    def traceparent(self) -> str:
        return f"00-{self._trace_id:032x}-{self._span_id:016x}-01"

    @property
    def is_recording(self) -> bool:
        return not self._ended

    @property
    def context(self) -> TraceContext:
        return TraceContext(self._trace_id, self._span_id, True)

    @property
    def propagates(self) -> bool:
        return True

    def set_tag(self, key: str, text: str) -> None:
        if self._tags is None:
            self._tags = {}
            self._heavy = True
        self._set_entry("tag", self._tags, key, text, *_clean_text(text))

    def set_attribute(self, key: str, value: Scalar) -> None:
        if self._attributes is None:
            self._attributes = {}
            self._heavy = True
        self._set_entry("attribute", self._attributes, key, value, *values.scalar(value))

    def add_event(self, name: str, attributes: Mapping[str, Scalar] | None = None) -> None:
        title, as_given = _clean_key(name)
        valid, invalid = values.entries(attributes, self._recorder._wake)
        if self._events is None:
            self._events = []
            self._heavy = True
        if title is None:
            self._refuse("event", name, invalid_values.KEY)
            return
        if not self._has_room("event", name, self._events):
            return
        if not as_given:
            self._refuse("event", name, invalid_values.KEY)
        self._count_invalid(invalid)
        self._events.append((monotonic_ns() + self._recorder.anchor, title, valid))

    def add_link(
        self, other: AnySpan | str, attributes: Mapping[str, Scalar] | None = None
    ) -> None:
        context = _context_of(other)
        valid, invalid = values.entries(attributes, self._recorder._wake)
        if self._links is None:
            self._links = []
            self._heavy = True
        if context is None or not context.span_id:
            self._refuse("link", other, invalid_values.LINK)
            return
        if not self._has_room("link", other, self._links):
            return
        self._count_invalid(invalid)
        self._links.append((context.trace_id, context.span_id, valid))

    def record_exception(self, error: BaseException) -> None:
        if not issubclass(type(error), BaseException):
            self._refuse("record_exception", error, invalid_values.EXCEPTION)
            return
        self.add_event("exception", failure.exception_attributes(error))

    def set_status(self, status: str, message: str | None = None) -> None:
        known, _ = _clean_text(status)
        if known not in STATUSES:
            self._refuse("status", status, invalid_values.STATUS)
            return
        if self._ended:
            self._refuse("status", status, invalid_values.BEFORE_THE_END)
            return
        self._status = known
        if message is not None:
            text, as_given = _clean_text(message)
            if not as_given:
                self._refuse("status_message", message, invalid_values.TEXT)
            self._status_message = text
            self._heavy = True

    def set_operation_name(self, name: str) -> None:
        cleaned, as_given = _clean_key(name)
        if not as_given:
            self._refuse("operation_name", name, invalid_values.KEY)
        if cleaned is None:
            return
        if self._ended:
            self._refuse("operation_name", name, invalid_values.BEFORE_THE_END)
            return
        self._operation = cleaned
        self._heavy = True

    def activate(self) -> Activation:
        return Activation(self, exchange_current, restore_current)

    def end(self) -> None:
        if self._ended:
            return
        arrived = False
        try:
            previous = self._previous
            if previous is not None and previous._ended:
                self._previous = _live(previous)
            self._ended = monotonic_ns()
            if self._serving is not None:
                self._settle(self._serving)
            recorder = self._recorder
            self._sample = recorder.sample
            full = recorder._put_in_buffer(self)
            arrived = True
            if full or not recorder._awake:
                recorder._call_exporter()
        except (RecursionError, MemoryError):
            if not arrived:
                self._ended = self._ended or monotonic_ns()
                self._sample = None
                self._recorder._buffer.arrivals.append(self)

    def __enter__(self) -> Span:
        if self._previous is not NOOP:
            # A second entry leaves the current span alone: remembering that as the parent could
            # close a cycle, and restoring another context's span would mix up traces.
            self._refuse("with", self, invalid_values.ONE_BLOCK)
            return self
        previous: Any = CURRENT.get()
        if previous is not None and previous._ended:
            previous = _live(previous)
        self._previous = previous
        _make_current(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        counted = bool(self._ended)
        try:
            previous = self._previous
            if previous is not None and previous._ended:
                # Keeping an ended span as `previous` would grow a chain of them.
                previous = self._previous = _live(previous)
            if CURRENT.get() is self:
                _make_current(previous)
            if counted:
                return
            if error is not None:
                self._fail(error)
            self._ended = monotonic_ns()
            if self._serving is not None:
                self._settle(self._serving)
            recorder = self._recorder
            self._sample = recorder.sample
            full = recorder._put_in_buffer(self)
            counted = True
            if full or not recorder._awake:
                recorder._call_exporter()
        except (RecursionError, MemoryError):
            # Do only what needs no Python frame; the next thread with the lock counts the span.
            if CURRENT.get() is self:
                CURRENT.set(self._previous)
            if not counted:
                self._invalid += 1
                self._ended = self._ended or monotonic_ns()
                self._sample = None
                self._recorder._buffer.arrivals.append(self)

    async def __aenter__(self) -> Span:
        return self.__enter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.__exit__(kind, error, traceback)

    def _fail(self, error: BaseException) -> None:
        self._status = "ERROR"
        self._status = failure.status_of(type(error))
        self._status_message = failure.message_of(error)
        self._heavy = True
        if self._status == "ERROR":
            self.record_exception(error)

    def _size(self) -> int:
        """Upper bound on the encoded size in bytes; exact for a large span."""
        size = _BASE_BYTES + _utf8(self._operation) + _utf8(self._recorder.service_name)
        if self._model:
            size += _utf8(self._model)
        if self._status_message:
            size += _utf8(self._status_message)
        if self._sample is not None:
            size += len(self._sample[0])
        for name in TEXT_FIELDS:
            if name in self._fields:
                size += _utf8(self._fields[name])
        for name in INTERVALS_FIELDS:
            if name in self._fields:
                size += _COUNT_BYTES * len(self._fields[name])
        if self._tags or self._attributes:
            size += _weight(self._tags) + _weight(self._attributes)
        for _, name, attributes in self._events or ():
            size += _ENTRY_BYTES + _utf8(name) + _weight(attributes)
        for _, _, attributes in self._links or ():
            size += _ENTRY_BYTES + _weight(attributes)
        return size if size < _EXACT_FROM_BYTES else len(encoder.span(self))

    def _more(self) -> Serving:
        if self._serving is None:
            self._serving = Serving()
            self._heavy = True
        return self._serving

    def _set_text(self, field: str, value: object) -> None:
        text, as_given = _clean_text(value)
        self._heavy = True
        self._set_field(field, value, text, as_given, invalid_values.TEXT)

    def _set_count(self, field: str, value: object) -> None:
        if type(value) is int and 0 <= value <= INT32_MAX and not self._ended:
            self._fields[field] = value
        else:
            self._set_field(field, value, *values.count(value), invalid_values.COUNT)

    def _set_measure(self, field: str, value: object, upper: float) -> None:
        if type(value) is float and 0.0 <= value <= upper and not self._ended:
            self._fields[field] = value
        else:
            allowed = invalid_values.measure(upper)
            self._set_field(field, value, *values.measure(value, upper), allowed)

    def _set_ordinal(self, field: str, value: object) -> None:
        self._set_field(field, value, *values.ordinal(value), invalid_values.ORDINAL)

    def _set_kind(self, value: object) -> None:
        if value is None:
            return
        if type(value) is str and value in values.KINDS:
            self._kind = values.KINDS[value]
        else:
            self._refuse("kind", value, invalid_values.KIND)

    def _set_intervals(self, field: str, value: object) -> None:
        self._heavy = True
        kept = values.intervals(value)
        self._set_field(field, value, kept, kept is not None, invalid_values.INTERVALS)

    def _set_field(
        self, field: str, value: object, valid: object, as_given: bool, allowed: str
    ) -> None:
        if not as_given or self._ended:
            self._refuse(field, value, invalid_values.BEFORE_THE_END if as_given else allowed)
        if valid is not None and not self._ended:
            self._fields[field] = valid

    def _set_entry(
        self,
        name: str,
        entries: dict[str, Any],
        key: object,
        value: object,
        valid: object,
        as_given: bool,
    ) -> None:
        allowed = None
        if not as_given:
            allowed = invalid_values.TEXT if name == "tag" else invalid_values.SCALAR
        valid_key, key_as_given = _clean_key(key)
        if not key_as_given:
            name, value, allowed = f"{name} key", key, invalid_values.KEY
        if valid_key is not None and valid is not None:
            if self._ended:
                allowed = invalid_values.BEFORE_THE_END
            elif len(entries) >= MAX_ENTRIES and valid_key not in entries:
                allowed = invalid_values.ENTRIES
            else:
                entries[valid_key] = valid
        if allowed is not None:
            self._refuse(name, value, allowed, key)

    def _has_room(self, field: str, value: object, entries: list[Any]) -> bool:
        if self._ended:
            self._refuse(field, value, invalid_values.BEFORE_THE_END)
            return False
        if len(entries) >= MAX_ENTRIES:
            self._refuse(field, value, invalid_values.ENTRIES)
            return False
        return True

    def _refuse(self, field: str, value: object, allowed: str, key: object = None) -> None:
        """Count a value that was left out or clamped, and have the first of its kind logged."""
        self._count_invalid(1)
        invalid_values.notice(field, value, allowed, self._recorder._wake, key)

    def _count_invalid(self, fields: int) -> None:
        if self._ended:
            self._recorder._count_late_fields(fields)
        else:
            self._add_invalid(fields)

    def _add_invalid(self, fields: int) -> None:
        self._invalid += fields


_CONTAINERS: Final = ("tags", "attributes", "links")
_OTHER_KEYWORDS: Final = (*_CONTAINERS, "kind")
_new: Final = object.__new__


class NoopSpan(NoopFieldSetters, TimesNothing):
    """A span that records nothing: the tracer is off, or the trace is not sampled.

    Instances are shared. The one with `root` is the root of every trace that is not sampled, and
    is current inside its block, so that spans started there are not sampled either. If another
    span is current around that block, `__enter__` makes an instance for the block that remembers
    that span.
    """

    __slots__ = ("_previous", "_root", "_step")
    _ended: Final = 0

    trace_id: Final = "0" * 32
    span_id: Final = "0" * 16
    parent_span_id: Final = None
    traceparent: Final = f"00-{'0' * 32}-{'0' * 16}-00"
    is_recording: Final = False
    context: Final = TraceContext(0, 0, False)

    def __init__(self, root: bool, previous: Any = None) -> None:
        self._root = root
        self._previous = previous
        self._step: tuple[Serving, str, int] | None = None
        """Of a step that is not recorded, and whose members may be: these, engine and index."""

    @property
    def propagates(self) -> bool:
        return self._root

    def set_tag(self, key: str, text: str) -> None: ...
    def set_attribute(self, key: str, value: Scalar) -> None: ...
    def add_event(self, name: str, attributes: Mapping[str, Scalar] | None = None) -> None: ...
    def add_link(self, other: Any, attributes: Mapping[str, Scalar] | None = None) -> None: ...
    def record_exception(self, error: BaseException) -> None: ...
    def set_status(self, status: str, message: str | None = None) -> None: ...
    def set_operation_name(self, name: str) -> None: ...
    def activate(self) -> Activation:
        return Activation(self, exchange_current, restore_current)

    def end(self) -> None:
        self._end_step("OK", monotonic_ns())

    def _end_step(self, status: object, now_ns: int) -> None:
        if self._step is not None:
            (serving, engine, index), self._step = self._step, None
            serving.end_step(now_ns, engine, index, status == "OK")

    def __enter__(self) -> NoopSpan:
        if self._root:
            previous = _live(CURRENT.get())
            _make_current(self if previous is None else NoopSpan(True, previous))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        current: Any = CURRENT.get()
        if self._root and type(current) is NoopSpan:
            _make_current(_live(current._previous))
        if self._step is not None:
            self._end_step("OK" if error is None else "ERROR", monotonic_ns())

    async def __aenter__(self) -> NoopSpan:
        return self.__enter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.__exit__(kind, error, traceback)


NOOP: Final = NoopSpan(root=False)
_UNSAMPLED_ROOT: Final = NoopSpan(root=True)


class _StartsSpans:
    """Base of whatever has a recorder: the recorder itself, and a tracer.

    Both have one method: if one called the other, the call would show in the cost of a span.
    """

    __slots__ = ()
    _recorder: Any

    def start_span(
        self,
        model_name: str | None = None,
        operation_name: str = _DEFAULT_OPERATION,
        *,
        parent: AnySpan | str | None = None,
        **fields: Any,
    ) -> Span | NoopSpan:
        """As `Tracer.start_span`, which names the fields."""
        if fields:
            for name in fields:
                if name not in FIELD_SETTERS and name not in _OTHER_KEYWORDS:
                    raise TypeError(f"start_span() got an unexpected keyword argument {name!r}")
        recorder = self._recorder
        if not recorder.enabled:
            return NOOP
        invalid = 0
        context = None
        current: Any = CURRENT.get()
        is_remote = False
        if parent is not None:
            context = _context_of(parent)
            if context is None:
                invalid += 1
                invalid_values.notice("parent", parent, invalid_values.PARENT, recorder._wake)
            else:
                is_remote = type(parent) is str
        if context is None and current is not None:
            context = current.context
        if context is None:
            trace_id, parent_id = recorder._random_bits(128) or 1, 0
            if not recorder._samples_all and trace_id % _ALL_TRACES >= recorder._sample_bound:
                return _UNSAMPLED_ROOT
        elif context.sampled:
            trace_id, parent_id = context.trace_id, context.span_id
        else:
            return NOOP if current is not None else _UNSAMPLED_ROOT

        span = _new(Span)
        if model_name is not None and (
            type(model_name) is not str or not model_name.isascii() or len(model_name) > _LIGHT_TEXT
        ):
            name = model_name
            model_name, as_given = values.text(name)
            if not as_given:
                invalid += 1
                invalid_values.notice("model_name", name, invalid_values.TEXT, recorder._wake)
            span._heavy = True
        if operation_name is not _DEFAULT_OPERATION and (
            type(operation_name) is not str
            or not operation_name.isascii()
            or not 0 < len(operation_name) <= _LIGHT_TEXT
        ):
            cleaned, as_given = values.key(operation_name)
            if not as_given:
                invalid += 1
                invalid_values.notice(
                    "operation_name", operation_name, invalid_values.KEY, recorder._wake
                )
            operation_name = cleaned or _DEFAULT_OPERATION
            span._heavy = True
        span._recorder = recorder
        span._trace_id = trace_id
        span._span_id = recorder._random_bits(64) or recorder.new_span_id()
        span._parent_id = parent_id
        span._model = model_name
        span._operation = operation_name
        span._fields = {}
        span._previous = NOOP
        span._ended = 0
        if is_remote:
            span._parent_is_remote = True
        if invalid:
            span._invalid = invalid
        span._start = monotonic_ns()
        if fields:
            for name, value in fields.items():
                if value is not None and name in FIELD_SETTERS:
                    FIELD_SETTERS[name](span, value)
            if "kind" in fields:
                span._set_kind(fields["kind"])
            tags, attributes, links = map(fields.get, _CONTAINERS)
            if tags is not None or attributes is not None or links is not None:
                fill(span, tags, attributes, links)
        return span

    def start_step(
        self,
        model_name: str | None = None,
        operation_name: str = serving_defaults.STEP_OPERATION,
        *,
        prefill: Any = None,
        decode: Any = None,
        capacity: int | None = None,
        parent: AnySpan | str | None = None,
        **fields: Any,
    ) -> Span | NoopSpan:
        """As `Tracer.start_step`."""
        for name in fields:
            if name not in FIELD_SETTERS and name not in _OTHER_KEYWORDS:
                raise TypeError(f"start_step() got an unexpected keyword argument {name!r}")
        started = self.start_span(model_name, operation_name, parent=parent, **fields)
        if type(started) is Span:
            started._begin_step(prefill, decode, capacity)
        elif self._recorder.enabled and (prefill is not None or decode is not None):
            engine = fields.get("engine")
            if type(engine) is not str or not engine:
                engine = serving_defaults.DEFAULT_ENGINE
            serving = Serving()
            serving.keep_members(prefill, decode)
            unrecorded = NoopSpan(root=True)
            unrecorded._step = (serving, engine, next_step(engine))
            return unrecorded
        return started


class TracerBase(_StartsSpans):
    """The base class of `Tracer`."""

    __slots__ = ()
    _recorder: Recorder

    @staticmethod
    def add_start_span(tracer: Any, documentation: str) -> None:
        """Make `start_span` a method of the class `tracer`, with this docstring."""
        _add_method(tracer, _StartsSpans.start_span, documentation)

    @staticmethod
    def add_start_step(tracer: Any, documentation: str) -> None:
        """The same for `start_step`."""
        _add_method(tracer, _StartsSpans.start_step, documentation)


def _add_method(tracer: Any, own: Any, documentation: str) -> None:
    name = own.__name__
    replaced = getattr(tracer, name)
    method = FunctionType(own.__code__, own.__globals__, name, own.__defaults__)
    method.__kwdefaults__ = own.__kwdefaults__
    method.__qualname__ = replaced.__qualname__
    method.__doc__ = documentation
    method.__dict__["__wrapped__"] = replaced  # inspect takes the signature from it
    setattr(tracer, name, method)


class Recorder(_StartsSpans):
    """Makes spans and holds the finished ones until the exporter takes them."""

    # Pure Python cannot work without the GIL.
    run_delivery_loop = None
    sample_process = None
    sample_gpu = None

    def interrupt(self) -> None:
        """Does nothing: there is no delivery loop to interrupt."""

    def stop_sampling(self, stopped: bool = True) -> None:
        """Does nothing: the sampler's thread holds the GIL."""

    @property
    def _recorder(self) -> Recorder:
        return self

    def __init__(
        self, *, max_buffer_bytes: int, max_batch_bytes: int, wake: Callable[[], None]
    ) -> None:
        self._wake = wake
        self._buffer = SpanBuffer(
            encoder.span,
            Packer(Span),
            max_buffer_bytes=max_buffer_bytes,
            max_batch_bytes=max_batch_bytes,
        )
        self._put_in_buffer = self._buffer.put
        self.enabled = True
        self.service_name = ""
        self.sample: tuple[bytes, int] | None = None
        """The encoded resource metrics and when they were read (monotonic nanoseconds)."""
        self.anchor = time.time_ns() - monotonic_ns()
        """Wall clock minus monotonic clock, nanoseconds."""
        self.set_sample_rate(1)
        self.reset()

    def reset(self) -> None:
        """Start anew in a forked child, with new ids, an empty buffer and an empty ledger."""
        seed = int.from_bytes(os.urandom(32), "big")
        self._random_bits = Random(seed).getrandbits
        self._awake = False
        self._buffer.reset()

    def set_sample_rate(self, rate: float) -> None:
        """Record this share (0 to 1) of the traces that start in this process."""
        self._sample_bound = round(rate * _ALL_TRACES)
        self._samples_all = self._sample_bound >= _ALL_TRACES

    def new_span_id(self) -> int:
        """A random span id, 1 to 2**64 - 1."""
        return self._random_bits(64) or self.new_span_id()

    def record(
        self,
        model_name: str | None = None,
        operation_name: str = _DEFAULT_OPERATION,
        *,
        start_ns: int,
        duration_ns: int,
        parent: AnySpan | str | None = None,
        status: str = "OK",
        status_message: str | None = None,
        **fields: Any,
    ) -> Span | NoopSpan:
        """As `Tracer.record`, which names the fields."""
        span = self.start_span(model_name, operation_name, parent=parent, **fields)
        if type(span) is Span:
            self._record(span, start_ns, duration_ns, status, status_message)
        return span

    def record_step(
        self,
        model_name: str | None = None,
        operation_name: str = serving_defaults.STEP_OPERATION,
        *,
        start_ns: int,
        duration_ns: int,
        parent: AnySpan | str | None = None,
        status: str = "OK",
        status_message: str | None = None,
        **fields: Any,
    ) -> Span | NoopSpan:
        """As `Tracer.record_step`, which names the fields."""
        span = self.start_step(model_name, operation_name, parent=parent, **fields)
        if type(span) is Span:
            self._record(span, start_ns, duration_ns, status, status_message)
        elif isinstance(span, NoopSpan):
            end_ns = _nanoseconds(start_ns) + _nanoseconds(duration_ns) - self.anchor
            span._end_step(status, end_ns)
        return span

    def _record(
        self, span: Span, start_ns: int, duration_ns: int, status: str, status_message: str | None
    ) -> None:
        if type(status) is not str or status != "OK" or status_message is not None:
            span.set_status(status, status_message)
        start = _nanoseconds(start_ns)
        if not self._record_finished(span, start, _nanoseconds(duration_ns)):
            is_start = start < MIN_START_UNIX_NS
            self._notice_times(is_start, start_ns if is_start else duration_ns)

    def record_batch(
        self,
        model_name: str | None = None,
        operation_name: str = _DEFAULT_OPERATION,
        *,
        start_ns: Any,
        duration_ns: Any,
        parent: AnySpan | str | None = None,
        kind: str | None = None,
        **columns: Any,
    ) -> int:
        """As `Tracer.record_batch`, which names the columns."""
        views = batch_columns.views(start_ns, duration_ns, columns)
        objects = batch_columns.objects(columns, len(views["start_ns"]))
        parents = objects.pop(batch_columns.PARENTS, None)
        trace_ids = objects.pop(batch_columns.TRACE_IDS, None)
        tags = objects.pop(batch_columns.TAGS, None)
        setters = [FIELD_SETTERS[name] for name in [*list(views)[2:], *objects]]
        recorded = 0
        rows = zip(*map(batch_columns.numbers, views.values()), *objects.values(), strict=True)
        for row, (start, duration, *values_of_row) in enumerate(rows):
            span = self._start_row(
                model_name,
                operation_name,
                parent,
                None if parents is None else parents[row],
                None if trace_ids is None else trace_ids[row],
            )
            if type(span) is Span:
                span._set_kind(kind)
                for setter, value in zip(setters, values_of_row, strict=True):
                    if value is not None:
                        setter(span, value)
                if tags is not None and tags[row] is not None:
                    fill(span, tags[row], None, None)
                if not self._record_finished(span, start, duration):
                    self._notice_times(start < MIN_START_UNIX_NS, 0)
                recorded += 1
        return recorded

    def _start_row(
        self, model_name: str | None, operation_name: str, parent: Any, own: Any, trace_id: object
    ) -> Span | NoopSpan:
        """A span whose parent is its `own`, or that of all rows; without any, of that trace."""
        number = 0 if trace_id is None else batch_columns.trace_id(trace_id)
        if number and parent is None and own is None:
            return self._start_trace(model_name, operation_name, number)
        is_wrong = own is not None and _context_of(own) is None
        used = parent if own is None or is_wrong else own
        span = self.start_span(model_name, operation_name, parent=used)
        if type(span) is Span:
            if is_wrong:
                span._refuse("parent", own, invalid_values.PARENT)
            if trace_id is not None and span._trace_id != number:
                span._refuse("trace_id", trace_id, invalid_values.TRACE_ID)
        return span

    def _start_trace(
        self, model_name: str | None, operation_name: str, trace_id: int
    ) -> Span | NoopSpan:
        if not self._samples_all and trace_id % _ALL_TRACES >= self._sample_bound:
            return _UNSAMPLED_ROOT
        root = f"00-{trace_id:032x}-{1:016x}-01"
        span = self.start_span(model_name, operation_name, parent=root)
        if type(span) is Span:
            span._parent_id = 0
            span._parent_is_remote = False
        return span

    def _notice_times(self, is_start: bool, value: object) -> None:
        if is_start:
            invalid_values.notice("start_ns", value, invalid_values.START, self._wake)
        else:
            invalid_values.notice("duration_ns", value, invalid_values.DURATION, self._wake)

    def _record_finished(self, span: Span, start_ns: int, duration_ns: int) -> bool:
        """Buffer a span with these times; False if they are invalid, and the span is dropped."""
        if start_ns < MIN_START_UNIX_NS or duration_ns < 0 or start_ns + duration_ns > INT64_MAX:
            span._ended = span._start
            self._buffer.count_unencodable(span)
            return False
        span._start = start_ns - self.anchor
        span._ended = span._start + duration_ns
        if span._serving is not None:
            span._settle(span._serving)
        span._sample = self.sample
        if self._put_in_buffer(span) or not self._awake:
            self._call_exporter()
        return True

    def put_encoded(self, record: bytes) -> None:
        """Take a finished span of others, encoded as an entry of a batch, with its tag."""
        if self.enabled and (self._buffer.put_encoded(record) or not self._awake):
            self._call_exporter()

    def _call_exporter(self) -> None:
        self._awake = True
        try:
            self._wake()
        except (RuntimeError, MemoryError):  # no thread could start; the next span tries again
            self._awake = False
        except BaseException:  # raised by a signal handler
            self._awake = False
            raise

    def _count_late_fields(self, fields: int) -> None:
        self._buffer.count_late_fields(fields)

    def take(self, partial: bool = True) -> Batch | None:
        return self._buffer.take(partial)

    def encode_some(self) -> bool:
        return self._buffer.encode_some()

    def settle(self, batch: Batch, delivered: int, reason: DropReason) -> None:
        self._buffer.settle(batch, delivered, reason)

    def sleep(self) -> None:
        """Have the next span that ends wake the exporter again."""
        self._awake = False

    def close(self) -> None:
        self._buffer.close()

    def attach_spool(self, file: SpoolFile) -> None:
        from infertrace.buffering.spool_writer import SpoolWriter

        self._buffer.attach(SpoolWriter(file))

    def detach_spool(self) -> None:
        self._buffer.detach()

    def share_memory(self, producer_id: bytes, resource: bytes) -> None:
        """Does nothing: what is here are objects until they are sent."""

    @property
    def memory_descriptor(self) -> int | None:
        return None

    @property
    def packing(self) -> SpanBuffer:
        return self._buffer

    def discard(self) -> None:
        self._buffer.discard()

    def counts(self) -> tuple[int, int, int, tuple[int, ...], int]:
        return self._buffer.counts()


def _nanoseconds(value: object) -> int:
    """The value if it is a 64-bit integer, else -1."""
    number, _ = values.scalar(value)
    return number if type(number) is int else -1


def _plain(text: str) -> bool:
    """Whether the text is valid unchanged: ASCII, not empty, of bounded length."""
    return text.isascii() and 0 < len(text) <= MAX_TEXT_BYTES


def _clean_text(value: object) -> tuple[str | None, bool]:
    if type(value) is str and value.isascii() and len(value) <= MAX_TEXT_BYTES:
        return value, True
    return values.text(value)


def _clean_key(value: object) -> tuple[str | None, bool]:
    if type(value) is str and _plain(value):
        return value, True
    return values.key(value)


def _context_of(other: object) -> TraceContext | None:
    if type(other) is str:
        return parse_traceparent(other)
    kind = type(other)
    # Not `in`: the comparison may call a user's metaclass, which may raise.
    if kind is Span or kind is NoopSpan or issubclass(kind, ExternalSpan):
        return other.context  # type: ignore[attr-defined, no-any-return]
    return None


def _live(span: Any) -> Any:
    """The innermost enclosing span that has not ended (blocks may exit out of order)."""
    live = span
    while live is not None and live._ended:
        live = live._previous
    # Path compression, so that no chain of ended spans is walked twice.
    while span is not live:
        following, span._previous = span._previous, live
        span = following
    return live


def _weight(entries: Mapping[str, object] | None) -> int:
    """Upper bound on the encoded bytes of these map entries."""
    if not entries:
        return 0
    texts = (value for value in entries.values() if type(value) is str)
    return len(entries) * _ENTRY_BYTES + sum(map(_utf8, entries)) + sum(map(_utf8, texts))


def _utf8(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())
