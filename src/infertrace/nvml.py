"""NVML through the module `pynvml` of `nvidia-ml-py`: which devices there are, what they do.

Each of these calls goes into the driver, and may hang there.
"""

from __future__ import annotations

import sys

from infertrace.named_tuple import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any


class NvmlDevice(NamedTuple):
    """A GPU, or a MIG instance of one; as `visible_devices.Device`."""

    gpu_index: int
    uuid: str
    name: str
    parent: str | None
    instance: tuple[int, int] | None
    handle: Any


def load() -> Any:
    """pynvml, whose import takes a while; raises ImportError or OSError without a driver."""
    if sys.platform == "linux":
        # Without a GPU there is mostly no driver: then skip the import of pynvml, and of ctypes,
        # which holds up the loop of a user by milliseconds.
        from _ctypes import dlopen

        dlopen("libnvidia-ml.so.1")
    import pynvml

    return pynvml


def uuid_of(nvml: Any, handle: Any) -> str:
    """Raises NVMLError."""
    return _text(nvml.nvmlDeviceGetUUID(handle))


def find_devices(nvml: Any) -> list[NvmlDevice]:
    """All GPUs, each followed by its MIG instances; raises NVMLError.

    A GPU that does not answer is left out.
    """
    found: list[NvmlDevice] = []
    for index in range(nvml.nvmlDeviceGetCount()):
        try:
            handle = nvml.nvmlDeviceGetHandleByIndex(index)
            uuid = uuid_of(nvml, handle)
        except nvml.NVMLError:
            continue
        name = _text(_or(nvml, "", nvml.nvmlDeviceGetName, handle))
        found.append(NvmlDevice(index, uuid, name, None, None, handle))
        found += _instances(nvml, found[-1])
    return found


def _instances(nvml: Any, gpu: NvmlDevice) -> Iterator[NvmlDevice]:
    count = _or(nvml, 0, nvml.nvmlDeviceGetMaxMigDeviceCount, gpu.handle)
    for number in range(count):
        try:
            handle = nvml.nvmlDeviceGetMigDeviceHandleByIndex(gpu.handle, number)
            uuid = uuid_of(nvml, handle)
        except nvml.NVMLError:  # no instance has this number
            continue
        ids = _or(nvml, None, _instance_ids, nvml, handle)
        name = _text(_or(nvml, gpu.name, nvml.nvmlDeviceGetName, handle))
        yield NvmlDevice(gpu.gpu_index, uuid, name, gpu.uuid, ids, handle)


def _instance_ids(nvml: Any, handle: Any) -> tuple[int, int]:
    return (
        int(nvml.nvmlDeviceGetGpuInstanceId(handle)),
        int(nvml.nvmlDeviceGetComputeInstanceId(handle)),
    )


def _or(nvml: Any, otherwise: Any, ask: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return ask(*arguments)
    except nvml.NVMLError:
        return otherwise


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value


def read_device(
    nvml: Any, handle: Any, uuid: str
) -> tuple[dict[str, float | int | str], str | None]:
    """What the device does, by the fields of ResourceMetrics, and why values are missing, if any.

    A value that the device does not offer, or that this user may not read, is absent. Raises
    NVMLError where the device cannot be read at all.
    """
    missing: list[str] = []
    absent = (
        nvml.NVMLError_NotSupported,
        nvml.NVMLError_NoPermission,
        nvml.NVMLError_FunctionNotFound,  # an older driver
    )

    def ask(question: Callable[[], Any], what: str) -> Any:
        try:
            return question()
        except absent as error:
            missing.append(f"{what}: {error}")
            return None

    metrics: dict[str, float | int | str] = {"gpu_device_id": uuid}
    rates = ask(lambda: nvml.nvmlDeviceGetUtilizationRates(handle), "utilization")
    memory = ask(lambda: nvml.nvmlDeviceGetMemoryInfo(handle), "memory")
    if rates is not None:
        metrics["gpu_utilization_percent"] = float(rates.gpu)
    if memory is not None:
        metrics["gpu_memory_used_bytes"] = int(memory.used)
        metrics["gpu_memory_total_bytes"] = int(memory.total)
    milliwatts = ask(lambda: nvml.nvmlDeviceGetPowerUsage(handle), "power")
    if milliwatts is not None:
        metrics["gpu_power_watts"] = milliwatts / 1000
    celsius = ask(
        lambda: nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU), "temperature"
    )
    if celsius is not None:
        metrics["gpu_temperature_celsius"] = float(celsius)
    return metrics, "; ".join(missing) or None
