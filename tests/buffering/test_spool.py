"""The spool: what a dead process leaves behind, and what damage does to it."""

from __future__ import annotations

import contextlib
import mmap
import os
import random
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from backend_recording import KIB, MIB, Recording, available_backends
from infertrace import backend as backends
from infertrace.buffering.batch import Batch, halves
from infertrace.buffering.left_spans import DamagedSpansError, Record
from infertrace.buffering.spool_file import LAST_AT, SpoolFile
from infertrace.buffering.spool_reader import LeftSpool
from infertrace.generated import span_pb2

PRODUCER_ID = bytes(range(16))
RESOURCE = b"\x3a\x00"


def new_file(directory: Path, max_buffer_bytes: int = 64 * KIB) -> SpoolFile:
    return SpoolFile(
        directory,
        producer_id=os.urandom(16),
        resource=RESOURCE,
        max_buffer_bytes=max_buffer_bytes,
    )


def read(path: Path) -> list[Record]:
    """What a drainer would find if the owner died now; reads a copy, as the owner holds a lock."""
    copy = path.with_suffix(".copy")
    shutil.copyfile(path, copy)
    spool = LeftSpool(copy)
    try:
        return list(spool.records())
    finally:
        spool.close()
        copy.unlink()


def names(records: list[Record]) -> list[str]:
    return [
        span_pb2.SendSpanBatchRequest.FromString(record.span).spans[0].operation_name
        for record in records
    ]


@pytest.fixture
def spooled(new_recording: Callable[..., Recording], tmp_path: Path) -> tuple[Recording, SpoolFile]:
    recording = new_recording(max_buffer_bytes=64 * KIB, max_batch_bytes=8 * KIB)
    file = new_file(tmp_path / "spool")
    recording.recorder.attach_spool(file)
    return recording, file


def test_an_ended_span_is_in_the_file(spooled: Any) -> None:
    recording, file = spooled
    for number in range(10):
        with recording.start_span("m", f"span {number}", tags={"k": "v" * number}):
            pass
        assert names(read(file.path)) == [f"span {n}" for n in range(number + 1)]
    assert [record.sequence for record in read(file.path)] == list(range(1, 11))
    assert b"".join(record.span for record in read(file.path)) == recording.recorder.take().payload


def test_what_was_held_before_is_kept_too(
    new_recording: Callable[..., Recording], tmp_path: Path
) -> None:
    recording = new_recording(max_buffer_bytes=512 * KIB, max_batch_bytes=8 * KIB)
    for number in range(300):
        recording.start_span("m", f"span {number}").end()
    taken = recording.recorder.take()
    file = new_file(tmp_path, max_buffer_bytes=512 * KIB)
    recording.recorder.attach_spool(file)
    kept = names(read(file.path))
    assert kept == [f"span {number}" for number in range(taken.span_count, 300)]
    assert read(file.path)[0].sequence == taken.span_count + 1


def test_the_file_is_private(spooled: Any) -> None:
    _, file = spooled
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.path.parent.stat().st_mode) == 0o700


def test_drops_are_counted_in_the_file(spooled: Any) -> None:
    recording, file = spooled
    for _ in range(2_000):
        recording.start_span("m").end()
    _, _, pending, dropped, _ = recording.recorder.counts()
    copy = file.path.with_suffix(".copy")
    shutil.copyfile(file.path, copy)
    spool = LeftSpool(copy)
    assert spool.dropped["buffer_full"] == dropped[0] > 0
    assert spool.produced == 2_000
    assert len(list(spool.records())) == pending
    spool.close()


def test_counters_never_go_back(new_recording: Callable[..., Recording], tmp_path: Path) -> None:
    """Another process keeps reading them, since a kill may happen at any of these moments."""
    spans, patience_s = 20_000, 60
    recording = new_recording(max_buffer_bytes=8 * MIB, max_batch_bytes=8 * KIB)
    file = new_file(tmp_path, max_buffer_bytes=8 * MIB)
    recording.recorder.attach_spool(file)
    ready, tell = os.pipe()
    watcher = os.fork()
    if watcher == 0:
        went_back = True
        with contextlib.suppress(BaseException):
            with file.path.open("rb") as opened:
                words = memoryview(mmap.mmap(opened.fileno(), 0, prot=mmap.PROT_READ)).cast("Q")
            os.write(tell, b"r")
            last, end = 0, time.monotonic() + patience_s
            while last < spans and time.monotonic() < end:
                for _ in range(10_000):
                    before, last = last, words[LAST_AT // 8]
                    assert before <= last
            went_back = last < spans
        os._exit(went_back)
    os.read(ready, 1)
    os.close(ready)
    os.close(tell)
    for _ in range(spans):
        recording.start_span("m").end()
    assert os.waitpid(watcher, 0)[1] == 0


class SpoolModel(RuleBasedStateMachine):
    """The file beside a plain list of the ended, unsettled spans, as the ring wraps around."""

    backend_name = "pure"

    @initialize()
    def start(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.recorder = Recording(
            backends.select(self.backend_name), max_buffer_bytes=16 * KIB, max_batch_bytes=KIB
        ).recorder
        self.file: SpoolFile | None = None
        self.made = 0
        self.kept: list[str] = []
        self.in_flight: list[Batch] = []
        self.dropped = 0

    @rule(sizes=st.lists(st.integers(0, 1500), min_size=1, max_size=20))
    def record(self, sizes: list[int]) -> None:
        for size in sizes:
            self.made += 1
            before = self.recorder.counts()[2]
            name = f"span {self.made}"
            self.recorder.start_span("m", name, tags={"k": "x" * size}).end()
            if self.recorder.counts()[2] > before:
                self.kept.append(name)
            else:
                self.dropped += 1

    @rule()
    def record_one_that_is_too_large(self) -> None:
        self.made += 1
        self.dropped += 1
        self.recorder.start_span("m", attributes={"k": "x" * 20_000}).end()

    @rule()
    def take(self) -> None:
        batch = self.recorder.take()
        if batch is not None:
            self.in_flight.append(batch)

    @rule()
    def encode(self) -> None:
        self.recorder.encode_some()

    @precondition(lambda self: self.in_flight and self.in_flight[0].span_count > 1)
    @rule()
    def split(self) -> None:
        self.in_flight[:1] = halves(self.in_flight[0])

    @precondition(lambda self: self.in_flight)
    @rule(percent=st.integers(0, 100))
    def settle(self, percent: int) -> None:
        batch = self.in_flight.pop(0)
        delivered = batch.span_count * percent // 100
        self.recorder.settle(batch, delivered, "rejected")
        del self.kept[: batch.span_count]

    @precondition(lambda self: self.file is None and not self.in_flight)
    @rule()
    def attach(self) -> None:
        self.file = new_file(Path(self.folder.name), max_buffer_bytes=16 * KIB)
        self.recorder.attach_spool(self.file)

    @invariant()
    def the_file_has_what_the_list_has(self) -> None:
        produced, delivered, pending, dropped, _ = self.recorder.counts()
        assert produced == self.made == delivered + pending + sum(dropped)
        assert pending == len(self.kept)
        if self.file is not None:
            found = read(self.file.path)
            assert names(found) == self.kept
            sequences = [record.sequence for record in found]
            first = sequences[0] if found else 1
            assert sequences == list(range(first, first + len(found)))

    def teardown(self) -> None:
        if self.file is not None:
            self.recorder.detach_spool()
            self.file.close(keep=False)
        self.folder.cleanup()


for _name in available_backends():
    _model: Any = type(f"SpoolModel_{_name}", (SpoolModel,), {"backend_name": _name})
    _case = _model.TestCase
    _case.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
    globals()[f"TestSpool_{_name}"] = _case
del _case


def filled(directory: Path, spans: int = 300) -> tuple[Path, list[bytes]]:
    recording = Recording(
        backends.select("pure"), max_buffer_bytes=64 * KIB, max_batch_bytes=8 * KIB
    )
    file = new_file(directory)
    recording.recorder.attach_spool(file)
    for number in range(spans):
        recording.start_span("m", f"span {number}").end()
    batch = recording.recorder.take()
    recording.recorder.settle(batch, batch.span_count, "rejected")
    recording.recorder.detach_spool()
    path = directory / "dead"
    shutil.copyfile(file.path, path)
    file.close(keep=False)
    spool = LeftSpool(path)
    written = [record.span for record in spool.records()]
    spool.close()
    assert len(written) == spans - batch.span_count
    return path, written


def found_in(path: Path) -> list[bytes] | None:
    try:
        spool = LeftSpool(path)
    except DamagedSpansError:
        return None
    try:
        return [record.span for record in spool.records()]
    finally:
        spool.close()


def test_a_flipped_bit_costs_a_record_at_most(tmp_path: Path) -> None:
    path, written = filled(tmp_path)
    content = bytearray(path.read_bytes())
    start = int.from_bytes(content[12:16], "little")
    chance = random.Random(7)
    for _ in range(300):
        content[chance.randrange(start, len(content))] ^= 1 << chance.randrange(8)
        path.write_bytes(content)
        found = found_in(path)
        assert found is not None
        assert [span for span in written if span in set(found)] == found
        assert len(found) >= len(written) - 1
        written = found


def test_a_flipped_bit_of_the_header_stops_nothing(tmp_path: Path) -> None:
    path, written = filled(tmp_path)
    content = path.read_bytes()
    for at in range(160):
        for bit in range(8):
            damaged = bytearray(content)
            damaged[at] ^= 1 << bit
            path.write_bytes(damaged)
            found = found_in(path)
            assert found is None or set(found) <= set(written)


def test_every_byte_of_a_file(tmp_path: Path, nightly: bool) -> None:
    """Inverts each byte in turn, and leaves all others unchanged."""
    path, written = filled(tmp_path)
    content = path.read_bytes()
    start = int.from_bytes(content[12:16], sys.byteorder)
    for at in range(0, len(content), 1 if nightly else 61):
        damaged = bytearray(content)
        damaged[at] ^= 0xFF
        path.write_bytes(damaged)
        found = found_in(path)
        if at >= start:
            assert found is not None
            assert len(found) >= len(written) - 1
        assert found is None or [span for span in written if span in set(found)] == found


def test_a_file_that_was_cut_short(tmp_path: Path, nightly: bool) -> None:
    """Wherever the cut is, the reader finds the spans before it."""
    path, written = filled(tmp_path)
    content = path.read_bytes()
    for size in [*range(200), *range(200, len(content), 1 if nightly else 997)]:
        path.write_bytes(content[:size])
        found = found_in(path)
        assert found is None or found == written[: len(found)]


def test_a_torn_record_is_passed_over(tmp_path: Path) -> None:
    path, written = filled(tmp_path)
    content = bytearray(path.read_bytes())
    at = content.find(written[10]) - 24
    content[at : at + 4] = bytes(4)
    path.write_bytes(content)
    assert found_in(path) == written[:10] + written[11:]


def test_a_record_that_was_not_counted_yet_is_counted(tmp_path: Path) -> None:
    """A kill may come between writing a record and writing the number of the last one."""
    path, written = filled(tmp_path, spans=300)
    content = bytearray(path.read_bytes())
    content[LAST_AT : LAST_AT + 8] = (299).to_bytes(8, sys.byteorder)
    path.write_bytes(content)
    spool = LeftSpool(path)
    assert [record.span for record in spool.records()] == written
    assert spool.produced == 300
    spool.close()


def test_text_that_looks_like_a_record(spooled: Any) -> None:
    """A span cannot plant another: the checksum begins with the file's own seed."""
    recording, file = spooled
    with recording.start_span("m", "inner"):
        pass
    planted = file.path.read_bytes()[file.header_bytes : file.header_bytes + 120]
    recording.start_span("m", "outer", attributes={"k": planted.decode("latin-1")}).end()
    assert names(read(file.path)) == ["inner", "outer"]


def test_rubbish(tmp_path: Path) -> None:
    path = tmp_path / "rubbish"
    for size in (0, 10, 200, 5_000, 100_000):
        path.write_bytes(random.Random(size).randbytes(size))
        with pytest.raises(DamagedSpansError):
            LeftSpool(path)
