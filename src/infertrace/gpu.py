"""What the GPU is doing, read through NVML (the module `pynvml` of `nvidia-ml-py`)."""

from __future__ import annotations

import threading
import time

from infertrace.green_threads import threads_are_green

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Final, TypedDict

    from infertrace.visible_devices import WantedDevice

    class GpuMetrics(TypedDict, total=False):
        """One reading; a value that could not be read is absent, never 0."""

        gpu_utilization_percent: float
        gpu_memory_used_bytes: int
        gpu_memory_total_bytes: int
        gpu_device_id: str


_READ_TIMEOUT_S: Final = 0.5
_RETRY_AFTER_S: Final = 30.0

_FUNCTIONS: Final = {
    "gpu_utilization_percent": "nvmlDeviceGetUtilizationRates",
    "gpu_memory_used_bytes": "nvmlDeviceGetMemoryInfo",
    "gpu_power_watts": "nvmlDeviceGetPowerUsage",
    "gpu_temperature_celsius": "nvmlDeviceGetTemperature",
}
_METRICS: Final = (
    "gpu_utilization_percent",
    "gpu_memory_used_bytes",
    "gpu_memory_total_bytes",
    "gpu_device_id",
)


def get_gpu_metrics(device_index: int = 0) -> GpuMetrics:
    """Read one GPU: `gpu_utilization_percent` (0 to 100), `gpu_memory_used_bytes`,
    `gpu_memory_total_bytes`, `gpu_device_id` (NVML's UUID).

    `device_index` counts from 0 as NVML does. Returns `{}` when there is no such GPU, no
    driver or no permission, or when NVML takes longer than half a second; a single value
    that the GPU does not offer (the utilization of a MIG slice) is left out. `gpu_reason()`
    says why. Never raises.
    """
    metrics = probe(device_index).read()
    return {name: metrics[name] for name in _METRICS if name in metrics}  # type: ignore[return-value]


def gpu_reason(device_index: int = 0) -> str | None:
    """Why the last reading of that GPU was empty or incomplete; None if it was complete."""
    return probe(device_index).reason


def probe(wanted: WantedDevice | int) -> GpuProbe:
    """The process's one probe of that GPU, which a number names as NVML counts."""
    from infertrace.visible_devices import WantedDevice

    if isinstance(wanted, int):
        wanted = WantedDevice(gpu_index=wanted)
    probe = _probes.get(wanted)
    if probe is None:
        probe = _probes.setdefault(wanted, GpuProbe(wanted))
    return probe


def forget_probes() -> None:
    """Drop all handles, as a forked child must: NVML's belong to its parent."""
    _probes.clear()


class GpuProbe:
    """Holds NVML's handle, and calls NVML on its own thread.

    A call into the driver can hang for seconds; a caller waits half a second at most.
    """

    def __init__(self, wanted: WantedDevice) -> None:
        self.reason: str | None = "not read yet"
        self._wanted = wanted
        self._nvml: Any = None
        self._handle: Any = None
        self.identity = ""
        self._retry_at = 0.0
        self._guard = threading.RLock()
        self._running: threading.Event | None = None
        self._latest: dict[str, float | int | str] = {}

    def prepare(self) -> None:
        """Import pynvml before the first reading, as the import holds the GIL for a while."""
        with self._guard:
            if self._nvml is None:
                self._may_load()

    def read(self, timeout_s: float = _READ_TIMEOUT_S) -> dict[str, float | int | str]:
        """Read now; `{}` if NVML takes longer than `timeout_s`."""
        with self._guard:
            if (self._nvml is None or threads_are_green()) and not self._may_load():
                return {}
            if self._running is None:
                running = threading.Event()
                thread = threading.Thread(
                    target=self._read, args=(running,), name="infertrace-gpu", daemon=True
                )
                self._running = running
                try:
                    thread.start()
                except RuntimeError as error:
                    self._running = None
                    self._give_up(f"no thread to read it on: {error}")
                    return {}
            running = self._running
        if running.wait(timeout_s):
            return self._latest
        self.reason = f"NVML took longer than {timeout_s:g} s to answer"
        return {}

    def addresses(self) -> tuple[int, ...] | None:
        """Addresses: the device; NVML's functions for utilization, memory, power, temperature.

        The recorder's C calls these without the GIL. 0 stands for a value that the last reading
        lacked; None before the first reading.
        """
        nvml, handle, latest = self._nvml, self._handle, self._latest
        if nvml is None or handle is None or not latest:
            return None
        from ctypes import c_void_p, cast

        try:
            return cast(handle, c_void_p).value or 0, *(
                (cast(getattr(nvml.nvmlLib, name), c_void_p).value or 0) if metric in latest else 0
                for metric, name in _FUNCTIONS.items()
            )
        except AttributeError:  # an older driver, or another pynvml
            return None

    def _may_load(self) -> bool:
        """Import pynvml if there is a driver; after a failure, try again after a pause only."""
        if time.monotonic() < self._retry_at:
            return False
        if threads_are_green():
            self._give_up("threads are green (gevent, eventlet): a call to NVML would stop all")
            return False
        from infertrace import nvml

        try:
            self._nvml = nvml.load()
        except (ImportError, OSError) as error:
            self._give_up(f"no NVIDIA driver: {error}")
            return False
        return True

    def _read(self, done: threading.Event) -> None:
        from infertrace.visible_devices import NoSuchDevice

        try:
            self._latest = self._query()
        except NoSuchDevice as error:
            self._latest = {}
            self._give_up(str(error))
        except Exception as error:  # NVMLError, and what an odd driver makes pynvml raise
            self._latest = {}
            self._give_up(f"{type(error).__name__}: {error}")
        finally:
            with self._guard:
                self._running = None
            done.set()

    def _query(self) -> dict[str, float | int | str]:
        from infertrace.nvml import read_device, uuid_of

        nvml = self._nvml
        if self._handle is None:
            nvml.nvmlInit()
            handle = self._find(nvml)
            self.identity = uuid_of(nvml, handle)
            self._handle = handle
        metrics, self.reason = read_device(nvml, self._handle, self.identity)
        return metrics

    def _find(self, nvml: Any) -> Any:
        from infertrace.nvml import find_devices
        from infertrace.visible_devices import find_device

        if self._wanted.gpu_index is not None:
            return nvml.nvmlDeviceGetHandleByIndex(self._wanted.gpu_index)
        return find_device(self._wanted, find_devices(nvml)).handle

    def _give_up(self, reason: str) -> None:
        """Give the handle up, and get a new one later: a lost GPU may come back."""
        self.reason = reason
        self._nvml = self._handle = None
        self._retry_at = time.monotonic() + _RETRY_AFTER_S


_probes: dict[WantedDevice, GpuProbe] = {}
