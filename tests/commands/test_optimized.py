"""The commands where Python drops docstrings and assertions."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

COMMANDS = ("collector", "demo", "doctor", "export", "replay", "spool", "spool drain")


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-OO", "-m", "infertrace", *arguments],
        # The variable also applies to the processes that a command starts.
        env={**os.environ, "PYTHONOPTIMIZE": "2"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_the_version() -> None:
    done = run("--version")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("infertrace ")


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help(command: str) -> None:
    done = run(*command.split(), "--help")
    assert (done.returncode, done.stderr) == (0, "")


def test_the_help_names_each_command() -> None:
    assert "say whether spans get from here" in " ".join(run("--help").stdout.split())


def test_a_tracer_and_a_collector() -> None:
    addresses = ("--grpc", "127.0.0.1:0", "--http", "127.0.0.1:0")
    done = run("demo", "--once", "--duration", "2", "--outage", "1", *addresses)
    assert done.returncode == 0, done.stderr
