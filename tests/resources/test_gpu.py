"""The GPU through the real pynvml: on a fake driver in every condition, on a real one if any."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

READ_TWICE = """
import json, time
import infertrace
from infertrace.gpu import gpu_reason
began = time.monotonic()
first = infertrace.get_gpu_metrics()
took = time.monotonic() - began
second = infertrace.get_gpu_metrics(device_index=0)
print(json.dumps({"first": first, "second": second, "reason": gpu_reason(), "took": took,
                  "absent": infertrace.get_gpu_metrics(device_index=1)}))
"""

TRACE_ONE = """
import json, sys, time
from infertrace.testing import SpanRecorder
recorder = SpanRecorder()
recorder.tracer.configure(resource_interval_s=0.05)
def resources():
    recorder.clear()
    with recorder.tracer.start_span("m"):
        pass
    return recorder.one().resources
until = time.monotonic() + 20
while not resources() and time.monotonic() < until:
    time.sleep(0.01)
time.sleep(float(sys.argv[1]))
print(json.dumps(resources()))
recorder.close()
"""


def has_real_driver() -> bool:
    try:
        ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return False
    return True


def run(code: str, *arguments: str, driver: Path | None, role: str = "healthy", **env: str) -> Any:
    environ = {**os.environ, "FAKE_NVML": role, **env}
    if driver is not None:
        environ["LD_LIBRARY_PATH"] = str(driver.parent)
    outcome = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *arguments],
        env=environ, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert outcome.returncode == 0, outcome.stderr
    return json.loads(outcome.stdout)


@pytest.mark.parametrize("which", ["fake", *(["real"] if has_real_driver() else [])])
def test_a_healthy_gpu(fake_driver: Path, which: str) -> None:
    found = run(READ_TWICE, driver=fake_driver if which == "fake" else None)
    for metrics in (found["first"], found["second"]):
        assert set(metrics) == {
            "gpu_utilization_percent",
            "gpu_memory_used_bytes",
            "gpu_memory_total_bytes",
            "gpu_device_id",
        }
        assert 0 <= metrics["gpu_utilization_percent"] <= 100
        assert 0 <= metrics["gpu_memory_used_bytes"] <= metrics["gpu_memory_total_bytes"]
        assert metrics["gpu_device_id"].startswith("GPU-")


def test_values_and_units(fake_driver: Path) -> None:
    found = run(READ_TWICE, driver=fake_driver)
    assert found["first"] == {
        "gpu_utilization_percent": 0.0,
        "gpu_memory_used_bytes": 30 << 30,
        "gpu_memory_total_bytes": 80 << 30,
        "gpu_device_id": "GPU-5f0c7a52-fake",
    }
    assert found["absent"] == {}
    assert found["reason"] is None


def test_a_mig_slice_has_memory_but_no_utilization(fake_driver: Path) -> None:
    found = run(READ_TWICE, driver=fake_driver, role="mig")
    assert found["first"]["gpu_memory_used_bytes"] == 30 << 30
    assert "gpu_utilization_percent" not in found["first"]
    assert "utilization" in found["reason"]


def test_no_permission(fake_driver: Path) -> None:
    found = run(READ_TWICE, driver=fake_driver, role="no_permission")
    assert set(found["first"]) == {"gpu_device_id"}
    assert "utilization" in found["reason"]
    assert "memory" in found["reason"]


@pytest.mark.parametrize(
    ("role", "reason"),
    [
        ("lost", "GpuIsLost"),
        ("no_device", "NotFound"),
        ("mismatch", "LibRmVersionMismatch"),
        ("slow", "NVML took longer than 0.5 s"),
    ],
)
def test_a_gpu_that_cannot_be_read_is_absent_with_a_reason(
    fake_driver: Path, role: str, reason: str
) -> None:
    found = run(READ_TWICE, driver=fake_driver, role=role)
    assert found["first"] == {}
    assert found["second"] == {}
    assert reason in found["reason"]


def test_who_asks_a_hung_driver_is_not_held(fake_driver: Path) -> None:
    """The slow driver takes 5 s for one reading; the caller's bound is half a second."""
    assert run(READ_TWICE, driver=fake_driver, role="slow")["took"] < 4


def test_no_driver(tmp_path: Path) -> None:
    if has_real_driver():
        return  # then the other tests have shown the opposite
    found = run(READ_TWICE, driver=None)
    assert found["first"] == found["second"] == {}
    assert "no NVIDIA driver" in found["reason"]


def test_the_span_carries_the_snapshot(fake_driver: Path, backend: Any) -> None:
    found = run(TRACE_ONE, "0.2", driver=fake_driver, INFERTRACE_BACKEND=backend.NAME)
    assert found["gpu_utilization_percent"] == 0.0
    assert found["gpu_memory_used_bytes"] == 30 << 30
    assert found["gpu_memory_total_bytes"] == 80 << 30
    assert found["gpu_device_id"] == "GPU-5f0c7a52-fake"
    assert found["gpu_power_watts"] == 350.5
    assert found["gpu_temperature_celsius"] == 61
    assert found["memory_heap_bytes"] > 1 << 20
    assert found["cpu_utilization_percent"] >= 0
    assert found["sample_age_ms"] >= 0


@pytest.mark.parametrize("role", ["slow", "lost"])
def test_the_span_is_the_same_without_a_gpu(fake_driver: Path, backend: Any, role: str) -> None:
    found = run(TRACE_ONE, "0", driver=fake_driver, role=role, INFERTRACE_BACKEND=backend.NAME)
    assert not [name for name in found if name.startswith("gpu")]
    assert found["memory_heap_bytes"] > 1 << 20


TRACE_UNTIL_IT_IS_GONE = """
import json, os, sys, time
from infertrace.testing import SpanRecorder
recorder = SpanRecorder()
recorder.tracer.configure(resource_interval_s=0.02)
def resources():
    recorder.clear()
    with recorder.tracer.start_span("m"):
        pass
    return recorder.one().resources
def wait_for(gpu):
    until = time.monotonic() + 20
    while ("gpu_device_id" in resources()) is not gpu and time.monotonic() < until:
        time.sleep(0.01)
    return sorted(resources())
before = wait_for(True)
time.sleep(0.2)
later = sorted(resources())
os.environ["FAKE_NVML"] = sys.argv[1]
print(json.dumps([before, later, wait_for(False)]))
sys.stdout.flush()
os._exit(0)  # not the exit's business: the driver hangs
"""


@pytest.mark.parametrize("role", ["slow", "lost"])
def test_a_gpu_that_goes_leaves_the_rest(fake_driver: Path, backend: Any, role: str) -> None:
    before, later, after = run(
        TRACE_UNTIL_IT_IS_GONE, role, driver=fake_driver, INFERTRACE_BACKEND=backend.NAME
    )
    assert before == later
    assert {"gpu_utilization_percent", "gpu_memory_used_bytes", "gpu_power_watts"} < set(before)
    assert [name for name in before if not name.startswith("gpu")] == after
    assert "memory_heap_bytes" in after


def test_without_a_thread_to_read_on(fake_driver: Path) -> None:
    """It answers at once, with a reason, and reads again once a thread can start."""
    code = """
import json, threading, time
import infertrace
from infertrace import gpu
from infertrace.gpu import gpu_reason
gpu._RETRY_AFTER_S = 0.0
def refuse(thread):
    raise RuntimeError("can't start new thread")
start, threading.Thread.start = threading.Thread.start, refuse
without = [infertrace.get_gpu_metrics(), gpu_reason(), infertrace.get_gpu_metrics()]
threading.Thread.start = start
print(json.dumps([without, bool(infertrace.get_gpu_metrics())]))
"""
    without, again = run(code, driver=fake_driver)
    assert without == [{}, "no thread to read it on: can't start new thread", {}]
    assert again
