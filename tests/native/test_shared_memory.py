"""The memory that a traced process shares with its sender, and what is there when it dies."""

from __future__ import annotations

import ctypes
import itertools
import os
import signal
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infertrace.buffering.batch import Batch, halves
from infertrace.buffering.ledger import DROP_REASONS
from infertrace.buffering.left_memory import _ACCOUNTS_END, LeftMemory
from infertrace.buffering.left_spans import DamagedSpansError
from infertrace.buffering.memory_reader import read_memory
from infertrace.generated import span_pb2

if TYPE_CHECKING:
    from collections.abc import Iterator

native = pytest.importorskip("infertrace.recording.native", reason="no compiled backend")

KIB = 1024
PRODUCER = bytes(range(16))
RESOURCE = b"\x3a\x00"
KILLS = 25


def new_recorder() -> Any:
    made = native.Recorder(max_buffer_bytes=256 * KIB, max_batch_bytes=16 * KIB, wake=lambda: None)
    made.share_memory(PRODUCER, RESOURCE)
    return made


@pytest.fixture
def recorder() -> Any:
    return new_recorder()


def record(recorder: Any, count: int, **fields: Any) -> None:
    for _ in range(count):
        recorder.start_span("gpt-4", **fields).end()


RECORDED = new_recorder()
record(RECORDED, 300)


def left(recorder: Any) -> LeftMemory:
    return LeftMemory(os.dup(recorder.memory_descriptor), "a process")


def sequences(memory: LeftMemory) -> list[int]:
    return [record.sequence for record in memory.records()]


def batches(recorder: Any) -> Iterator[Batch]:
    while (batch := recorder.take()) is not None:
        yield batch


def test_what_has_ended_is_in_it(recorder: Any) -> None:
    record(recorder, 500)
    memory = left(recorder)
    assert sequences(memory) == list(range(1, 501))
    spans = b"".join(record.span for record in memory.records())
    assert spans == b"".join(batch.payload for batch in batches(recorder))
    assert len(span_pb2.SendSpanBatchRequest.FromString(spans).spans) == 500
    assert (memory.producer_id, memory.resource) == (PRODUCER, RESOURCE)
    assert (memory.produced, memory.damaged) == (500, 0)


def test_what_is_settled_is_not(recorder: Any) -> None:
    record(recorder, 1000)
    first, second, *others = batches(recorder)
    recorder.settle(first, first.span_count, "rejected")
    recorder.settle(second, second.span_count - 3, "rejected")
    memory = left(recorder)
    assert len(sequences(memory)) == sum(batch.span_count for batch in others)
    assert sequences(memory)[0] == second.first_span_sequence + second.span_count
    assert (memory.produced, memory.damaged) == (1000, 0)
    assert memory.dropped["rejected"] == 3


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
def test_parts_of_a_batch_settle_in_any_order(recorder: Any, order: tuple[int, ...]) -> None:
    record(recorder, 40)
    (batch,) = batches(recorder)
    parts = [part for half in halves(batch) for part in halves(half)]
    held = set(range(1, 41))
    for number in order:
        part = parts[number]
        recorder.settle(part, part.span_count, "rejected")
        last = part.first_span_sequence + part.span_count
        held -= set(range(part.first_span_sequence, last))
        memory = left(recorder)
        assert set(sequences(memory)) == held
        assert (memory.produced, memory.damaged) == (40, 0)
    record(recorder, 1)
    assert sequences(left(recorder)) == [41]


def test_what_is_dropped_is_counted(recorder: Any) -> None:
    record(recorder, 10_000)
    produced, _, pending, dropped, _ = recorder.counts()
    memory = left(recorder)
    assert len(sequences(memory)) == pending
    assert memory.dropped == dict(zip(DROP_REASONS, dropped, strict=True))
    assert memory.dropped["buffer_full"] == produced - pending > 0
    assert memory.produced == produced


def test_a_shutdown_leaves_nothing(recorder: Any) -> None:
    record(recorder, 100)
    recorder.close()
    recorder.discard()
    memory = left(recorder)
    assert (sequences(memory), memory.dropped["shutdown"]) == ([], 100)
    assert memory.produced == 100


def test_a_large_span_takes_several_places(recorder: Any) -> None:
    record(recorder, 3)
    record(recorder, 1, tags={str(number): "x" * 800 for number in range(100)})
    record(recorder, 3)
    assert sequences(left(recorder)) == list(range(1, 8))


def test_a_resource_may_change(recorder: Any) -> None:
    record(recorder, 1)
    recorder.share_memory(PRODUCER, b"\x3a\x01x")
    assert left(recorder).resource == b"\x3a\x01x"


def test_pages_are_given_back_after_an_outage() -> None:
    recorder = native.Recorder(
        max_buffer_bytes=32 * KIB * KIB, max_batch_bytes=KIB * KIB, wake=lambda: None
    )
    recorder.share_memory(PRODUCER, RESOURCE)
    record(recorder, 40, tags={"text": "x" * 1000})
    little = os.fstat(recorder.memory_descriptor).st_blocks
    record(recorder, 20_000, tags={"text": "x" * 1000})
    much = os.fstat(recorder.memory_descriptor).st_blocks
    for batch in batches(recorder):
        recorder.settle(batch, batch.span_count, "rejected")
    assert much > 10 * little
    assert os.fstat(recorder.memory_descriptor).st_blocks < much / 2


def test_what_is_no_such_memory_is_refused() -> None:
    for content in (b"", b"ITSPOOL\x01" + bytes(4096), b"else", b"ITSHARE\x01" + b"\xff" * 4096):
        descriptor = os.memfd_create("no spans")
        os.write(descriptor, content)
        with pytest.raises(DamagedSpansError):
            read_memory(descriptor, "a process")


def copy_of(recorder: Any) -> int:
    """The descriptor of a memory with the same content."""
    descriptor = os.memfd_create("copy")
    size = os.fstat(recorder.memory_descriptor).st_size
    os.write(descriptor, os.pread(recorder.memory_descriptor, size, 0))
    return descriptor


def test_an_owner_that_cuts_it_short_does_not_end_the_reader() -> None:
    """It may be another user, with an agent that reads."""
    descriptor = copy_of(RECORDED)
    memory = LeftMemory(os.dup(descriptor), "a process")
    assert sequences(memory)[-1] == 300
    os.ftruncate(descriptor, 0)
    assert sequences(memory) == []
    memory.close()
    os.close(descriptor)


def test_sizes_that_would_only_take_the_readers_memory() -> None:
    descriptor = copy_of(RECORDED)
    os.ftruncate(descriptor, 2**33)
    os.pwrite(descriptor, (2**32 - 4096).to_bytes(4, sys.byteorder), 8)  # bytes of the header
    with pytest.raises(DamagedSpansError):
        read_memory(descriptor, "a process")
    descriptor = copy_of(RECORDED)
    os.ftruncate(descriptor, 2**33)
    slots_at = _ACCOUNTS_END
    os.pwrite(descriptor, (2**32).to_bytes(8, sys.byteorder), slots_at + 8)  # bytes of a run
    memory = LeftMemory(descriptor, "a process")
    assert len(sequences(memory)) < 300
    memory.close()


@given(damage=st.lists(st.tuples(st.integers(0, 2**14), st.binary(max_size=8)), max_size=20))
def test_whatever_is_in_it(damage: list[tuple[int, bytes]]) -> None:
    """It is read, or refused."""
    content = bytearray(os.pread(RECORDED.memory_descriptor, 2**16, 0))
    for place, changed in damage:
        content[place : place + len(changed)] = changed
    descriptor = os.memfd_create("damaged")
    os.write(descriptor, content)
    try:
        memory = read_memory(descriptor, "a process")
    except DamagedSpansError:
        return
    assert len(list(memory.records())) <= memory.last_sequence
    assert memory.produced >= 0
    memory.close()


def test_a_child_without_our_hooks_writes_to_memory_of_its_own(recorder: Any) -> None:
    """As a C library forks: none of Python's hooks runs."""
    record(recorder, 5)
    fork = ctypes.PyDLL(None).fork
    pid = fork()
    if pid == 0:
        try:
            record(recorder, 50)
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    assert sequences(left(recorder)) == [1, 2, 3, 4, 5]
    record(recorder, 1)
    assert sequences(left(recorder)) == [1, 2, 3, 4, 5, 6]


DOOMED = """
import array, os, socket, sys, threading
from infertrace.recording import native
recorder = native.Recorder(max_buffer_bytes=1 << 20, max_batch_bytes=16384, wake=lambda: None)
recorder.share_memory(bytes(range(16)), b"")
recorder.start_span("gpt-4").end()
with socket.socket(fileno=int(sys.argv[1])) as link:
    socket.send_fds(link, [b"m"], [recorder.memory_descriptor])
    while True:
        for _ in range(300):
            recorder.start_span("gpt-4", input_tokens=7).end()
        while (batch := recorder.take()) is not None:
            recorder.settle(batch, batch.span_count - 1, "rejected")
"""


def test_killed_at_any_moment() -> None:
    """Every number is settled or there, whatever store was the last."""
    for attempt in range(KILLS):
        ours, theirs = socket.socketpair()
        with ours, theirs:
            doomed = subprocess.Popen(
                [sys.executable, "-c", DOOMED, str(theirs.fileno())], pass_fds=[theirs.fileno()]
            )
            theirs.close()
            _, (descriptor,), _, _ = socket.recv_fds(ours, 1, 1)
            time.sleep(0.003 * attempt)
            doomed.send_signal(signal.SIGKILL)
            doomed.wait()
        memory = LeftMemory(descriptor, "a process")
        found = sequences(memory)
        assert memory.damaged == 0
        settled = memory.produced - len(found)
        assert found == list(range(settled + 1, settled + 1 + len(found)))
        for held in memory.records():
            (span,) = span_pb2.SendSpanBatchRequest.FromString(held.span).spans
            assert span.inference.model_name == "gpt-4"
