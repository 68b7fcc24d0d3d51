"""Which GPU is a process's own, by the variables of CUDA."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infertrace.nvml import NvmlDevice
from infertrace.visible_devices import NoSuchDevice, WantedDevice, find_device, own_device

FIRST = "GPU-5f0c7a52-0000-4106-c12f-20bd9faed9f6"
SECOND = "GPU-5f0c8a52-0000-4106-c12f-20bd9faed9f6"
INSTANCE = "MIG-1a7c0a52-0000-4106-c12f-20bd9faed9f6"
OTHER = "MIG-1a7c0b52-0000-4106-c12f-20bd9faed9f6"
HOST = [
    NvmlDevice(0, FIRST, "A", None, None, None),
    NvmlDevice(0, INSTANCE, "A MIG", FIRST, (7, 0), None),
    NvmlDevice(0, OTHER, "A MIG", FIRST, (8, 0), None),
    NvmlDevice(1, SECOND, "A", None, None, None),
]
MIXED = [HOST[0], NvmlDevice(1, SECOND, "B", None, None, None)]


def own(visible: str | None, devices: Sequence[NvmlDevice] = HOST, **environ: str) -> str:
    if visible is not None:
        environ["CUDA_VISIBLE_DEVICES"] = visible
    return find_device(own_device(None, environ), devices).uuid


@pytest.mark.parametrize(
    ("visible", "uuid"),
    [
        (None, FIRST),
        ("0", FIRST),
        ("1", SECOND),
        ("1,0", SECOND),
        (" 1 , 0", SECOND),
        ("1,-1,0", SECOND),
        ("1,nonsense", SECOND),
        (SECOND, SECOND),
        (SECOND.upper().replace("GPU", "gpu"), SECOND),
        ("GPU-5f0c8", SECOND),
        (INSTANCE, INSTANCE),
        ("MIG-1a7c0b", OTHER),
        (f"MIG-{FIRST}/8/0", OTHER),
        (f"MIG-{FIRST}/7/0,{OTHER}", INSTANCE),
    ],
)
def test_the_first_visible_device(visible: str | None, uuid: str) -> None:
    assert own(visible) == uuid


@pytest.mark.parametrize(
    "visible", ["", "-1", "-1,0", ",0", "NoDevFiles", "none", "0x1", "1.5", "GPU-"]
)
def test_none_is_visible(visible: str) -> None:
    wanted = own_device(None, {"CUDA_VISIBLE_DEVICES": visible})
    assert wanted == WantedDevice(nothing="CUDA_VISIBLE_DEVICES hides all GPUs from this process")
    with pytest.raises(NoSuchDevice, match="hides all"):
        find_device(wanted, HOST)


@pytest.mark.parametrize(
    ("visible", "reason"),
    [
        ("2", "there is no GPU 2, but 2, counted from 0"),
        ("GPU-5f0c", "2 devices here are named gpu-5f0c, not one"),
        ("GPU-ffff", "0 devices here are named gpu-ffff"),
        (f"MIG-{FIRST}/9/0", "0 devices here are named MIG-"),
    ],
)
def test_no_such_device(visible: str, reason: str) -> None:
    with pytest.raises(NoSuchDevice, match=reason):
        own(visible)


def test_what_is_given_goes_before_the_variable() -> None:
    wanted = own_device(1, {"CUDA_VISIBLE_DEVICES": "0"})
    assert find_device(wanted, HOST).uuid == SECOND
    assert find_device(own_device(0, {"CUDA_VISIBLE_DEVICES": "-1"}), HOST).uuid == FIRST


def test_numbers_of_different_models_are_nvmls_only_in_its_order() -> None:
    with pytest.raises(NoSuchDevice, match="CUDA_DEVICE_ORDER=PCI_BUS_ID"):
        own("1", MIXED)
    assert own("1", MIXED, CUDA_DEVICE_ORDER="PCI_BUS_ID") == SECOND
    assert own("GPU-5f0c8", MIXED) == SECOND
    assert own(None, MIXED) == FIRST


entries = st.one_of(
    st.integers(-3, 2000).map(str),
    st.sampled_from([FIRST, SECOND, INSTANCE, FIRST[:9], f"MIG-{FIRST}/7/0", "", "all", " 0"]),
    st.text(max_size=8),
)


@given(st.lists(entries, max_size=4).map(",".join))
def test_any_text_names_a_device_of_the_host_or_says_why_not(visible: str) -> None:
    wanted = own_device(None, {"CUDA_VISIBLE_DEVICES": visible})
    assert sum(value is not None for value in wanted[:3]) + (wanted.nothing is not None) == 1
    # Only the first entry counts.
    first = visible.partition(",")[0]
    assert wanted == own_device(None, {"CUDA_VISIBLE_DEVICES": first})
    found = None
    with contextlib.suppress(NoSuchDevice):
        found = find_device(wanted, HOST)
    assert found in (None, *HOST)
    if wanted.nothing is not None:
        assert found is None


@given(st.integers(0, 1023), st.lists(entries, max_size=3))
def test_a_number_is_that_number(number: int, others: list[str]) -> None:
    visible = ",".join([str(number), *others])
    assert own_device(None, {"CUDA_VISIBLE_DEVICES": visible}) == WantedDevice(ordinal=number)
    ordered = {"CUDA_VISIBLE_DEVICES": visible, "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    assert own_device(None, ordered) == WantedDevice(gpu_index=number)
