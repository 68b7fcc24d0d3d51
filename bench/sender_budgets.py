"""What does a traced process cost where one sender serves all, and does a storm of them lose spans?

The work: one process that records 1,000 spans a second and starts the sender, then another that
finds it. Memory is the proportional share (PSS) of both and of the sender, over that of an
interpreter that does nothing where it says so; shared pages count once. "First span" is the time
that a forked child takes to record a span and to learn that it is acknowledged; "start" is the
processor time of making a tracer, after the import, where a sender runs, in all its threads.
In the storm, processes are forked at once beside four busy loops, record 99 spans each and end.
The package is a copy of its files, as a wheel installs them. Reads /proc, so it needs Linux.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bench.harness import Answer

BACKENDS = ("native", "pure")
SPANS_PER_BURST, BURST_INTERVAL_S = 10, 0.01
RUN_S, FAST_RUN_S = 5.0, 1.5
CHILDREN, FAST_CHILDREN = 100, 10
STARTS, FAST_STARTS = 20, 3
STORM, FAST_STORM, SPANS_OF_ONE, BUSY_LOOPS = 64, 8, 99, 4
ROUNDS, FAST_ROUNDS = 5, 1
ARRIVAL_S = 120.0
MORE_MIB, BOTH_MIB, FIRST_SPAN_MS, START_MS = 10.0, 50.0, 5.0, 10.0
MORE, BOTH, SENDER = "one more process, MiB", "sender and one, MiB", "sender, MiB"
FIRST, START, LOST = "first span, ms", "start, ms", "lost or miscounted"


def record_until_told(seconds: float) -> None:
    """A traced process; prints the sender's number, and ends with its input."""
    import infertrace

    tracer = infertrace.Tracer(service_name="bench")
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for _ in range(SPANS_PER_BURST):
            with tracer.start_span("gpt-4") as span:
                span.set_batch_size(8)
                span.set_tokens(input=24, output=100)
        time.sleep(BURST_INTERVAL_S)
    tracer.flush(30)
    print(json.dumps(tracer._exporter.sender_pid), flush=True)
    sys.stdin.read()


def first_spans(children: int) -> None:
    """Prints, for each forked child, milliseconds until its first span was acknowledged."""
    import infertrace

    tracer = infertrace.Tracer(service_name="bench", export_interval_s=1)
    tracer.start_span("gpt-4").end()
    assert tracer.flush(30)
    times = []
    for _ in range(children):
        reading, writing = os.pipe()
        if not os.fork():
            before = time.perf_counter()
            tracer.start_span("gpt-4").end()
            assert tracer.flush(30)
            os.write(writing, repr((time.perf_counter() - before) * 1e3).encode())
            tracer.shutdown(30)
            os._exit(0)
        os.close(writing)
        with os.fdopen(reading) as pipe:
            times.append(float(pipe.read()))
        os.wait()
    print(json.dumps(times), flush=True)


def start() -> None:
    """Prints the processor milliseconds of a tracer's start."""
    import infertrace

    before = time.process_time()
    infertrace.Tracer(service_name="bench")
    print(json.dumps((time.process_time() - before) * 1e3), flush=True)


def storm(processes: int, folder: str) -> None:
    """Forks them; prints how many spans they made, and how many they count as dropped."""
    from multiprocessing import util

    import infertrace

    tracer = infertrace.Tracer(service_name="bench")
    tracer.start_span("gpt-4").end()
    assert tracer.flush(60)

    def report() -> None:
        Path(folder, str(os.getpid())).write_text(json.dumps(tracer.stats()))

    def work(gate: Any) -> None:
        util.Finalize(None, report, exitpriority=-2000)  # the tracer's own has -1000
        gate.wait()
        for _ in range(SPANS_OF_ONE):
            tracer.start_span("gpt-4").end()

    context = multiprocessing.get_context("fork")
    gate = context.Barrier(processes)
    workers = [context.Process(target=work, args=(gate,)) for _ in range(processes)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    ledgers = [json.loads(path.read_text()) for path in Path(folder).iterdir()]
    dropped = sum(sum(ledger["dropped"].values()) for ledger in ledgers)
    print(json.dumps([sum(ledger["produced"] for ledger in ledgers) + 1, dropped]), flush=True)


PARTS: dict[str, Callable[..., None]] = {
    "record": lambda seconds: record_until_told(float(seconds)),
    "first": lambda children: first_spans(int(children)),
    "start": start,
    "storm": lambda processes, folder: storm(int(processes), folder),
}


class Processes:
    """Starts those above, from a package as a wheel installs it, on one sender."""

    def __init__(self, installed: Path, backend: str, address: str, directory: Path) -> None:
        from bench.harness import variables
        from bench.receiver import Addresses

        self._python = str(installed / "venv/bin/python")
        self._environment = {
            **variables(Addresses(address, address)),
            "PYTHONPATH": os.pathsep.join(
                dict.fromkeys((str(installed / "packages"), *map(_folder_of, ("grpc", "google"))))
            ),
            "INFERTRACE_BACKEND": backend,
            "XDG_RUNTIME_DIR": str(directory),
        }

    def start(self, *arguments: object) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [self._python, *map(str, arguments)],
            env=self._environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def part(self, *arguments: object) -> subprocess.Popen[str]:
        return self.start(__file__, *arguments)

    def answer(self, *arguments: object) -> Any:
        with self.part(*arguments) as process:
            out, _ = process.communicate()
        if process.returncode:
            raise RuntimeError(f"{arguments}: exit status {process.returncode}")
        return json.loads(out)


def _folder_of(package: str) -> str:
    found = find_spec(package)
    assert found is not None
    assert found.submodule_search_locations
    return str(Path(next(iter(found.submodule_search_locations))).parent)


def pss_mib(pid: int) -> float:
    """The proportional share of a process in the memory of the machine. Source: proc(5)."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"no memory of process {pid}")


def memory(processes: Processes, seconds: float) -> dict[str, float]:
    bare = processes.start("-c", "print(0, flush=True); input()")
    first = processes.part("record", seconds)
    second = None
    try:
        sender = _said(first)
        second = processes.part("record", seconds)
        if _said(second) != sender:
            raise RuntimeError("two processes have two senders")
        _said(bare)
        return {
            MORE: pss_mib(second.pid) - pss_mib(bare.pid),
            SENDER: pss_mib(sender),
            BOTH: pss_mib(sender) + pss_mib(first.pid),
        }
    finally:
        for process in (bare, first, second):
            if process is not None:
                process.communicate("\n")


def _said(process: subprocess.Popen[str]) -> int:
    assert process.stdout is not None
    return int(process.stdout.readline())


def starts(processes: Processes, times: int) -> float:
    """The median; another process keeps the sender."""
    first = processes.part("record", 0.1)
    try:
        _said(first)
        return statistics.median(processes.answer("start") for _ in range(times))
    finally:
        first.communicate()


def storm_of(processes: Processes, count: int, folder: Path, arrived: Callable[[], int]) -> float:
    """Spans lost, and by how much the processes' own count of these is wrong.

    arrived: stops the receiver, once all have come or none come any more.
    """
    with busy_neighbours(), tempfile.TemporaryDirectory(dir=folder) as reports:
        made, dropped = processes.answer("storm", count, reports)
        _wait_for_sender(processes)
    lost = made - arrived()
    return float(abs(lost) + abs(lost - dropped))


def _wait_for_sender(processes: Processes) -> None:
    """Until it holds nothing."""
    asking = (
        "import json\nfrom infertrace.exporting import host_sender as h\n"
        "found = [json.loads(h.ask_status(place, 60) or '{}') for place in h.find_senders()]\n"
        "print(sum(len(s.get('held', [])) + s.get('memories_of_the_disconnected', 0)"
        " + len(s.get('clients', [])) for s in found))"
    )
    end = time.monotonic() + ARRIVAL_S
    while time.monotonic() < end:
        with processes.start("-c", asking) as process:
            out, _ = process.communicate()
        if out.strip() == "0":
            return
        time.sleep(0.2)


@contextmanager
def busy_neighbours() -> Iterator[None]:
    busy = [
        subprocess.Popen([sys.executable, "-S", "-c", "while True: pass"])
        for _ in range(BUSY_LOOPS)
    ]
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


def measure(folder: Path, fast: bool) -> Answer:
    from bench.counting_receiver import CountingReceiver
    from bench.harness import Answer, run_rounds, verdict
    from bench.import_cost import install
    from bench.markdown import table, with_spread
    from bench.receiver import running_receiver

    seconds, children, times, count, rounds = (
        (FAST_RUN_S, FAST_CHILDREN, FAST_STARTS, FAST_STORM, FAST_ROUNDS)
        if fast
        else (RUN_S, CHILDREN, STARTS, STORM, ROUNDS)
    )
    with tempfile.TemporaryDirectory() as name, running_receiver() as addresses:
        installed = Path(name)
        install(installed)

        def part(backend: str) -> dict[str, float]:
            found: dict[str, float] = {}
            with tempfile.TemporaryDirectory(prefix="it-") as directory:
                processes = Processes(installed, backend, addresses.grpc, Path(directory))
                found |= memory(processes, seconds)
                found[FIRST] = statistics.median(processes.answer("first", children))
                found[START] = starts(processes, times)
            with tempfile.TemporaryDirectory(prefix="it-") as directory:
                receiver = CountingReceiver(folder / "arrived")
                address = f"127.0.0.1:{receiver.port}"
                processes = Processes(installed, backend, address, Path(directory))
                found[LOST] = storm_of(processes, count, installed, lambda: len(receiver.stop()))
            (folder / "arrived").unlink()
            return found

        results = run_rounds(BACKENDS, rounds, part)
    keys = (MORE, SENDER, BOTH, FIRST, START, LOST)
    tables = table(
        ["", *keys],
        [
            [
                f"infertrace {backend}",
                *(
                    with_spread(results[backend][key], digits=0 if key == LOST else 1)
                    for key in keys
                ),
            ]
            for backend in BACKENDS
        ],
    )
    budgets = (
        (MORE, "memory of one more traced process", "MiB", MORE_MIB, "over a bare interpreter"),
        (BOTH, "memory of the sender and one traced process", "MiB", BOTH_MIB, ""),
        (FIRST, "first span of a forked child to acknowledged", "ms", FIRST_SPAN_MS, ""),
        (START, "processor time of a tracer's start, beside a sender", "ms", START_MS, ""),
        (LOST, f"spans of {count} processes forked at once, lost or miscounted", "spans", 0.0, ""),
    )
    verdicts = [
        verdict(f"{what}, {backend}", results[backend][key], unit, at_most=limit, of=of)
        for key, what, unit, limit, of in budgets
        for backend in BACKENDS
    ]
    return Answer({"rounds": rounds, "processes": count, "results": results}, tables, verdicts)


if __name__ == "__main__":
    PARTS[sys.argv[1]](*sys.argv[2:])
