"""Values for a span's fields, drawn from the table of fields, so every test covers a new field."""

from __future__ import annotations

from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from hypothesis import strategies as st

from infertrace.generated.field_names import (
    COUNT_FIELDS,
    INTERVALS_FIELDS,
    MEASURE_FIELDS,
    ORDINAL_FIELDS,
    TEXT_FIELDS,
)
from infertrace.generated.span_pb2 import TokenIntervals
from infertrace.generated.span_setters import SETTERS
from infertrace.wire import token_intervals

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
INT32 = st.integers(0, 2**31 - 1)


@st.composite
def intervals(draw: st.DrawFn) -> list[int]:
    """The bucket of the first count, and the counts."""
    offset = draw(st.integers(token_intervals.LOWEST_BUCKET, token_intervals.HIGHEST_BUCKET))
    room = token_intervals.HIGHEST_BUCKET - offset + 1
    counts = st.integers(0, 3) | st.integers(0, token_intervals.MAX_COUNT)
    return [offset, *draw(st.lists(counts, min_size=1, max_size=min(room, 60)))]


# The fields that a user may set, as keywords of start_span.
VALID_FIELDS: dict[str, st.SearchStrategy[Any]] = {
    **dict.fromkeys(TEXT_FIELDS, TEXT),
    **dict.fromkeys(COUNT_FIELDS, INT32),
    **{name: st.floats(0, upper, width=32) for name, upper in MEASURE_FIELDS.items()},
    **dict.fromkeys(ORDINAL_FIELDS, st.integers(0, 2**63 - 1)),
    **dict.fromkeys(INTERVALS_FIELDS, intervals()),
}
LONGEST_INTERVALS = [
    token_intervals.LOWEST_BUCKET,
    *[token_intervals.MAX_COUNT] * token_intervals.MAX_BUCKETS,
]
LONGEST_NUMBERS: dict[str, Any] = {
    **dict.fromkeys(COUNT_FIELDS, 2**31 - 1),
    **MEASURE_FIELDS,
    **dict.fromkeys(ORDINAL_FIELDS, 2**63 - 1),
    **dict.fromkeys(INTERVALS_FIELDS, LONGEST_INTERVALS),
}

_ANY_VALUE = {
    FieldDescriptor.CPPTYPE_STRING: TEXT,
    FieldDescriptor.CPPTYPE_INT32: st.integers(-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_INT64: st.integers(-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT32: st.integers(0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_ENUM: st.integers(-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_FLOAT: st.floats(width=32),
    FieldDescriptor.CPPTYPE_DOUBLE: st.floats(),
}


_UINT32 = st.integers(0, 2**32 - 1)
_ANY_INTERVALS = st.builds(
    TokenIntervals,
    offset=st.integers(-3, 520) | st.integers(-(2**31), 2**31 - 1),
    counts=st.lists(st.integers(0, 3) | _UINT32, max_size=40)
    | st.integers(500, 520).map(lambda size: [1] * size),
) | intervals().map(lambda given: TokenIntervals(offset=given[0], counts=given[1:]))


def any_scalars(kind: Any) -> dict[str, st.SearchStrategy[Any]]:
    """What a foreign sender may put into the values of a message that are one column, by field."""
    descriptor: Descriptor = kind.DESCRIPTOR
    scalars = {
        field.name: _ANY_VALUE[field.cpp_type]
        for field in descriptor.fields
        if field.cpp_type in _ANY_VALUE and field.type != FieldDescriptor.TYPE_BYTES
    }
    return scalars | {
        field.name: _ANY_INTERVALS
        for field in descriptor.fields
        if field.message_type is TokenIntervals.DESCRIPTOR
    }


def plain(value: Any) -> Any:
    """A field's value as its setter takes it."""
    return [value.offset, *value.counts] if isinstance(value, TokenIntervals) else value


def any_message(kind: Any) -> st.SearchStrategy[Any]:
    """Messages with any of these."""
    fields = st.fixed_dictionaries({}, optional=any_scalars(kind))
    return fields.map(lambda given: kind(**given))


def set_field(span: Any, field: str, value: Any) -> None:
    """Set it with the setter of that field."""
    method, parameter = SETTERS[field]
    getattr(span, method)(**{parameter: value})
