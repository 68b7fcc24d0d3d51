"""Attributes of OTLP as any sender may write them: every kind of value, every name of a dialect."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue, KeyValueList

from infertrace.generated.dialect_sources import DIALECT_SOURCES

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
INT64 = st.integers(-(2**63), 2**63 - 1)
UINT32 = st.integers(0, 2**32 - 1)
NUMBER = st.one_of(st.integers(-2, 2**33), st.integers(0, 200), st.floats(), st.floats(0, 1))
DIALECT_KEYS = sorted({key for _, sources in DIALECT_SOURCES for key, _, _ in sources})
EVENT_NAMES = sorted(
    {
        name
        for _, sources in DIALECT_SOURCES
        for key, form, since in sources
        if form.startswith("event")
        for name in (key, since or key)
    }
)


def scalar(value: Any) -> AnyValue:
    kinds = {str: "string", bool: "bool", int: "int", float: "double", bytes: "bytes"}
    return AnyValue(**{f"{kinds[type(value)]}_value": value})


SCALAR = st.one_of(
    st.builds(AnyValue),
    st.one_of(
        TEXT,
        st.booleans(),
        INT64,
        st.floats(),
        st.binary(max_size=9),
        NUMBER.map(str),
        st.sampled_from(
            ['"m"', '["stop"]', '{"input": 3, "output": 4}', "1.5ms", "850µs", "[", '"']
        ),
        st.sampled_from(
            ["CANCELLED", "ERROR", "2026-11-29T12:00:00Z", '"2026-11-29T12:00:00.5+00:00"']
        ),
    ).map(scalar),
    NUMBER.map(lambda value: scalar(min(value, 2**63 - 1))),
)


def members(values: st.SearchStrategy[AnyValue]) -> st.SearchStrategy[AnyValue]:
    pairs = st.lists(st.builds(KeyValue, key=TEXT, value=values), max_size=3)
    arrays = st.builds(ArrayValue, values=st.lists(values, max_size=3))
    texts = st.lists(TEXT.map(scalar), max_size=3).map(lambda found: ArrayValue(values=found))
    integers = st.integers(-2, 520) | st.integers(-(2**63), 2**33)
    numbers = st.lists(integers.map(scalar), max_size=4).map(lambda found: ArrayValue(values=found))
    return st.one_of(
        st.builds(AnyValue, array_value=arrays | texts | numbers),
        st.builds(AnyValue, kvlist_value=st.builds(KeyValueList, values=pairs)),
    )


VALUE = st.recursive(SCALAR, members, max_leaves=6)
OWN_WORDS = [f"infertrace.{word}" for word in ("operation_name", "status", "invalid_field_count")]
LANGFUSE = ["langfuse.observation.level", "langfuse.observation.status_message"]
KEY = TEXT | st.sampled_from(
    [*DIALECT_KEYS, *DIALECT_KEYS, *OWN_WORDS, *LANGFUSE, "infertrace.", "infertrace"]
)
ATTRIBUTES = st.lists(st.builds(KeyValue, key=KEY, value=VALUE), max_size=6)
