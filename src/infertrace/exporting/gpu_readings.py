"""The readings of a host's GPUs that a sender process takes, once an interval for all its clients.

On a thread of their own, since a call into the driver can hang: it holds up nobody but those who
want to know what the GPUs do.
"""

from __future__ import annotations

import contextlib
import threading
import time
from typing import TYPE_CHECKING, Any, Final

from infertrace import nvml
from infertrace.recording.encoder import resource_metrics
from infertrace.resources.gpu_page import (
    MAX_DEVICES,
    Directory,
    GpuPageWriter,
    Reading,
    device_scope,
    listed,
)
from infertrace.resources.gpu_source import LONGEST_INTERVAL_S, SHORTEST_INTERVAL_S

if TYPE_CHECKING:
    from collections.abc import Hashable
    from typing import TypeAlias

    from infertrace.nvml import NvmlDevice

    Metrics: TypeAlias = dict[str, float | int | str]

# There may be others then: a GPU was lost, or MIG instances were made.
_LOOK_AGAIN_S: Final = 30.0
# More than that of the sender's other threads: the driver's code is not ours.
_STACK_BYTES: Final = 4 * 1024 * 1024
# For clients that come and go: to open NVML takes a while.
_LINGER_S: Final = 5.0
_SLOW_S: Final = 1.0
# What goes before the fields of the process; the others go after them.
_BEFORE: Final = (
    "gpu_utilization_percent",
    "gpu_memory_used_bytes",
    "gpu_memory_total_bytes",
    "gpu_device_id",
)
_NOT_READ: Final = Directory(0, "", has_driver=True, reason=None, devices=())


class GpuReadings:
    """Of all GPUs and their MIG instances, while a client wants them. For any number of threads."""

    def __init__(self) -> None:
        self._page = GpuPageWriter.open()
        self._lock = threading.Condition()
        self._intervals_s: dict[Hashable, float] = {}
        self._idle_since_s = 0.0
        self._thread: threading.Thread | None = None
        self._driver = _Driver()
        self._directory = _NOT_READ
        self._begun_s: float | None = None
        """When the round began that has not ended."""

    @property
    def descriptor(self) -> int | None:
        """Of the page in which they are; None where there can be none."""
        return None if self._page is None else self._page.descriptor

    def want(self, client: Hashable, interval_s: float) -> None:
        """Read at this client's interval, if no other's is shorter, until it leaves."""
        if self._page is None or not interval_s > 0:
            self.leave(client)
            return
        with self._lock:
            self._intervals_s[client] = min(
                max(interval_s, SHORTEST_INTERVAL_S), LONGEST_INTERVAL_S
            )
            self._lock.notify_all()
            if self._thread is None:
                self._start()

    def leave(self, client: Hashable) -> None:
        """This client wants none any more."""
        with self._lock:
            if self._intervals_s.pop(client, None) is not None:
                self._idle_since_s = time.monotonic()
                self._lock.notify_all()

    def _start(self) -> None:
        thread = threading.Thread(target=self._run, name="gpus", daemon=True)
        others = threading.stack_size(_STACK_BYTES)
        try:
            thread.start()
        except RuntimeError as error:
            self._describe(Directory(0, device_scope(), False, f"no thread for it: {error}", ()))
        else:
            self._thread = thread
        finally:
            threading.stack_size(others)

    def _run(self) -> None:
        while self._wait_until_due():
            self._begun_s = time.monotonic()
            try:
                self._read_all()
            except Exception as error:  # nobody foresaw it; the next round may fare better
                reason = f"{type(error).__name__}: {error}"
                self._describe(self._directory._replace(reason=reason, devices=()))
            self._begun_s = None

    def _wait_until_due(self) -> bool:
        """False where the thread is to end, since nobody wants it any more."""
        with self._lock:
            while self._intervals_s or self._driver.is_open:
                left_s = self._due_s() - time.monotonic()
                if left_s <= 0:
                    return True
                self._lock.wait(left_s)
            self._thread = None
            return False

    def _due_s(self) -> float:
        """When to read, or, where nobody wants it, to close NVML."""
        if not self._intervals_s:
            return self._idle_since_s + _LINGER_S
        return self._driver.read_at_s + min(self._intervals_s.values())

    def _read_all(self) -> None:
        if not self._intervals_s:
            # Not under the lock, since this may hang too. The host may do with its GPUs what it
            # likes then.
            self._driver.close()
            return
        directory = self._driver.look(self._directory)
        devices = []
        readings = self._driver.read()
        for device, (metrics, reason) in zip(directory.devices, readings, strict=False):
            devices.append(device._replace(reason=reason))
            if metrics:
                self._put(directory.generation, device.slot, metrics)
        if devices:
            directory = directory._replace(devices=tuple(devices))
        if directory != self._directory:
            self._describe(directory)

    def _put(self, generation: int, slot: int, metrics: Metrics) -> None:
        before = {name: value for name, value in metrics.items() if name in _BEFORE}
        after = {name: value for name, value in metrics.items() if name not in _BEFORE}
        encoded = resource_metrics(before), resource_metrics(after)
        if self._page is not None:
            self._page.put(slot, Reading(generation, time.monotonic_ns(), *encoded))

    def _describe(self, directory: Directory) -> None:
        self._directory = directory
        if self._page is not None:
            self._page.describe(directory)

    def status(self) -> dict[str, Any]:
        """What `infertrace doctor` shows of it."""
        with self._lock:
            intervals_s = list(self._intervals_s.values())
        begun_s = self._begun_s
        taken_s = 0.0 if begun_s is None else time.monotonic() - begun_s
        return {
            "clients": len(intervals_s),
            "interval_s": min(intervals_s, default=None),
            "reason": self._directory.reason
            if self.descriptor is not None
            else "there is no memory that clients cannot write to",
            "hangs_for_s": taken_s if taken_s > _SLOW_S else None,
            "devices": [device._asdict() for device in self._directory.devices],
        }


class _Driver:
    """NVML, for the thread that reads."""

    def __init__(self) -> None:
        self._nvml: Any = None
        self._devices: list[NvmlDevice] = []
        self._look_at_s = 0.0
        self.read_at_s = float("-inf")
        """When the last round began."""

    @property
    def is_open(self) -> bool:
        return self._nvml is not None

    def look(self, known: Directory) -> Directory:
        """What devices there are; looks from time to time, and opens NVML where it is not."""
        self.read_at_s = now = time.monotonic()
        if now < self._look_at_s:
            return known
        self._look_at_s = now + _LOOK_AGAIN_S
        try:
            if self._nvml is None:
                loaded = nvml.load()
                loaded.nvmlInit()
                self._nvml = loaded
            devices = nvml.find_devices(self._nvml)[:MAX_DEVICES]
        except (ImportError, OSError) as error:
            return self._lack(known, False, f"no NVIDIA driver: {error}")
        except Exception as error:  # NVMLError, and what an odd driver makes pynvml raise
            return self._lack(known, True, f"{type(error).__name__}: {error}")
        self._devices = devices
        if known.reason is None and [it[:5] for it in devices] == [it[:5] for it in known.devices]:
            return known
        found = listed(devices)  # the first time, or others
        reason = None if found else "there is no GPU"
        return Directory(known.generation + 1, device_scope(), True, reason, found)

    def _lack(self, known: Directory, has_driver: bool, reason: str) -> Directory:
        self._close()
        return Directory(known.generation + 1, device_scope(), has_driver, reason, ())

    def read(self) -> list[tuple[Metrics, str | None]]:
        """Of each device what it does, and why values are missing, if any; none while NVML is not
        open."""
        found: list[tuple[Metrics, str | None]] = []
        for device in self._devices:
            try:
                found.append(nvml.read_device(self._nvml, device.handle, device.uuid))
            except Exception as error:  # as above
                found.append(({}, f"{type(error).__name__}: {error}"))
        if not any(metrics for metrics, _ in found):
            # The handles may be of no more use; opened again at the next look.
            self._close()
        return found

    def close(self) -> None:
        """Until `look`."""
        self._close()
        self._look_at_s = 0.0

    def _close(self) -> None:
        loaded, self._nvml = self._nvml, None
        self._devices = []
        if loaded is not None:
            with contextlib.suppress(Exception):
                loaded.nvmlShutdown()
