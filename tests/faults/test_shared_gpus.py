"""The sender process reads the GPUs for all its clients; it is killed, and its driver hangs."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agent_process import AgentProcess
from grpc_receiver import Receiver
from infertrace.exporting import host_sender
from traced_program import has_ended, run_program, start_program, wait_until

CLIENTS = 4
TRACE_UNTIL_TOLD = """
    import json, os, sys, time
    tracer = infertrace.Tracer("{endpoint}", service_name="{name}", exit_timeout_s=60, {settings})
    while not os.path.exists("{stop}"):
        tracer.start_span("m", tags={{"pid": str(os.getpid())}}).end()
        time.sleep(0.02)
    print(json.dumps(["pynvml" in sys.modules, tracer.shutdown(60), tracer.stats()]))
"""


@pytest.fixture
def calls(
    fake_driver: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sender_directory: Path
) -> Callable[[], list[int]]:
    """The processes that have read the first GPU, once for each reading; with a minus, those that
    have let go of NVML. Senders are the test's
    own: those of other tests have another driver."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(sender_directory / tmp_path.name[-8:]))
    (sender_directory / tmp_path.name[-8:]).mkdir(0o700, exist_ok=True)
    monkeypatch.setenv("LD_LIBRARY_PATH", str(fake_driver.parent))
    monkeypatch.setenv("FAKE_NVML_GPUS", "3")
    monkeypatch.setenv("FAKE_NVML_MIG", "2")
    path = tmp_path / "calls"
    monkeypatch.setenv("FAKE_NVML_CALLS", str(path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return lambda: [int(line) for line in path.read_text().split()] if path.exists() else []


@pytest.fixture
def new_client(
    backend: Any, receiver: Receiver, tmp_path: Path, calls: Callable[[], list[int]]
) -> Iterator[Callable[..., str]]:
    """Starts programs that trace until the test's end, and returns their names."""
    started: list[Any] = []
    stop = tmp_path / "stop"

    def start(settings: str = "") -> str:
        name = f"client-{len(started)}"
        body = TRACE_UNTIL_TOLD.format(
            endpoint=receiver.endpoint, name=name, settings=settings, stop=stop
        )
        started.append(start_program(backend, body))
        return name

    yield start
    stop.touch()
    for process in started:
        said, _ = process.communicate(timeout=120)
        assert '"pending": 0' in said
        assert '"dropped": {}' in said


def gpus(receiver: Receiver, name: str, since: int = 0) -> list[str]:
    """The GPU of each span of this service: its UUID, or nothing."""
    return [
        span.resources.gpu_device_id
        for span in list(receiver.spans)[since:]
        if span.service_name == name and span.HasField("resources")
    ]


def wait_for_gpu(receiver: Receiver, *names: str, uuid: str = "GPU-5f0c7a52-fake") -> None:
    """In spans that come from now on."""
    since = len(receiver.spans)
    wait_until(lambda: all(uuid in gpus(receiver, name, since) for name in names))


def sender_of(receiver: Receiver, calls: Callable[[], list[int]]) -> int:
    """The one that reads, and no process that traces."""
    (reader,) = set(calls())
    assert str(reader) not in {dict(span.tags).get("pid") for span in receiver.spans}
    return reader


def test_one_process_reads_for_all(
    new_client: Callable[..., str], receiver: Receiver, calls: Callable[[], list[int]]
) -> None:
    names = [new_client() for _ in range(CLIENTS)]
    wait_for_gpu(receiver, *names)
    began, before = time.monotonic(), len(calls())
    wait_until(lambda: len(calls()) >= before + 3)
    # A slow machine makes them fewer.
    assert len(calls()) - before <= time.monotonic() - began + 1
    sender_of(receiver, calls)


def test_the_shortest_interval_counts_within_bounds(
    new_client: Callable[..., str], receiver: Receiver, calls: Callable[[], list[int]]
) -> None:
    def interval_s() -> float:
        (place,) = host_sender.find_senders()
        found: float = json.loads(str(host_sender.ask_status(place)))["gpus"]["interval_s"]
        return found

    wait_for_gpu(receiver, new_client("resource_interval_s=60"))
    assert interval_s() == 1
    wait_for_gpu(receiver, new_client("resource_interval_s=0.3"))
    assert interval_s() == 0.3
    wait_for_gpu(receiver, new_client("resource_interval_s=0.02"))
    assert interval_s() == 0.1


def test_a_span_carries_what_it_carried(
    new_client: Callable[..., str], receiver: Receiver, calls: Callable[[], list[int]]
) -> None:
    shared, own = new_client(), new_client("sender_process='own'")
    wait_for_gpu(receiver, shared, own)
    values = {}
    for span in receiver.spans:
        if span.resources.gpu_device_id:
            values[span.service_name] = {
                field.name: value
                for field, value in span.resources.ListFields()
                if field.name.startswith("gpu")
            } | {"names": [field.name for field, _ in span.resources.ListFields()]}
    assert values[shared] == values[own]
    assert "gpu_power_watts" in values[own]
    assert "sample_age_ms" in values[own]["names"]
    assert len(set(calls())) == 2


@pytest.mark.parametrize(
    ("visible", "settings", "uuid"),
    [
        ("2,0", "", "GPU-20000000-fake"),
        ("GPU-1000", "", "GPU-10000000-fake"),
        ("MIG-1", "", "MIG-10000000-fake"),
        ("MIG-GPU-5f0c7a52/7/0", "", "MIG-00000000-fake"),
        ("", "", ""),
        ("", "gpu_device_index=1", "GPU-10000000-fake"),
    ],
)
def test_its_own_device(
    new_client: Callable[..., str],
    receiver: Receiver,
    calls: Callable[[], list[int]],
    monkeypatch: pytest.MonkeyPatch,
    visible: str,
    settings: str,
    uuid: str,
) -> None:
    other = new_client()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    name = new_client(settings)
    wait_for_gpu(receiver, other)
    wait_for_gpu(receiver, name, uuid=uuid)
    assert set(gpus(receiver, name)) <= {uuid, ""}
    sender_of(receiver, calls)
    for span in receiver.spans:
        if span.resources.gpu_device_id.startswith("MIG"):
            present = {field.name for field, _ in span.resources.ListFields()}
            assert "gpu_memory_used_bytes" in present
            assert not present & {"gpu_utilization_percent", "gpu_power_watts"}


def test_without_permission_values_are_absent(
    new_client: Callable[..., str],
    receiver: Receiver,
    calls: Callable[[], list[int]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FAKE_NVML", "no_permission")
    wait_for_gpu(receiver, new_client())
    for span in receiver.spans:
        names = {field.name for field, _ in span.resources.ListFields()}
        assert {name for name in names if name.startswith("gpu")} <= {"gpu_device_id"}


def test_a_killed_sender_is_followed_by_one_that_reads(
    new_client: Callable[..., str], receiver: Receiver, calls: Callable[[], list[int]]
) -> None:
    names = [new_client() for _ in range(2)]
    wait_for_gpu(receiver, *names)
    first = sender_of(receiver, calls)
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: has_ended(first) and calls()[-1] != first)
    wait_for_gpu(receiver, *names)
    assert len(set(calls())) == 2


def test_a_process_reads_itself_where_no_sender_can_be_shared_any_more(
    new_client: Callable[..., str], receiver: Receiver, calls: Callable[[], list[int]]
) -> None:
    name = new_client()
    wait_for_gpu(receiver, name)
    first = sender_of(receiver, calls)
    directory = Path(os.environ["XDG_RUNTIME_DIR"]) / "infertrace"
    directory.chmod(0o755)  # others could put something there
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: calls()[-1] != first)
    wait_for_gpu(receiver, name)
    (pid,) = {dict(span.tags)["pid"] for span in receiver.spans}
    assert calls()[-1] == int(pid)
    directory.chmod(0o700)


def test_a_driver_that_hangs_holds_up_no_span(
    new_client: Callable[..., str],
    receiver: Receiver,
    calls: Callable[[], list[int]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hang = tmp_path / "hang"
    monkeypatch.setenv("FAKE_NVML", "hanging")
    monkeypatch.setenv("FAKE_NVML_HANG", str(hang))
    names = [new_client() for _ in range(2)]
    wait_for_gpu(receiver, *names)
    hang.touch()
    try:

        def newest() -> set[str]:
            return {gpu for name in names for gpu in gpus(receiver, name)[-20:]}

        wait_until(lambda: newest() == {""})
        stuck, delivered = len(calls()), len(receiver.spans)
        wait_until(lambda: len(receiver.spans) > delivered + 200)
        assert len(calls()) == stuck
        assert newest() == {""}
        (place,) = host_sender.find_senders()
        wait_until(lambda: '"hangs_for_s": null' not in str(host_sender.ask_status(place)))
    finally:
        hang.unlink()
    wait_for_gpu(receiver, *names)
    sender_of(receiver, calls)


def test_an_agent_reads_for_its_clients(
    new_client: Callable[..., str],
    receiver: Receiver,
    calls: Callable[[], list[int]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    agent = AgentProcess(
        Path(os.environ["XDG_RUNTIME_DIR"]) / "agent.sock", log=tmp_path / "agent.log"
    )
    try:
        monkeypatch.setenv("INFERTRACE_AGENT", agent.url)
        names = [new_client() for _ in range(2)]
        wait_for_gpu(receiver, *names)
        assert sender_of(receiver, calls) == agent.pid
        (tmp_path / "stop").touch()
        wait_until(lambda: calls()[-1] == -agent.pid)  # nobody wants it any more
    finally:
        (tmp_path / "stop").touch()
        agent.terminate()


def test_a_forked_child_is_a_client_too(
    backend: Any, receiver: Receiver, calls: Callable[[], list[int]]
) -> None:
    body = f"""
        import os, time
        tracer = infertrace.Tracer("{receiver.endpoint}", exit_timeout_s=60)
        tracer.start_span("m").end()
        assert tracer.flush(60)
        pid = os.fork()
        until = time.monotonic() + 60
        while not (tracer._recorder.sample and b"GPU-5f0c7a52-fake" in tracer._recorder.sample[0]):
            tracer.start_span("m").end()
            time.sleep(0.02)
            assert time.monotonic() < until
        assert len(os.listdir("/proc/self/fd")) < 40
        assert tracer.shutdown(60)
        if pid:
            assert os.waitpid(pid, 0)[1] == 0
        os._exit(0)
    """
    done = run_program(backend, body)
    assert done.returncode == 0, done.stderr
    assert len(set(map(abs, calls()))) == 1


def test_nobody_loads_pynvml_but_the_sender(
    backend: Any, receiver: Receiver, calls: Callable[[], list[int]], tmp_path: Path
) -> None:
    body = TRACE_UNTIL_TOLD.format(
        endpoint=receiver.endpoint, name="only", settings="", stop=tmp_path / "stop"
    )
    process = start_program(backend, body)
    wait_for_gpu(receiver, "only")
    (tmp_path / "stop").touch()
    said, _ = process.communicate(timeout=120)
    assert said.startswith("[false, true")


IN_ANOTHER_SCOPE = """
import os, json, time
from infertrace.resources.gpu_page import Directory, GpuPageWriter, ListedDevice, Reading
from infertrace.resources.gpu_source import GpuSlot, GpuSource
uuids = ["GPU-eeeeeeee-fake", "GPU-10000000-fake", "GPU-5f0c7a52-fake"]
writer = GpuPageWriter.open()
devices = tuple(ListedDevice(i, uuid, "M", None, None, i, None) for i, uuid in enumerate(uuids))
writer.describe(Directory(1, "elsewhere", True, None, devices))
def choose(index):
    source = GpuSource(index, interval_s=1, awaits_sender=True)
    source.offer(os.dup(writer.descriptor))
    until = time.monotonic() + 20
    while True:
        found = source.choose()
        if isinstance(found, GpuSlot) or time.monotonic() > until or index == 2:
            return found.slot if isinstance(found, GpuSlot) else type(found).__name__
print(json.dumps([choose(None), choose(1), choose(2)]))
"""


def test_a_sender_that_sees_other_gpus_counts_them_differently(
    backend: Any, calls: Callable[[], list[int]]
) -> None:
    """A process then asks its own driver once which device it means; what the sender does not
    have, it reads itself."""
    done = run_program(backend, "", IN_ANOTHER_SCOPE)
    assert done.stdout == '[2, 1, "GpuProbe"]\n', done.stderr
