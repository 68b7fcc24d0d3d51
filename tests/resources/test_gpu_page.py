"""The page in which a sender process says what the GPUs do: whole, torn, old, of other devices."""

from __future__ import annotations

import mmap
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infertrace.generated.span_pb2 import ResourceMetrics
from infertrace.recording.encoder import resource_metrics
from infertrace.resources.gpu_page import (
    MAX_DEVICES,
    Directory,
    GpuPage,
    GpuPageWriter,
    ListedDevice,
    Reading,
    device_scope,
)
from infertrace.resources.gpu_source import GpuSlot, GpuSource

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="no such memory there")

BEFORE: dict[str, float | int | str] = {
    "gpu_utilization_percent": 12.5,
    "gpu_memory_used_bytes": 1 << 40,
    "gpu_device_id": "G",
}
AFTER: dict[str, float | int | str] = {"gpu_power_watts": 350.5, "gpu_temperature_celsius": 61.0}


def device(slot: int, uuid: str, reason: str | None = None) -> ListedDevice:
    return ListedDevice(slot, uuid, "Model", None, None, slot, reason)


def directory(*devices: ListedDevice, generation: int = 1, scope: str = "") -> Directory:
    return Directory(generation, scope or device_scope(), True, None, devices)


def reading(generation: int = 1, taken_at_ns: int | None = None) -> Reading:
    taken_at_ns = time.monotonic_ns() if taken_at_ns is None else taken_at_ns
    return Reading(generation, taken_at_ns, resource_metrics(BEFORE), resource_metrics(AFTER))


@pytest.fixture
def writer() -> Iterator[GpuPageWriter]:
    writer = GpuPageWriter.open()
    assert writer is not None
    yield writer
    writer.close()


@pytest.fixture
def new_source(
    writer: GpuPageWriter, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[], GpuSource]]:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    made: list[GpuSource] = []

    def make(index: int | None = None) -> GpuSource:
        made.append(GpuSource(index, interval_s=1, awaits_sender=True))
        made[-1].offer(os.dup(writer.descriptor))
        return made[-1]

    yield make
    for source in made:
        source.close()


def slot_of(source: GpuSource) -> GpuSlot:
    chosen = source.choose()
    assert isinstance(chosen, GpuSlot)
    return chosen


@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 2**62),
    st.binary(max_size=180),
    st.binary(max_size=50),
    st.integers(0, MAX_DEVICES - 1),
)
def test_what_is_written_is_read(
    generation: int, taken_at_ns: int, before: bytes, after: bytes, slot: int
) -> None:
    writer = GpuPageWriter.open()
    assert writer is not None
    page = GpuPage(os.dup(writer.descriptor))
    written = Reading(generation, taken_at_ns, before, after)
    writer.put(slot, written)
    assert page.reading(slot) == written
    page.close()
    writer.close()


_TEXTS = st.text(st.characters(codec="utf-8"))
_NUMBERS = st.integers(0, 2**63 - 1)
_DEVICES = st.builds(
    ListedDevice,
    _NUMBERS,
    _TEXTS,
    _TEXTS,
    st.none() | _TEXTS,
    st.none() | st.tuples(_NUMBERS, _NUMBERS),
    _NUMBERS,
    st.none() | _TEXTS,
)


_DIRECTORIES = st.builds(
    Directory,
    _NUMBERS,
    _TEXTS,
    st.booleans(),
    st.none() | _TEXTS,
    st.lists(_DEVICES, max_size=4).map(tuple),
)


@given(_DIRECTORIES)
def test_any_directory_is_read_as_it_was_written(written: Directory) -> None:
    assert Directory.decode(written.encode()) == written


@given(st.binary())
def test_what_is_no_directory(body: bytes) -> None:
    with suppress(ValueError):
        Directory.decode(body)


def test_nobody_but_the_sender_writes(writer: GpuPageWriter) -> None:
    with pytest.raises(PermissionError):
        os.pwrite(writer.descriptor, b"x", 0)
    with pytest.raises(PermissionError):
        mmap.mmap(writer.descriptor, 4096)
    with pytest.raises(PermissionError):
        os.ftruncate(writer.descriptor, 0)


def test_more_devices_than_have_room_are_left_out(writer: GpuPageWriter) -> None:
    many = [device(slot, f"GPU-{slot}" + "x" * 400) for slot in range(MAX_DEVICES)]
    writer.describe(directory(*many))
    page = GpuPage(os.dup(writer.descriptor))
    found = page.directory()
    page.close()
    assert found is not None
    assert found.devices == tuple(many[: len(found.devices)])
    assert found.devices


def test_before_the_sender_has_looked(new_source: Callable[[], GpuSource]) -> None:
    source = new_source()
    assert source.choose() is None
    assert source.is_pending
    assert source.reason == "the sender process has not read it yet"


def test_each_process_finds_its_own(
    writer: GpuPageWriter, new_source: Callable[..., GpuSource], monkeypatch: pytest.MonkeyPatch
) -> None:
    writer.describe(directory(device(0, "GPU-aa"), device(1, "GPU-bb", "power: no")))
    source = new_source()
    assert slot_of(source).slot == 0
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-b")
    assert slot_of(source).slot == 1
    assert source.reason == "power: no"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert source.choose() is None
    assert "hides all" in str(source.reason)
    assert slot_of(new_source(1)).slot == 1
    missing = new_source(2)
    assert missing.choose() is None
    assert missing.reason == "there is no GPU 2, but 2, counted from 0"


def test_old_torn_and_others_readings_are_none(
    writer: GpuPageWriter, new_source: Callable[[], GpuSource]
) -> None:
    writer.describe(directory(device(0, "GPU-aa")))
    slot = slot_of(new_source())
    now = time.monotonic_ns()
    assert slot.read(now) is None
    written = reading(taken_at_ns=now)
    writer.put(0, written)
    assert slot.read(now) == written
    assert slot.read(now + slot.max_age_ns) == written
    assert slot.read(now + slot.max_age_ns + 1) is None
    assert slot.read(now - 1) is None  # another clock's
    writer.put(0, reading(generation=2, taken_at_ns=now))
    assert slot.read(now) is None
    writer.put(0, written)
    place = GpuPage.place(0)
    for at in (0, 4, 8, 16, 24, 40):
        writer._memory[place + at] ^= 1
        assert slot.read(now) is None
        writer._memory[place + at] ^= 1
    assert slot.read(now) == written


def test_a_directory_that_is_torn_is_none(
    writer: GpuPageWriter, new_source: Callable[[], GpuSource]
) -> None:
    writer.describe(directory(device(0, "GPU-aa")))
    writer._memory[80] ^= 1
    source = new_source()
    assert source.choose() is None
    writer._memory[80] ^= 1
    assert slot_of(source).slot == 0


def test_a_descriptor_of_something_else() -> None:
    source = GpuSource(None, interval_s=1, awaits_sender=True)
    ours, theirs = os.pipe()
    os.close(theirs)
    source.offer(ours)
    assert source.choose() is None
    source.close()
    with pytest.raises(OSError, match="descriptor"):
        os.fstat(ours)


def samples(backend: Any, slot: GpuSlot) -> list[bytes]:
    """What the recorder has of it after one sampling, compiled or not."""
    from infertrace.resources.sampler import ResourceSampler

    recorder = backend.Recorder(max_buffer_bytes=65536, max_batch_bytes=4096, wake=int)
    sampler = ResourceSampler(backend, recorder, interval_s=0.02, gpu_device_index=None)
    sampler._sample_with(slot)
    found = [recorder.sample[0]]
    if recorder.sample_process is not None:
        recorder.sample_process(0.02, 0.05, slot.address)
        found.append(recorder.sample[0])
    sampler.stop()
    return found


def test_both_backends_put_its_fields_around_the_process(
    writer: GpuPageWriter, new_source: Callable[[], GpuSource], backend: Any
) -> None:
    writer.describe(directory(device(0, "GPU-aa")))
    slot = slot_of(new_source())
    writer.put(0, reading())
    for encoded in samples(backend, slot):
        message = ResourceMetrics.FromString(encoded)
        fields = {field.name: value for field, value in message.ListFields()}
        assert fields.items() >= (BEFORE | AFTER).items()
        assert "memory_heap_bytes" in fields
        assert encoded == resource_metrics(fields)


@pytest.mark.parametrize("fault", ["old", "future", "torn", "other"])
def test_both_backends_leave_out_what_does_not_count(
    writer: GpuPageWriter, new_source: Callable[[], GpuSource], backend: Any, fault: str
) -> None:
    writer.describe(directory(device(0, "GPU-aa")))
    slot = slot_of(new_source())
    taken_at = {"old": 1, "future": time.monotonic_ns() + (1 << 60)}.get(fault)
    writer.put(0, reading(generation=1 + (fault == "other"), taken_at_ns=taken_at))
    if fault == "torn":
        writer._memory[GpuPage.place(0) + 30] ^= 1
    for encoded in samples(backend, slot):
        names = [field.name for field, _ in ResourceMetrics.FromString(encoded).ListFields()]
        assert names == ["cpu_utilization_percent", "memory_heap_bytes"]
