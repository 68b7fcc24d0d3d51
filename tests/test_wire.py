"""The hand-written encoder and decoder, checked with the protobuf runtime."""

from __future__ import annotations

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.wrappers_pb2 import BytesValue, UInt64Value
from hypothesis import given
from hypothesis import strategies as st

from infertrace.wire.protobuf import (
    WireError,
    delimited,
    delimited_fields,
    read_varint,
    varint,
)
from infertrace.wire.retry_info import retry_delay_s, retry_details


@given(st.integers(1, 2**64 - 1))
def test_varints(value: int) -> None:
    written = varint(value)
    assert b"\x08" + written == UInt64Value(value=value).SerializeToString()
    assert read_varint(b"x" + written + b"y", 1) == (value, 1 + len(written))


@given(st.integers(-(2**63), -1))
def test_a_negative_varint(value: int) -> None:
    assert read_varint(varint(value), 0)[0] == value + 2**64


@given(st.binary(min_size=1, max_size=300))
def test_delimited_fields(body: bytes) -> None:
    written = delimited(b"\x0a", body)
    assert written == BytesValue(value=body).SerializeToString()
    between = Duration(seconds=5, nanos=7).SerializeToString() + b"\x1d1234\x2112345678"
    assert list(delimited_fields(written + between + written, 1)) == [body, body]
    assert list(delimited_fields(written, 2)) == []


@pytest.mark.parametrize("message", [b"\x80", b"\x0a\x05abc", b"\xff" * 11, b"\x0b", b"\x0d\x00"])
def test_what_is_cut_short_or_not_protobuf(message: bytes) -> None:
    with pytest.raises(WireError):
        list(delimited_fields(message, 1))


@given(st.text(max_size=300), st.integers(1, 10**6))
def test_a_delay_arrives(message: str, delay_s: int) -> None:
    assert retry_delay_s(retry_details(message, delay_s)) == delay_s


@given(st.binary(max_size=60))
def test_a_foreign_status_asks_for_nothing_or_a_number(status: bytes) -> None:
    assert retry_delay_s(status) is None or isinstance(retry_delay_s(status), float)
