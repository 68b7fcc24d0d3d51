"""What a process tells a sender of itself, also one of another version."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infertrace.exporting.introduction import Introduction
from infertrace.exporting.json_text import json_text
from infertrace.exporting.target import Target

_NUMBERS = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
TARGET = Target("collector:4317", tls=True, headers={"x-key": "1"}, conventions=["otel"])


def test_the_same_comes_back() -> None:
    told = Introduction(TARGET, "chat", 4096, "/spool")
    assert Introduction.decode(told.encode()) == told


def test_what_a_newer_version_adds_is_left_out() -> None:
    told = Introduction(TARGET, "chat")
    newer = json.loads(told.encode())
    newer["priority"] = newer["target"]["compression_level"] = 3
    assert Introduction.decode(json.dumps(newer).encode()) == told


@given(
    st.recursive(
        st.none() | st.booleans() | _NUMBERS | st.text(),
        lambda values: st.lists(values) | st.dictionaries(st.text(), values),
    )
)
def test_json_is_read_as_it_was_written(value: object) -> None:
    assert json.loads(json_text(value)) == value


def test_what_json_has_not() -> None:
    with pytest.raises(TypeError, match="bytes"):
        json_text([b""])


@pytest.mark.parametrize(
    "body", [b"", b"{}", b"[]", b"null", b'"x"', b'{"target": {}}', b'{"target": [1]}', b"\xff"]
)
def test_what_is_none(body: bytes) -> None:
    with pytest.raises((ValueError, TypeError, KeyError)):
        Introduction.decode(body)
