"""No signal is lost, at whatever moment of the wait it arrives."""

from __future__ import annotations

import subprocess
import sys

import pytest

ROUNDS = 3_000
WAIT_S = 120

# Another thread sends the signal at a random moment near the start of the main thread's wait. On
# one CPU this often hits the main thread after it released the GIL and before it sleeps.
PROGRAM = f"""
import os, random, signal, threading, time
from infertrace.commands.termination_signals import TerminationSignals

if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, {{min(os.sched_getaffinity(0))}})
go, rounds = threading.Barrier(2), {ROUNDS}

def kill():
    for _ in range(rounds):
        go.wait()
        end = time.perf_counter() + random.random() * 100e-6
        while time.perf_counter() < end:
            pass
        os.kill(os.getpid(), signal.SIGTERM)

threading.Thread(target=kill, daemon=True).start()
for _ in range(rounds):
    signals = TerminationSignals()
    go.wait()
    assert signals.wait() is signal.SIGTERM
print("all")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="os.kill ends the process there")
def test_a_signal_at_any_moment() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        check=False,
    )
    assert done.stdout == "all\n", done.stderr
