"""Does a traced process stay level, whatever becomes of its collector?

The work: one process for each backend records 500 spans a second, to `infertrace collector` on an
embedded store. Every 10 to 30 seconds that is killed, or stopped, and comes back after 1 to 15
seconds; the moments are random. Once a second (less often in a run of hours) the resident memory,
the open descriptors and the threads of each traced process are read, and the memory of its sender
process. A value is level when its median over the last quarter of the run is that of the second
quarter. "Lost" are spans that are not stored in the end, "miscounted" is by how much the tracer's
count of lost spans is off. Reads /proc, so it needs Linux.
"""

from __future__ import annotations

import contextlib
import json
import random
import re
import signal
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from bench import contenders

if TYPE_CHECKING:
    from bench.contenders import Contender
    from bench.harness import Answer

MINUTES_H, FAST_H = 5 / 60, 40 / 3600
SPANS_PER_BURST, BURST_INTERVAL_S = 5, 0.01
BETWEEN_OUTAGES_S, OUTAGE_S = (10.0, 30.0), (1.0, 15.0)
SAMPLES_AT_MOST = 3_000
LAST_FLUSH_S = 120
GROWTH_BUDGET_MIB = 2
NATIVE, PURE = "infertrace native", "infertrace pure"
CONTENDERS: dict[str, Callable[[], Contender]] = {
    NATIVE: contenders.native,
    PURE: contenders.pure,
}
READY = re.compile(r"infertrace collector: gRPC on (\S+), HTTP on (\S+), ")


class Sample(NamedTuple):
    """Measurements of one traced process, at one moment."""

    at_s: float
    memory_mib: float
    descriptors: int
    threads: int
    sender_mib: float


def run(name: str, seconds: float) -> None:
    """The traced process: prints its ledger at the end."""
    from bench.loops import loop_of

    contender = CONTENDERS[name]()
    loop = loop_of(contenders.recorded(type(contender)))
    start = time.monotonic()
    for burst in range(round(seconds / BURST_INTERVAL_S)):
        loop(contender.tracer, SPANS_PER_BURST)
        time.sleep(max(0.0, start + (burst + 1) * BURST_INTERVAL_S - time.monotonic()))
    contender.tracer.flush(LAST_FLUSH_S)
    print(json.dumps(contender.tracer.stats()), flush=True)


class RestartingCollector:
    """`infertrace collector`, on the same port and store each time."""

    def __init__(self, folder: Path) -> None:
        self._store = folder / "soak.duckdb"
        self._addresses = "127.0.0.1:0", "127.0.0.1:0"
        for left in folder.glob("soak.duckdb*"):
            left.unlink()
        self.start()

    @property
    def endpoint(self) -> str:
        return self._addresses[0]

    def start(self) -> None:
        grpc, http = self._addresses
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-m", "infertrace", "collector", "--grpc", grpc),
                *("--http", http, "--store", f"duckdb:///{self._store}"),
            ],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        ready = READY.match(self._process.stdout.readline())
        assert ready
        self._addresses = ready[1], ready[2]

    def send_signal(self, number: int) -> None:
        self._process.send_signal(number)

    def end(self) -> None:
        self._process.kill()
        self._process.communicate()

    def stored(self) -> dict[int, int]:
        """How many spans of each producer, by what that one says it has produced."""
        with urllib.request.urlopen(f"http://{self._addresses[1]}/ledger") as answer:
            return {p["produced"]: p["stored"] for p in json.load(answer)["producers"]}


def measure(folder: Path, fast: bool, hours: float | None = None) -> Answer:
    # Imported here, or the measurement would include what they import.
    from bench.environment import REPOSITORY
    from bench.harness import Answer, variables, verdict
    from bench.markdown import table
    from bench.receiver import Addresses

    seconds = 3600 * (FAST_H if fast else hours or MINUTES_H)
    collector = RestartingCollector(folder)
    addresses = Addresses(collector.endpoint, collector.endpoint)
    traced = {
        name: subprocess.Popen(
            [sys.executable, "-m", "bench.soak", name, str(seconds)],
            cwd=REPOSITORY,
            env=variables(addresses),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        for name in CONTENDERS
    }
    try:
        samples, outages = _watch(
            collector, {name: process.pid for name, process in traced.items()}, seconds
        )
        ledgers = {name: json.loads(process.communicate()[0]) for name, process in traced.items()}
        stored = collector.stored()
    finally:
        for process in traced.values():
            process.kill()
        collector.end()
    rows, verdicts = [], []
    for name, found in samples.items():
        ledger = ledgers[name]
        dropped = sum(ledger["dropped"].values())
        lost = ledger["produced"] - stored.get(ledger["produced"], 0)
        quarters = [_quarter(found, number) for number in (1, 3)]
        rows.append(
            [
                name,
                f"{ledger['produced']:,}",
                f"{lost:,}",
                f"{abs(lost - dropped):,}",
                *(
                    f"{before:.{digits}f} / {after:.{digits}f}"
                    for before, after, digits in zip(*quarters, (1, 0, 0, 1), strict=True)
                ),
            ]
        )
        growth = [after - before for before, after in zip(*quarters, strict=True)]
        verdicts += [
            verdict(f"growth of memory, {name}", growth[:1], "MiB", at_most=GROWTH_BUDGET_MIB),
            verdict(f"growth of descriptors, {name}", growth[1:2], "", at_most=0),
            verdict(f"growth of threads, {name}", growth[2:3], "", at_most=0),
            verdict(
                f"spans lost or miscounted, {name}",
                [float(lost + abs(lost - dropped))],
                "spans",
                at_most=0,
            ),
        ]
    head = ["second / last quarter", "made", "lost", "miscounted"]
    units = ["memory, MiB", "descriptors", "threads", "sender, MiB"]
    outage_s = sum(end - start for start, end, _ in outages)
    told = f"{seconds / 60:.0f} minutes, {len(outages)} outages of {outage_s:.0f} s together.\n"
    data = {"seconds": seconds, "outages": outages, "samples": samples, "ledgers": ledgers}
    return Answer(data, f"{table([*head, *units], rows)}\n{told}", verdicts)


def _watch(
    collector: RestartingCollector, pids: dict[str, int], seconds: float
) -> tuple[dict[str, list[Sample]], list[tuple[float, float, str]]]:
    chance = random.Random(0)
    samples: dict[str, list[Sample]] = {name: [] for name in pids}
    outages: list[tuple[float, float, str]] = []
    interval_s = max(1.0, seconds / SAMPLES_AT_MOST)
    start = time.monotonic()
    change_at = chance.uniform(*BETWEEN_OUTAGES_S)
    how, began = "", 0.0
    while (now := time.monotonic() - start) < seconds:
        if now >= change_at:
            if how:
                _come_back(collector, how)
                outages.append((began, time.monotonic() - start, how))
                how, change_at = "", now + chance.uniform(*BETWEEN_OUTAGES_S)
            else:
                how, began = chance.choice(("killed", "stopped")), now
                _go_away(collector, how)
                change_at = now + chance.uniform(*OUTAGE_S)
        for name, pid in pids.items():
            with contextlib.suppress(OSError):  # the process may have ended
                samples[name].append(_sample(pid, now))
        time.sleep(interval_s)
    if how:
        _come_back(collector, how)
        outages.append((began, time.monotonic() - start, how))
    return samples, outages


def _go_away(collector: RestartingCollector, how: str) -> None:
    if how == "killed":
        collector.end()
    else:
        collector.send_signal(signal.SIGSTOP)


def _come_back(collector: RestartingCollector, how: str) -> None:
    if how == "killed":
        collector.start()
    else:
        collector.send_signal(signal.SIGCONT)


def _sample(pid: int, at_s: float) -> Sample:
    from bench.memory import resident_kib

    process = Path("/proc") / str(pid)
    status = (process / "status").read_text()
    senders = [
        int(child)
        for listed in process.glob("task/*/children")
        for child in listed.read_text().split()
    ]
    sender_kib = sum(
        resident_kib(Path(f"/proc/{child}/status").read_text(), "VmRSS") for child in senders
    )
    return Sample(
        round(at_s, 1),
        resident_kib(status, "VmRSS") / 1024,
        len([*(process / "fd").iterdir()]),
        int(status.partition("Threads:")[2].split()[0]),
        sender_kib / 1024,
    )


def _quarter(samples: list[Sample], number: int) -> list[float]:
    """Medians of the measurements over one quarter of the run; 0 is the first."""
    part = samples[len(samples) * number // 4 : len(samples) * (number + 1) // 4]
    return [float(statistics.median(column)) for column in list(zip(*part, strict=True))[1:]]


def draw(result: dict[str, Any]) -> Path:
    """Write the figure: each measure over time, with the outages; returns its path."""
    from bench.figure import INK, OWN, RIVAL, TARGET, style

    target = TARGET.with_name("soak.svg")

    measures = (
        ("memory_mib", "memory, MiB"),
        ("descriptors", "descriptors"),
        ("threads", "threads"),
    )
    colours = {NATIVE: OWN, PURE: RIVAL}
    with style() as pyplot:
        figure, panels = pyplot.subplots(len(measures), sharex=True, figsize=(8.4, 5.2))
        for (field, label), axes in zip(measures, panels, strict=True):
            column = Sample._fields.index(field)
            for start, end, _ in result["data"]["outages"]:
                axes.axvspan(start / 60, end / 60, color=INK, alpha=0.25, linewidth=0)
            for name, samples in result["data"]["samples"].items():
                minutes = [sample[0] / 60 for sample in samples]
                values = [sample[column] for sample in samples]
                axes.plot(minutes, values, color=colours[name], label=name, linewidth=1.2)
            axes.set_ylim(bottom=0)
            axes.set_ylabel(label)
            axes.spines[["top", "right"]].set_visible(False)
        panels[0].legend(frameon=False, labelcolor=INK, loc="lower right", ncols=2)
        panels[-1].set_xlabel("minutes; grey where the collector is killed or stopped")
        figure.tight_layout()
        target.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(target, transparent=True, metadata={"Date": None})
        pyplot.close(figure)
    return target


if __name__ == "__main__":
    run(sys.argv[1], float(sys.argv[2]))
