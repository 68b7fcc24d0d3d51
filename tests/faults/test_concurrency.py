"""Many threads, many tasks, clocks that jump: the ledger stays exact, also at the collector."""

from __future__ import annotations

import asyncio
import collections
import json
import os
import random
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from backend_recording import KIB, MIB, assert_closed
from collector_process import CollectorProcess
from grpc_receiver import Receiver
from traced_program import environment, program

HOUR_S = 3600


@pytest.mark.parametrize("threads", [1, 8, 64])
def test_overflow_with_a_hung_collector(
    new_tracer: Any, shared_collector: CollectorProcess, threads: int
) -> None:
    """The collector learns what was dropped once it answers again."""
    service = os.urandom(8).hex()
    tracer = new_tracer(
        shared_collector.endpoint,
        service_name=service,
        max_buffer_bytes=256 * KIB,
        max_batch_bytes=64 * KIB,
    )
    tracer.start_span("m").end()
    assert tracer.flush(60)
    shared_collector.send_signal(signal.SIGSTOP)
    each = 16_000 // threads

    def work(_: int) -> None:
        for _ in range(each):
            with tracer.start_span("m"):
                pass
        assert_closed(tracer.stats())

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)  # many more interleavings
    try:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(work, range(threads)))
    finally:
        sys.setswitchinterval(interval)
        shared_collector.send_signal(signal.SIGCONT)
    assert tracer.flush(60)
    assert tracer.shutdown(60)
    stats = tracer.stats()
    assert_closed(stats)
    assert stats["produced"] == each * threads + 1
    assert stats["dropped"].keys() == {"buffer_full"}
    accounts = shared_collector.producers()
    (account,) = (account for account in accounts if account["service_name"] == service)
    assert account["produced"] == stats["produced"]
    assert account["stored"] == stats["delivered"]
    assert account["dropped"] == stats["dropped"]
    stored = shared_collector.spans(service=service)
    assert len({span["span_id"] for span in stored}) == stats["delivered"]


def test_ten_thousand_tasks_with_cancellation(
    new_tracer: Any, shared_collector: CollectorProcess
) -> None:
    # All spans end within a moment, faster than the pure backend encodes them.
    service = os.urandom(8).hex()
    tracer = new_tracer(shared_collector.endpoint, service_name=service, max_buffer_bytes=64 * MIB)
    chance = random.Random(5)
    expected: collections.Counter[str] = collections.Counter()

    async def request(number: int) -> None:
        status = "CANCELLED"
        try:
            async with tracer.start_span("m", "request") as span:
                span.set_tag("number", str(number))
                await asyncio.sleep(chance.random() * 0.2)
                with tracer.start_span("m", "inner") as inner:
                    assert inner.parent_span_id == span.span_id
                    expected["inner"] += 1
                    await asyncio.sleep(0)
                if number % 7 == 0:
                    status = "ERROR"
                    raise ValueError
                status = "OK"
        finally:
            expected[status] += 1

    async def serve() -> None:
        tasks = [asyncio.create_task(request(number)) for number in range(10_000)]
        await asyncio.sleep(0.1)
        for task in chance.sample(tasks, 4_000):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(serve())
    assert tracer.flush(60)
    stats = tracer.stats()
    assert_closed(stats)
    assert stats["dropped"] == {}
    stored = shared_collector.spans(service=service)
    requests = [span for span in stored if span["operation_name"] == "request"]
    found = collections.Counter(span["status"] for span in requests)
    inner = len(stored) - len(requests)
    # A task cancelled before its first step makes no span.
    assert found == {key: expected[key] for key in ("OK", "ERROR", "CANCELLED")}
    assert inner == expected["inner"]
    assert stats["delivered"] == stats["produced"] == found.total() + inner


STEPPED_CLOCK = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <time.h>

static long offset_s;

void step_clock(long seconds) { offset_s += seconds; }

int clock_gettime(clockid_t clock, struct timespec *now) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
    int failed = real(clock, now);
    if (!failed && clock == CLOCK_REALTIME) now->tv_sec += offset_s;
    return failed;
}
"""


@pytest.fixture(scope="module")
def stepped_clock(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library to preload, which can step the wall clock of one process."""
    folder = tmp_path_factory.mktemp("clock")
    source, library = folder / "clock.c", folder / "clock.so"
    source.write_text(STEPPED_CLOCK)
    compiler = os.environ.get("CC", "cc")
    command = [compiler, "-shared", "-fPIC", "-o", str(library), str(source), "-ldl"]
    subprocess.run(command, check=True)
    return library


def test_a_wall_clock_that_is_stepped(
    backend: Any, receiver: Receiver, stepped_clock: Path
) -> None:
    """An hour forth and back: durations stay true, and later spans follow the clock."""
    done = subprocess.run(
        program(
            f"""
            import ctypes, json, time
            step = ctypes.CDLL(None).step_clock
            tracer = infertrace.Tracer("{receiver.endpoint}", export_interval_s=0.02)
            before = time.time()
            with tracer.start_span("m", "before"): pass
            running = tracer.start_span("m", "running")
            step({HOUR_S})
            assert time.time() - before >= {HOUR_S}
            running.end()
            assert tracer.flush(60)
            time.sleep(0.1)
            assert tracer.flush(60)
            with tracer.start_span("m", "forth"): pass
            assert tracer.flush(60)
            step({-2 * HOUR_S})
            for _ in range(5):
                with tracer.start_span("m", "between"): pass
                assert tracer.flush(60)
                time.sleep(0.05)
            with tracer.start_span("m", "back"): pass
            assert tracer.shutdown(60)
            print(json.dumps([before, tracer.stats()]))
            """
        ),
        env={**environment(backend), "LD_PRELOAD": str(stepped_clock)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    began, stats = json.loads(done.stdout)
    assert_closed(stats)
    assert stats["delivered"] == stats["produced"] == len(receiver.spans) == 9
    hours = {
        span.operation_name: round((span.start_time_unix_nano / 1e9 - began) / HOUR_S)
        for span in receiver.spans
        if span.operation_name != "between"
    }
    assert hours.pop("running") in (0, 1)  # the exporter may have read the clock before
    assert hours == {"before": 0, "forth": 1, "back": -1}
    assert all(0 <= span.duration_nanos < HOUR_S * 10**9 / 10 for span in receiver.spans)
