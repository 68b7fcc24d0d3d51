"""What the sender process has read of the host's GPUs, in memory that it shares with its clients.

The sender writes, clients read by the descriptor that came with its greeting. Each part has a
checksum, so that one which is written just now, or which a killed sender left unfinished, is told.
The memory is sealed: clients cannot write to it, and nobody can cut it off.

Format, in the host's byte order: 8 bytes of magic. At 64 the directory: its checksum (CRC-32 of the
rest) and its size (both uint32), and texts, which say what devices there are, each after its size
(int32). At 32 KiB slots of 256 bytes, one for each device: `csrc/recorder/gpu_page.h` has their
members, and is another reader.
"""

from __future__ import annotations

import contextlib
import os
import struct
import sys
from zlib import crc32

from infertrace.named_tuple import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    import mmap
    from collections.abc import Sequence
    from typing import Final

    from infertrace.visible_devices import Device

_MAGIC: Final = b"ITGPUS\0\2"
_DIRECTORY: Final = struct.Struct("=II")
_DIRECTORY_AT: Final = 64
_SLOTS_AT: Final = 32 * 1024
_MAX_DIRECTORY_BYTES: Final = _SLOTS_AT - _DIRECTORY_AT - _DIRECTORY.size
_TEXT_BYTES: Final = struct.Struct("=i")  # of a text in the directory; -1 where there is none
_TEXTS_OF_DEVICE: Final = 7
_CHECKSUM: Final = struct.Struct("=I")
# The generation; when it was read; sizes of the fields before and after the process's; zero.
_READING: Final = struct.Struct("=IqHHI")
_FIELDS_AT: Final = _CHECKSUM.size + _READING.size
_SLOT_BYTES: Final = 256
_FIELDS_ROOM: Final = _SLOT_BYTES - _FIELDS_AT
MAX_DEVICES: Final = 128
PAGE_BYTES: Final = _SLOTS_AT + MAX_DEVICES * _SLOT_BYTES
# Source: memfd_create(2), fcntl(2). `fcntl` of Python 3.10 lacks the last one (Linux 5.1): whoever
# opens or maps it from now on cannot write.
_SEALS: Final = 0x1 | 0x2 | 0x4 | 0x10  # of seals, shrinking, growing, later writing
_ADD_SEALS: Final = 1033
_TRIES: Final = 3
# In another one, a number may stand for another GPU.
_MOUNTS: Final = "/proc/self/ns/mnt"
_CGROUP: Final = "/proc/self/cgroup"


def device_scope() -> str:
    """What decides which of the host's GPUs this process sees, and so how they are counted."""
    found = []
    with contextlib.suppress(OSError):
        found.append(os.readlink(_MOUNTS))  # noqa: PTH115 - no such file
    with contextlib.suppress(OSError), open(_CGROUP) as file:  # noqa: PTH123
        found.append(file.read().strip())
    return "\n".join(found)


class ListedDevice(NamedTuple):
    """A device in the directory; as `visible_devices.Device`."""

    gpu_index: int
    uuid: str
    name: str
    parent: str | None
    instance: tuple[int, int] | None
    slot: int
    reason: str | None
    """Why values of it are missing, if any."""


class Directory(NamedTuple):
    """What the sender says of the host's GPUs."""

    generation: int
    """Goes with the readings: another one has other devices."""
    scope: str
    has_driver: bool
    reason: str | None
    """Why there are no devices, if there are none."""
    devices: tuple[ListedDevice, ...]

    @classmethod
    def decode(cls, body: bytes) -> Directory:
        """Raises ValueError for what is none."""
        generation, scope, has_driver, reason, *told = _unpacked(body)
        found = []
        for at in range(0, len(told), _TEXTS_OF_DEVICE):
            index, uuid, name, parent, instance, slot, why = told[at : at + _TEXTS_OF_DEVICE]
            found.append(
                ListedDevice(
                    int(index or ""),
                    uuid or "",
                    name or "",
                    parent,
                    None if instance is None else _pair(instance),
                    int(slot or ""),
                    why,
                )
            )
        return cls(int(generation or ""), scope or "", bool(has_driver), reason, tuple(found))

    def encode(self) -> bytes:
        """Not as JSON, whose import would take the GIL from the traced loops of clients."""
        texts = [str(self.generation), self.scope, "yes" if self.has_driver else None, self.reason]
        for device in self.devices:
            instance = device.instance
            texts += [
                str(device.gpu_index),
                device.uuid,
                device.name,
                device.parent,
                None if instance is None else f"{instance[0]}/{instance[1]}",
                str(device.slot),
                device.reason,
            ]
        return _packed(texts)


def _packed(texts: Sequence[str | None]) -> bytes:
    found = []
    for text in texts:
        content = b"" if text is None else text.encode(errors="replace")
        found += [_TEXT_BYTES.pack(-1 if text is None else len(content)), content]
    return b"".join(found)


def _unpacked(body: bytes) -> list[str | None]:
    found: list[str | None] = []
    at = 0
    while at < len(body):
        if len(body) - at < _TEXT_BYTES.size:
            raise ValueError("a text without its size")
        (size,) = _TEXT_BYTES.unpack_from(body, at)
        at += _TEXT_BYTES.size
        if size > len(body) - at:
            raise ValueError("a text that is cut off")
        found.append(None if size < 0 else body[at : at + size].decode())
        at += max(size, 0)
    return found


def _pair(text: str) -> tuple[int, int]:
    first, second = map(int, text.split("/"))
    return first, second


class Reading(NamedTuple):
    """Of one device."""

    generation: int
    taken_at_ns: int
    """Monotonic."""
    before: bytes
    """Encoded fields of ResourceMetrics that go before those of the process."""
    after: bytes


class GpuPageWriter:
    """The sender's; `open` makes one."""

    def __init__(self, descriptor: int, memory: mmap.mmap) -> None:
        self.descriptor = descriptor
        """For clients."""
        self._memory = memory

    @classmethod
    def open(cls) -> GpuPageWriter | None:
        """None where there is no memory that clients cannot write to."""
        if sys.platform != "linux":
            return None
        import fcntl
        import mmap

        try:
            descriptor = os.memfd_create("infertrace gpus", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        except (OSError, AttributeError):
            return None
        try:
            os.ftruncate(descriptor, PAGE_BYTES)
            memory = mmap.mmap(descriptor, PAGE_BYTES)
            fcntl.fcntl(descriptor, _ADD_SEALS, _SEALS)
        except OSError:
            os.close(descriptor)
            return None
        memory[: len(_MAGIC)] = _MAGIC
        return cls(descriptor, memory)

    def describe(self, directory: Directory) -> None:
        """Say what devices there are."""
        body = directory.encode()
        while len(body) > _MAX_DIRECTORY_BYTES:
            directory = directory._replace(devices=directory.devices[:-1])
            body = directory.encode()
        size = len(body).to_bytes(4, sys.byteorder)
        packed = _CHECKSUM.pack(crc32(size + body)) + size + body
        self._memory[_DIRECTORY_AT : _DIRECTORY_AT + len(packed)] = packed

    def put(self, slot: int, reading: Reading) -> None:
        """Replace the last reading of this device; one that has no room is left out."""
        sizes = len(reading.before), len(reading.after)
        if sum(sizes) > _FIELDS_ROOM:
            return
        body = _READING.pack(reading.generation, reading.taken_at_ns, *sizes, 0)
        body += reading.before + reading.after
        packed = _CHECKSUM.pack(crc32(body)) + body
        start = _SLOTS_AT + slot * _SLOT_BYTES
        self._memory[start : start + len(packed)] = packed

    def close(self) -> None:
        self._memory.close()
        os.close(self.descriptor)


class GpuPage:
    """A client's; for one thread."""

    def __init__(self, descriptor: int) -> None:
        """Takes the descriptor over."""
        self.descriptor = descriptor
        self._known: tuple[bytes, Directory | None] = (b"", None)

    def directory(self) -> Directory | None:
        """None where the sender has not looked yet, or this is no such page."""
        if self._read(0, len(_MAGIC)) != _MAGIC:
            return None
        for _ in range(_TRIES):
            head = self._read(_DIRECTORY_AT, _DIRECTORY.size)
            known, directory = self._known
            if head == known:
                return directory
            if len(head) < _DIRECTORY.size:
                return None
            checksum, size = _DIRECTORY.unpack(head)
            if not 0 < size <= _MAX_DIRECTORY_BYTES:
                continue
            body = self._read(_DIRECTORY_AT + _DIRECTORY.size, size)
            if crc32(head[_CHECKSUM.size :] + body) == checksum:
                with contextlib.suppress(ValueError):
                    self._known = head, Directory.decode(body)
                    return self._known[1]
        return None

    def reading(self, slot: int) -> Reading | None:
        """The newest of this device; None where there is none, or it is torn."""
        for _ in range(_TRIES):
            found = self._read(self.place(slot), _SLOT_BYTES)
            if len(found) < _SLOT_BYTES:
                return None
            reading = _unpack(found)
            if reading is not None:
                return reading
        return None

    @staticmethod
    def place(slot: int) -> int:
        """Where in the page a device's reading is, bytes."""
        return _SLOTS_AT + slot * _SLOT_BYTES

    def close(self) -> None:
        os.close(self.descriptor)

    def _read(self, place: int, size: int) -> bytes:
        try:
            return os.pread(self.descriptor, size, place)
        except OSError:
            return b""


def _unpack(found: bytes) -> Reading | None:
    generation, taken_at_ns, before, after, _ = _READING.unpack_from(found, _CHECKSUM.size)
    end = _FIELDS_AT + before + after
    if not taken_at_ns or end > _SLOT_BYTES:
        return None
    if _CHECKSUM.unpack_from(found) != (crc32(found[_CHECKSUM.size : end]),):
        return None
    middle = _FIELDS_AT + before
    return Reading(generation, taken_at_ns, found[_FIELDS_AT:middle], found[middle:end])


def listed(devices: Sequence[Device]) -> tuple[ListedDevice, ...]:
    """As many of NVML's devices as have room, each with its slot."""
    return tuple(
        ListedDevice(it.gpu_index, it.uuid, it.name, it.parent, it.instance, slot, None)
        for slot, it in enumerate(devices[:MAX_DEVICES])
    )
