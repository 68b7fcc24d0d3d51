"""Packed spans: finished spans of the pure backend, as bytes that a few calls into C make.

To encode a span in Python takes the GIL for many times as long as to pack it. The sender, or this
process where it has to, encodes what was packed. Packed spans are columns, one for each attribute
that the encoder reads, by `marshal`: that is neither stable between versions of Python nor safe
with bytes of somebody else, so `DIALECT` goes with them, and only a process of the same user reads
them.
"""

from __future__ import annotations

import marshal
import sys
from itertools import repeat
from operator import attrgetter, sub

from infertrace.named_tuple import NamedTuple
from infertrace.recording import encoder
from infertrace.version import VERSION

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any, Final

    from infertrace.recording.pure import Span

DIALECT: Final = f"{VERSION} {sys.implementation.cache_tag} {marshal.version}".encode()
"""Whose packed spans this interpreter can read: those that say the same."""

_LIGHT_NAMES: Final = (
    "_trace_id",
    "_span_id",
    "_parent_id",
    "_model",
    "_operation",
    "_fields",
    "_sample",
    "_start",
    "_ended",
    "_status",
    "_invalid",
    "_kind",
    "_parent_is_remote",
)
_ALL_NAMES: Final = (
    *_LIGHT_NAMES,
    "_status_message",
    "_tags",
    "_attributes",
    "_events",
    "_links",
)
_ATTRIBUTES: Final = tuple(map(attrgetter, _ALL_NAMES))
_OFTEN_SAME: Final = frozenset(
    (
        "_parent_id",
        "_model",
        "_operation",
        "_sample",
        "_status",
        "_invalid",
        "_kind",
        "_parent_is_remote",
    )
)
_STARTED: Final = _LIGHT_NAMES.index("_start")
_ENDED: Final = _LIGHT_NAMES.index("_ended")
_INVALID: Final = _LIGHT_NAMES.index("_invalid")
_heavy: Final = attrgetter("_heavy")

# Upper bounds on the encoding of a light span: all that is of a fixed size, with the lengths of the
# others; and one entry of `_fields`, which holds numbers then.
_FIXED_BYTES: Final = 192
_NUMBER_BYTES: Final = 12
_SIZE_BYTES: Final = 4


class Run(NamedTuple):
    """Light spans, packed."""

    packed: bytes
    span_count: int
    encoded_bytes: int
    """Upper bound on what they are once they are encoded."""
    invalid_fields: int


class Packer:
    """Packs spans of one class."""

    def __init__(self, span_type: type[Span]) -> None:
        self._types = {span_type}
        self._span_type = span_type

    def count_light(self, ended: Sequence[Any]) -> int:
        """How many of these, from the first on, are spans without anything of unbounded size."""
        if set(map(type, ended)) == self._types and not any(map(_heavy, ended)):
            return len(ended)
        for count, one in enumerate(ended):
            if type(one) is not self._span_type or one._heavy:
                return count
        return len(ended)

    def pack_light(self, spans: list[Span], max_encoded_bytes: int) -> Run | None:
        """The first of these light spans, as many as fit encoded, or one that does not.

        None where a value is of a kind that cannot be packed.
        """
        columns = _columns(spans, _LIGHT_NAMES)
        recorder = spans[0]._recorder
        models, operations, fields, samples = columns[3:7]
        each = (
            _FIXED_BYTES
            + len(recorder.service_name.encode())
            + max((len(model) for model in {*models} if model), default=0)
            + max(map(len, operations))
            + _NUMBER_BYTES * max(map(len, fields))
            + max((len(sample[0]) for sample in {*samples} if sample), default=0)
        )
        count = min(len(spans), max(1, max_encoded_bytes // each))
        if count < len(spans):
            columns = [column[:count] for column in columns]
        packed = _dump(recorder, columns)
        if packed is None:
            return None
        invalid = columns[_INVALID]
        invalid_fields = sum(invalid) if len(invalid) == count else count * invalid[0]
        return Run(packed, count, count * each, invalid_fields)

    def pack(self, spans: list[Span]) -> bytes | None:
        """Any spans of one recorder; None where a value is of a kind that cannot be packed."""
        return _dump(spans[0]._recorder, _columns(spans, _ALL_NAMES))

    def encode(self, packed: bytes) -> Encoded:
        """What `pack` or `pack_light` gave, one after the other; without what cannot be encoded."""
        return encode(packed, skips_damaged=True)


def _columns(spans: list[Span], names: tuple[str, ...]) -> list[list[Any]]:
    """One for each attribute; of one value where all spans have the same."""
    columns = []
    for name, attribute in zip(names, _ATTRIBUTES, strict=False):
        column = list(map(attribute, spans))
        first = column[0]
        # Not where values that are equal may differ in their encoding.
        if (name in _OFTEN_SAME or first is None) and column.count(first) == len(column):
            del column[1:]
        columns.append(column)
    columns[_ENDED] = list(map(sub, columns[_ENDED], columns[_STARTED]))  # which is shorter
    return columns


def _dump(recorder: Any, columns: list[list[Any]]) -> bytes | None:
    try:
        packed = marshal.dumps((recorder.service_name, recorder.anchor, columns))
    except ValueError:
        return None
    return len(packed).to_bytes(_SIZE_BYTES, "little") + packed


class _Recorder(NamedTuple):
    """What the encoder asks of a span's recorder."""

    service_name: str
    anchor: int


class _UnpackedSpan:
    """A span as the encoder reads it; one object serves for all spans."""

    __slots__ = (*_ALL_NAMES, "_recorder")

    def __init__(self, recorder: _Recorder) -> None:
        self._recorder = recorder


class Encoded(NamedTuple):
    """Packed spans, encoded one after the other."""

    payload: bytes
    span_count: int


def encode(packed: bytes, *, skips_damaged: bool = False) -> Encoded:
    """What packed spans are as concatenated entries of `SendSpanBatchRequest.spans`.

    skips_damaged: leave out what cannot be encoded; else it raises ValueError.
    """
    records: list[bytes] = []
    try:
        for span in _unpack(packed):
            try:
                records.append(encoder.span(span))
            except Exception:  # leave out this span, not its neighbours
                if not skips_damaged:
                    raise
    except Exception as error:
        if not skips_damaged:
            raise ValueError(f"not packed spans: {type(error).__name__}: {error}") from error
    return Encoded(b"".join(records), len(records))


def _unpack(packed: bytes) -> Iterator[Any]:
    view = memoryview(packed)
    while view:
        size = int.from_bytes(view[:_SIZE_BYTES], "little")
        part, view = view[_SIZE_BYTES : _SIZE_BYTES + size], view[_SIZE_BYTES + size :]
        service_name, anchor, columns = marshal.loads(part)
        if len(columns) not in (len(_LIGHT_NAMES), len(_ALL_NAMES)):
            raise ValueError(f"{len(columns)} columns")
        count = len(columns[0])
        columns += [[None]] * (len(_ALL_NAMES) - len(columns))
        rows = [repeat(it[0], count) if len(it) == 1 else it for it in columns]
        span: Any = _UnpackedSpan(_Recorder(service_name, anchor))
        for (
            span._trace_id,
            span._span_id,
            span._parent_id,
            span._model,
            span._operation,
            span._fields,
            span._sample,
            span._start,
            duration,
            span._status,
            span._invalid,
            span._kind,
            span._parent_is_remote,
            span._status_message,
            span._tags,
            span._attributes,
            span._events,
            span._links,
        ) in zip(*rows, strict=True):
            span._ended = span._start + duration
            yield span
