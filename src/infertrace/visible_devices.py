"""Which GPU of the host is a process's own.

Source: CUDA C++ Programming Guide, "CUDA Environment Variables". Its first device is the first
entry of CUDA_VISIBLE_DEVICES; one that is not valid hides all that follow.
"""

from __future__ import annotations

from infertrace.named_tuple import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Final, Protocol, TypeVar

    DeviceT = TypeVar("DeviceT", bound="Device")
else:
    Protocol = object

VISIBLE_VARIABLE: Final = "CUDA_VISIBLE_DEVICES"
ORDER_VARIABLE: Final = "CUDA_DEVICE_ORDER"
_MAX_INDEX: Final = 1023
# As `nvidia-smi -L` shows them, or the beginning of one.
_GPU: Final = r"gpu-[0-9a-f-]*[0-9a-f]"
# The second is how drivers before 470 name an instance: its GPU, GPU instance, compute instance.
_MIG: Final = r"mig-[0-9a-f][0-9a-f-]*"
_OLD_MIG: Final = r"mig-(gpu-[0-9a-f-]*[0-9a-f])/([0-9]{1,4})/([0-9]{1,4})"


class WantedDevice(NamedTuple):
    """How a device is named; one of these, or `nothing`."""

    gpu_index: int | None = None
    """As NVML counts GPUs: in the order of their PCI addresses."""
    ordinal: int | None = None
    """As CUDA counts them: the fastest first."""
    uuid: str | None = None
    """The UUID of a GPU or of a MIG instance, or its beginning."""
    instance: tuple[int, int] | None = None
    """With the GPU's `uuid`: the ids of the GPU instance and of its compute instance."""
    nothing: str | None = None
    """Why the process has none."""


class Device(Protocol):
    """A GPU, or a MIG instance of one."""

    @property
    def gpu_index(self) -> int:
        """Of the GPU, as NVML counts."""

    @property
    def uuid(self) -> str: ...
    @property
    def name(self) -> str:
        """Of the model; empty where NVML does not say it."""

    @property
    def parent(self) -> str | None:
        """The UUID of the GPU of which this is an instance."""

    @property
    def instance(self) -> tuple[int, int] | None: ...


class NoSuchDevice(LookupError):
    """Why none of the devices, or not only one of them, can be meant."""


def own_device(given_index: int | None, environ: Mapping[str, str]) -> WantedDevice:
    """The device of a process with these variables; `given_index` goes before them."""
    if given_index is not None:
        return WantedDevice(gpu_index=given_index)
    visible = environ.get(VISIBLE_VARIABLE)
    if visible is None:
        return WantedDevice(gpu_index=0)
    found = _first(visible)
    if found.ordinal is not None and environ.get(ORDER_VARIABLE) == "PCI_BUS_ID":
        return WantedDevice(gpu_index=found.ordinal)
    return found


def _first(visible: str) -> WantedDevice:
    import re  # slow to load, and for few programs

    entry = visible.partition(",")[0].strip().lower()
    if re.fullmatch(r"[0-9]{1,4}", entry) and int(entry) <= _MAX_INDEX:
        return WantedDevice(ordinal=int(entry))
    if old := re.fullmatch(_OLD_MIG, entry):
        return WantedDevice(uuid=old[1], instance=(int(old[2]), int(old[3])))
    if re.fullmatch(_GPU, entry) or re.fullmatch(_MIG, entry):
        return WantedDevice(uuid=entry)
    return WantedDevice(nothing=f"{VISIBLE_VARIABLE} hides all GPUs from this process")


def find_device(wanted: WantedDevice, devices: Sequence[DeviceT]) -> DeviceT:
    """The one that is meant, of all devices; raises NoSuchDevice."""
    if wanted.nothing is not None:
        raise NoSuchDevice(wanted.nothing)
    if wanted.uuid is not None:
        return _by_uuid(wanted.uuid, wanted.instance, devices)
    gpus = [device for device in devices if device.parent is None]
    index = wanted.gpu_index
    if index is None:
        # CUDA leaves open where one that is not the fastest comes; among equal ones it is NVML's.
        if len({gpu.name for gpu in gpus}) > 1:
            raise NoSuchDevice(
                f"{VISIBLE_VARIABLE} names a GPU by its number, and CUDA counts GPUs of different "
                f"models in an unknown order: expected {ORDER_VARIABLE}=PCI_BUS_ID, or a UUID"
            )
        index = wanted.ordinal
    for gpu in gpus:
        if gpu.gpu_index == index:
            return gpu
    raise NoSuchDevice(f"there is no GPU {index}, but {len(gpus)}, counted from 0")


def _by_uuid(uuid: str, instance: tuple[int, int] | None, devices: Sequence[DeviceT]) -> DeviceT:
    if instance is None:
        found = [device for device in devices if device.uuid.lower().startswith(uuid.lower())]
        shown = uuid
    else:
        found = [
            device
            for device in devices
            if device.instance == instance
            and (device.parent or "").lower().startswith(uuid.lower())
        ]
        shown = f"MIG-{uuid}/{instance[0]}/{instance[1]}"
    if len(found) != 1:
        raise NoSuchDevice(f"{len(found)} devices here are named {shown}, not one")
    return found[0]
