"""NVML with one GPU that always reads the same, for a machine that has none."""

from types import SimpleNamespace

NVML_TEMPERATURE_GPU = 0
NVML_SUCCESS = 0


class NVMLError(Exception):
    pass


class NVMLError_NotSupported(NVMLError):  # noqa: N801
    pass


def nvmlInit():  # noqa: N802
    pass


def nvmlShutdown():  # noqa: N802
    pass


def nvmlDeviceGetCount():  # noqa: N802
    return 1


def nvmlDeviceGetHandleByIndex(index):  # noqa: N802
    return index


def nvmlDeviceGetUUID(handle):  # noqa: N802
    return "GPU-00000000-1111-2222-3333-444444444444"


def nvmlDeviceGetUtilizationRates(handle):  # noqa: N802
    return SimpleNamespace(gpu=87, memory=40)


def nvmlDeviceGetMemoryInfo(handle):  # noqa: N802
    return SimpleNamespace(total=80 * 2**30, used=16 * 2**30, free=64 * 2**30)


def nvmlDeviceGetPowerUsage(handle):  # noqa: N802
    return 312_500


def nvmlDeviceGetTemperature(handle, sensor):  # noqa: N802
    return 61
