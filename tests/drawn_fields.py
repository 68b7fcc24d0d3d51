"""Values for a span's fields, drawn from the table of fields, so every test covers a new field."""

from __future__ import annotations

from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from hypothesis import strategies as st

from infertrace.generated.field_names import COUNT_FIELDS, MEASURE_FIELDS, TEXT_FIELDS
from infertrace.generated.span_setters import SETTERS

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
INT32 = st.integers(0, 2**31 - 1)

# The fields that a user may set, as keywords of start_span.
VALID_FIELDS: dict[str, st.SearchStrategy[Any]] = {
    **dict.fromkeys(TEXT_FIELDS, TEXT),
    **dict.fromkeys(COUNT_FIELDS, INT32),
    **{name: st.floats(0, upper, width=32) for name, upper in MEASURE_FIELDS.items()},
}
LONGEST_NUMBERS: dict[str, float] = {**dict.fromkeys(COUNT_FIELDS, 2**31 - 1), **MEASURE_FIELDS}

_ANY_VALUE = {
    FieldDescriptor.CPPTYPE_STRING: TEXT,
    FieldDescriptor.CPPTYPE_INT32: st.integers(-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_INT64: st.integers(-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT32: st.integers(0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_ENUM: st.integers(-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_FLOAT: st.floats(width=32),
    FieldDescriptor.CPPTYPE_DOUBLE: st.floats(),
}


def any_scalars(kind: Any) -> dict[str, st.SearchStrategy[Any]]:
    """What a foreign sender may put into the texts and numbers of a message, by field."""
    descriptor: Descriptor = kind.DESCRIPTOR
    return {
        field.name: _ANY_VALUE[field.cpp_type]
        for field in descriptor.fields
        if field.cpp_type in _ANY_VALUE and field.type != FieldDescriptor.TYPE_BYTES
    }


def any_message(kind: Any) -> st.SearchStrategy[Any]:
    """Messages with any of these."""
    fields = st.fixed_dictionaries({}, optional=any_scalars(kind))
    return fields.map(lambda given: kind(**given))


def set_field(span: Any, field: str, value: Any) -> None:
    """Set it with the setter of that field."""
    method, parameter = SETTERS[field]
    getattr(span, method)(**{parameter: value})
