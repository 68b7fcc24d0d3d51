"""Finds the host's GPUs, the one that a traced process reports, and the process that reads them."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from infertrace import nvml
from infertrace.commands.finding import NOTE, OK, Finding
from infertrace.exporting import choice
from infertrace.exporting.log_text import one_line
from infertrace.gpu import probe
from infertrace.visible_devices import own_device

if TYPE_CHECKING:
    from infertrace.configuration import Settings
    from infertrace.visible_devices import Device

_TIMEOUT_S: Final = 5.0
_MAX_SHOWN: Final = 16


def check_gpus(settings: Settings) -> Iterator[Finding]:
    """Which device the process reports, which devices there are, and which process reads them."""
    yield _own(settings)
    yield _devices()
    yield Finding("GPU, read by", *_reader(settings))


def _own(settings: Settings) -> Finding:
    wanted = own_device(settings.gpu_device_index, os.environ)
    if wanted.nothing is not None:
        return Finding("GPU", NOTE, f"spans carry no GPU metrics: {wanted.nothing}")
    found = probe(wanted)
    metrics = found.read()
    if not metrics:
        return Finding("GPU", NOTE, f"spans carry no GPU metrics: {found.reason}")
    shown = ", ".join(f"{name} {value}" for name, value in metrics.items())
    return Finding(
        "GPU", NOTE if found.reason else OK, "; ".join(filter(None, (shown, found.reason)))
    )


def _reader(settings: Settings) -> tuple[str, str]:
    if not settings.resource_interval_s:
        return NOTE, "nobody: resource_interval_s is 0"
    if choice.can_hand_over(settings):
        who = "the agent" if settings.agent is not None else "the shared sender process"
        return OK, f"{who}, for all its clients"
    return OK, "each traced process"


def _devices() -> Finding:
    found: list[str] = []

    def look() -> None:
        try:
            loaded = nvml.load()
            loaded.nvmlInit()
            found.append("; ".join(describe_devices(nvml.find_devices(loaded))) or "none")
        except (ImportError, OSError) as error:
            found.append(f"none: no NVIDIA driver: {error}")
        except Exception as error:  # NVMLError, and what an odd driver makes pynvml raise
            found.append(f"none: {type(error).__name__}: {error}")

    # A call into the driver can hang.
    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    thread.join(_TIMEOUT_S)
    detail = found[0] if found else f"NVML takes longer than {_TIMEOUT_S:g} s to answer"
    return Finding("GPU, devices", NOTE if detail.startswith(("none", "NVML")) else OK, detail)


def describe_devices(devices: Sequence[Device]) -> Iterator[str]:
    """A text for each."""
    for device in devices[:_MAX_SHOWN]:
        kind = "GPU" if device.parent is None else "MIG instance of GPU"
        yield f"{kind} {device.gpu_index} {one_line(device.name)} {one_line(device.uuid)}"
    if len(devices) > _MAX_SHOWN:
        yield f"{len(devices) - _MAX_SHOWN} more"


def describe_readings(status: Mapping[str, Any]) -> Iterator[str]:
    """What a sender process says of the GPUs that it reads."""
    if not status["clients"]:
        return
    count = sum(device["parent"] is None for device in status["devices"])
    instances = len(status["devices"]) - count
    what = f"{count} GPUs" + (f" and {instances} MIG instances" if instances else "")
    yield f"reads {what} every {status['interval_s']:g} s for {status['clients']} clients"
    if status["reason"]:
        yield f"no GPU is read: {one_line(status['reason'])}"
    if status["hangs_for_s"]:
        yield f"NVML has not answered for {status['hangs_for_s']:.0f} s"
    for device in status["devices"]:
        if device["reason"]:
            yield f"{one_line(device['uuid'])}: {one_line(device['reason'])}"
