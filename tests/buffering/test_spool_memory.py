"""What a process hands over is what a reader of spools finds."""

from __future__ import annotations

import os

import hypothesis
import hypothesis.strategies as st
import pytest

from infertrace.buffering import spool_memory
from infertrace.buffering.batch import Batch
from infertrace.buffering.left_spans import DamagedSpansError, LeftSpans
from infertrace.buffering.memory_reader import read_memory
from infertrace.wire.protobuf import delimited

PRODUCER = bytes(range(16))
RUNS = st.lists(st.lists(st.binary(max_size=300), min_size=1, max_size=5), max_size=5)


def left_of(runs: list[list[bytes]], first: int, resource: bytes = b"") -> LeftSpans:
    batches = []
    number = first
    for run in runs:
        batches.append(Batch(b"".join(delimited(b"\x0a", s) for s in run), len(run), number))
        number += len(run)
    memory = spool_memory.write_memory(
        batches,
        producer_id=PRODUCER,
        resource=resource,
        batch_sequence=7,
        last_sequence=number - 1,
        dropped={"buffer_full": 2, "rejected": 3},
    )
    return read_memory(memory, "a test")


@hypothesis.given(runs=RUNS, first=st.integers(1, 2**40), resource=st.binary(max_size=5_000))
def test_it_is_read_as_it_was_written(runs: list[list[bytes]], first: int, resource: bytes) -> None:
    left = left_of(runs, first, resource)
    try:
        spans = [delimited(b"\x0a", span) for run in runs for span in run]
        found = list(left.records())
        assert [record.span for record in found] == spans
        assert [record.sequence for record in found] == list(range(first, first + len(spans)))
        assert (left.producer_id, left.resource, left.batch_sequence) == (PRODUCER, resource, 7)
        assert left.produced == first + len(spans) - 1 + 2
        assert left.dropped["rejected"] == 3
        last = first + len(spans) - 1
        left.settle(last, 8)
        assert list(left.records()) == []
    finally:
        left.close()


def refuse(*_: object) -> int:
    raise OSError(38, "Function not implemented")


def test_without_anonymous_memory_it_is_a_file_without_a_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "memfd_create", refuse)
    left = left_of([[b"a", b"b"]], 1)
    assert [record.sequence for record in left.records()] == [1, 2]
    left.close()


@pytest.mark.parametrize("content", [b"", b"IT", b"ITSPOOL\x01", b"ITOTHER\x01" * 900])
def test_what_is_no_memory_of_ours(content: bytes) -> None:
    memory = os.memfd_create("test")
    os.write(memory, content)
    with pytest.raises(DamagedSpansError):
        read_memory(memory, "a test")
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(memory)
