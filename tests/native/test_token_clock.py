"""The clock of tokens: the processor's counter between readings of the system's clock."""

from __future__ import annotations

import platform
import shutil
import subprocess
import sysconfig
import time
from pathlib import Path

import pytest

SOURCES = Path(__file__).parents[2] / "csrc"
AGREES_NS = 1_000_000  # what steering a clock may make of a window, many times over
WINDOWS_S = 0.5

# What a clock does after the readings that are given to it: counter, nanoseconds, counter.
PROGRAM = """
#include <stdio.h>
#include "recorder/token_clock.h"
int main(void) {
    unsigned long long before, ns, after;
    infertrace_tick_clock clock = {.trusted = 1};
    while (scanf("%llu %llu %llu", &before, &ns, &after) == 3)
        infertrace_set_ticks(&clock, before, (int64_t)ns, after);
    printf("%d %llu %llu\\n", clock.trusted, (unsigned long long)clock.ns,
           (unsigned long long)(clock.rate >> 22));
    return 0;
}
"""
S = 10**9


def test_it_agrees_with_the_clock_of_spans() -> None:
    native = pytest.importorskip("infertrace.recording.native", reason="no compiled backend")
    readings = 0
    end = time.monotonic() + WINDOWS_S
    while time.monotonic() < end:
        before = native.monotonic_ns()
        read = native.token_ns()
        after = native.monotonic_ns()
        assert before - AGREES_NS <= read <= after + AGREES_NS
        readings += 1
    assert readings


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clock")
    (folder / "clock.c").write_text(PROGRAM)
    compiler = shutil.which("cc") or sysconfig.get_config_var("CC").split()[0]
    words = [compiler, "-I", str(SOURCES), "-o", str(folder / "clock"), str(folder / "clock.c")]
    subprocess.run(words, check=True, capture_output=True, text=True)
    return folder / "clock"


@pytest.mark.skipif(
    platform.machine() != "x86_64" or platform.system() != "Linux",
    reason="only there is the counter read",
)
@pytest.mark.parametrize(
    ("readings", "outcome"),
    [
        pytest.param([], (1, 0, 0), id="nothing is known before the first"),
        pytest.param([(500, S, 510)], (1, S, 0), id="nor after it"),
        pytest.param([(500, S, 510), (2 * S, S + 3_000_000, 2 * S + 10)], (1, S, 0), id="too soon"),
        pytest.param([(0, S, 10), (2 * S, 2 * S, 2 * S + 10)], (1, 2 * S, 512), id="its rate"),
        pytest.param(
            [(0, S, 10), (2 * S, 2 * S, 2 * S + 5_000)], (1, S, 0), id="something ran in between"
        ),
        pytest.param(
            [(0, S, 10), (2 * S, 2 * S, 2 * S + 10), (4 * S + 10**6, 3 * S, 4 * S + 10**6)],
            (1, 3 * S, 511),
            id="a steered clock",
        ),
        pytest.param(
            [(0, S, 10), (2 * S, 2 * S, 2 * S + 10), (3 * S, 3 * S, 3 * S)],
            (0, 2 * S, 512),
            id="another rate",
        ),
        pytest.param(
            [(0, S, 10), (2 * S, 2 * S, 2 * S + 10), (7, 3 * S, 8)],
            (0, 2 * S, 512),
            id="a counter that was set back",
        ),
    ],
)
def test_when_it_is_trusted(
    program: Path, readings: list[tuple[int, int, int]], outcome: tuple[int, int, int]
) -> None:
    given = "\n".join(" ".join(map(str, each)) for each in readings)
    done = subprocess.run([program], input=given, capture_output=True, text=True, check=True)
    assert tuple(map(int, done.stdout.split())) == outcome
