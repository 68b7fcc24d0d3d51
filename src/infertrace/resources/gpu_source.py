"""Where the GPU's values on the spans of this process come from.

The sender process that is shared reads the GPUs of the host for all its clients. This process reads
its own where there is no such sender, or one that sees other GPUs than this process does.
"""

from __future__ import annotations

import os

from infertrace.gpu import probe
from infertrace.named_tuple import NamedTuple
from infertrace.resources.gpu_page import GpuPage, device_scope
from infertrace.visible_devices import NoSuchDevice, WantedDevice, find_device, own_device

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from infertrace.gpu import GpuProbe
    from infertrace.resources.gpu_page import Directory, Reading

# What the sender keeps to, whatever intervals its clients have.
SHORTEST_INTERVAL_S: Final = 0.1
LONGEST_INTERVAL_S: Final = 1.0
_PATIENCE_S: Final = 0.5
# Where the dynamic linker looks for a driver before it looks where all processes do: ld.so(8).
_SEARCHED_FIRST: Final = "LD_LIBRARY_PATH"
_SECOND_NS: Final = 1_000_000_000


class GpuSlot(NamedTuple):
    """The place in the sender's page where the readings of one device are."""

    page: GpuPage
    slot: int
    generation: int
    max_age_ns: int

    @property
    def address(self) -> tuple[int, int, int, int]:
        """For `Recorder.sample_process`."""
        return self.page.descriptor, self.page.place(self.slot), self.generation, self.max_age_ns

    def read(self, now_ns: int) -> Reading | None:
        """The newest reading; None where it is too old."""
        found = self.page.reading(self.slot)
        if found is None or found.generation != self.generation:
            return None
        # One of the future is of another clock: that of another time namespace.
        return found if 0 <= now_ns - found.taken_at_ns <= self.max_age_ns else None


class GpuSource:
    """For one tracer. All but `offer` is for the thread that samples."""

    def __init__(self, device_index: int | None, *, interval_s: float, awaits_sender: bool) -> None:
        """device_index: as NVML counts; None for the process's own device. awaits_sender: whether
        `offer` will be called."""
        self._device_index = device_index
        wanted_s = min(max(interval_s, SHORTEST_INTERVAL_S), LONGEST_INTERVAL_S)
        self._max_age_ns = int((wanted_s + _PATIENCE_S) * _SECOND_NS)
        self._awaits_sender = awaits_sender
        self._page: GpuPage | None = None
        self._offers: list[int | None] = []
        self._scope = device_scope()
        self._own_uuids: dict[WantedDevice, WantedDevice] = {}
        self.is_pending = False
        """Whether the sender is about to say something of it."""
        self.reason: str | None = "not read yet"
        """Why there are no values, or not all."""

    def offer(self, descriptor: int | None) -> None:
        """Read from this page from now on, and close its descriptor at last; None: there is no
        sender that reads. For any thread."""
        self._offers.append(descriptor)

    def prepare(self) -> None:
        """Load what reads the GPU here, where that is so: its import holds the GIL for a while.

        Before the thread that samples is started.
        """
        if self._page is None and not self._awaits_sender:
            wanted = own_device(self._device_index, os.environ)
            if wanted.nothing is None:
                probe(wanted).prepare()

    def choose(self) -> GpuSlot | GpuProbe | None:
        """Where to read now; None, with a reason, where there is nothing to read."""
        self.take_offers()
        self.is_pending = False
        wanted = own_device(self._device_index, os.environ)
        if wanted.nothing is not None:
            self.reason = wanted.nothing
            return None
        if self._page is not None:
            return self._choose_in(self._page, wanted)
        if self._awaits_sender:
            self.reason = "the sender process, which reads it, is not connected yet"
            return None
        return self._here(wanted)

    def take_offers(self) -> None:
        """Have the newest page, and close the others."""
        while self._offers:
            try:
                descriptor = self._offers.pop(0)
            except IndexError:  # another thread, where this one ends
                return
            self._awaits_sender = False
            self._close_page()
            if descriptor is not None:
                self._page = GpuPage(descriptor)

    def _choose_in(self, page: GpuPage, wanted: WantedDevice) -> GpuSlot | GpuProbe | None:
        directory = page.directory()
        if directory is None:
            self.is_pending = True
            self.reason = "the sender process has not read it yet"
            return None
        sees_same = directory.scope == self._scope
        if not sees_same and wanted.uuid is None:
            known = self._own_uuid(wanted)
            if known is None:
                return self._here(wanted)
            wanted = known
        if sees_same and not directory.has_driver and _SEARCHED_FIRST not in os.environ:
            # The sender has looked in the same places; to look again would take the GIL.
            self.reason = directory.reason
            return None
        if not directory.has_driver or (directory.reason and not sees_same):
            return self._here(wanted)
        try:
            return self._slot(page, directory, wanted)
        except NoSuchDevice as error:
            if not sees_same:
                return self._here(wanted)
            self.reason = directory.reason or str(error)
            return None

    def _slot(self, page: GpuPage, directory: Directory, wanted: WantedDevice) -> GpuSlot:
        device = find_device(wanted, directory.devices)
        self.reason = device.reason
        return GpuSlot(page, device.slot, directory.generation, self._max_age_ns)

    def _own_uuid(self, wanted: WantedDevice) -> WantedDevice | None:
        """What this process, which may see fewer GPUs than the sender, means by this number."""
        known = self._own_uuids.get(wanted)
        if known is None:
            own = probe(wanted)
            if not own.read():
                return None
            known = self._own_uuids[wanted] = WantedDevice(uuid=own.identity)
        return known

    def _here(self, wanted: WantedDevice) -> GpuProbe:
        found = probe(wanted)
        self.reason = found.reason
        return found

    def close(self) -> None:
        """Let go of the page."""
        self.take_offers()
        self._close_page()

    def _close_page(self) -> None:
        page, self._page = self._page, None
        if page is not None:
            page.close()
