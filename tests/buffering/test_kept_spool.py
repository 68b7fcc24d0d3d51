"""What an agent keeps on its disk is what a process has left, however it lay there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infertrace.buffering.batch import Batch
from infertrace.buffering.kept_spool import KeptSpool, write_kept_spool
from infertrace.buffering.left_spans import DamagedSpansError, Record
from infertrace.buffering.memory_reader import read_memory
from infertrace.buffering.spool_memory import write_memory
from infertrace.wire.protobuf import delimited

ID = bytes(range(16))


def memory_of(spans: list[bytes], first: int, resource: bytes = b"", dropped: int = 0) -> int:
    batches = [Batch(b"".join(spans), len(spans), first)] if spans else []
    return write_memory(
        batches,
        producer_id=ID,
        resource=resource,
        batch_sequence=7,
        last_sequence=first + len(spans) - 1,
        dropped={"buffer_full": dropped},
    )


@given(
    spans=st.lists(st.binary(max_size=300), max_size=20),
    first=st.integers(1, 2**40),
    resource=st.binary(max_size=5000),
    dropped=st.integers(0, 9),
    note=st.binary(max_size=100),
)
def test_the_same_comes_back(
    tmp_path_factory: pytest.TempPathFactory,
    spans: list[bytes],
    first: int,
    resource: bytes,
    dropped: int,
    note: bytes,
) -> None:
    path = tmp_path_factory.mktemp("spool") / "x.spool"
    encoded = [delimited(b"\x0a", span) for span in spans]
    left = read_memory(memory_of(encoded, first, resource, dropped), "memory")
    assert write_kept_spool(path, left, note) == path.stat().st_size
    kept = KeptSpool(path)
    assert list(kept.records()) == [
        Record(first + number, span) for number, span in enumerate(encoded)
    ]
    assert (kept.producer_id, kept.resource, kept.text) == (ID, resource, note)
    assert kept.produced == left.produced == first + len(spans) - 1 + dropped
    assert kept.dropped == left.dropped
    assert (kept.span_count, kept.damaged, kept.batch_sequence) == (len(spans), 0, 7)
    assert kept.settled_elsewhere == range(0)
    left.close()
    kept.close()
    path.unlink()


def test_what_is_settled_stays_settled(tmp_path: Path) -> None:
    path = tmp_path / "x.spool"
    left = read_memory(memory_of([delimited(b"\x0a", b"x")] * 9, 11), "memory")
    write_kept_spool(path, left, b"")
    left.close()
    kept = KeptSpool(path)
    kept.set_settled_elsewhere(range(11, 13), 1)
    kept.settle(15, 9, rejected=3)
    kept.close()
    kept = KeptSpool(path)
    assert (kept.settled_elsewhere, kept.accepted) == (range(11, 13), 1)
    assert [record.sequence for record in kept.records()] == [16, 17, 18, 19]
    assert kept.dropped["rejected"] == 3
    assert kept.batch_sequence == 9
    assert kept.produced == 19
    kept.close()


def test_cut_short_anywhere(tmp_path: Path) -> None:
    """Told at once, or read as far as it goes; never another span."""
    path = tmp_path / "x.spool"
    encoded = [delimited(b"\x0a", bytes([number]) * 20) for number in range(5)]
    left = read_memory(memory_of(encoded, 1), "memory")
    size = write_kept_spool(path, left, b"note")
    left.close()
    whole = path.read_bytes()
    for end in range(size):
        path.write_bytes(whole[:end])
        try:
            kept = KeptSpool(path)
        except DamagedSpansError:
            continue
        assert [record.span for record in kept.records()] == encoded
        assert kept.text == b"note"[: len(kept.text)]
        kept.close()


def test_a_disk_that_is_full_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = read_memory(memory_of([delimited(b"\x0a", b"x")], 1), "memory")

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        with pytest.raises(OSError, match="No space left"):
            write_kept_spool(tmp_path / "x.spool", left, b"")
    assert list(tmp_path.iterdir()) == []
    write_kept_spool(tmp_path / "x.spool", left, b"")
    left.close()
