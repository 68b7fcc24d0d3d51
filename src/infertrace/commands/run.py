"""`infertrace run`: runs a program with its libraries traced, without a line of it changed."""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import Any, Final

USAGE_ERROR: Final = 2
_NOT_FOUND, _NOT_EXECUTABLE = 127, 126  # as a shell says it
_BY_SIGNAL: Final = 128


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the command."""
    parser.add_argument(
        "--include",
        metavar="NAMES",
        help="trace these only, with commas between them (default: what is installed)",
    )
    parser.add_argument(
        "program", nargs=argparse.REMAINDER, metavar="-- COMMAND", help="what to run"
    )


def run(options: argparse.Namespace) -> int:
    """Run the command; returns its exit code, and prints what was traced in it."""
    from infertrace import program

    command = options.program[1:] if options.program[:1] == ["--"] else options.program
    if not command:
        print("infertrace run: expected a command: infertrace run -- COMMAND", file=sys.stderr)
        return USAGE_ERROR
    with tempfile.TemporaryDirectory(prefix="infertrace-run-") as folder:
        report = Path(folder, "report")
        report.touch()
        try:
            environ = program.environment(os.environ, options.include, report)
        except ValueError as error:
            print(f"infertrace run: --include: {error}", file=sys.stderr)
            return USAGE_ERROR
        code = _run(command, environ)
        lines = [json.loads(line) for line in report.read_text().splitlines()]
    for text in summary(lines):
        print(f"infertrace: {text}", file=sys.stderr)
    return code


def summary(lines: list[Mapping[str, Any]]) -> Iterator[str]:
    """What the processes said at their ends, for people."""
    if not lines:
        yield "nothing was traced: no process has imported a library that can be"
    for line in lines:
        stats = line["stats"]
        lost = [f"{count} dropped ({reason})" for reason, count in stats["dropped"].items()]
        if stats["handed_over"]:
            lost.append(f"{stats['handed_over']} handed over")
        if stats["pending"] > stats["handed_over"]:
            lost.append(f"{stats['pending'] - stats['handed_over']} pending")
        counts = [f"{stats['produced']} spans", f"{stats['delivered']} delivered", *lost]
        used = ", ".join(line["used"]) or f"no use of {', '.join(line['traced']) or 'a library'}"
        yield f"{line['program']} ({line['pid']}): {used}; {', '.join(counts)}"


def _run(command: list[str], environ: dict[str, str]) -> int:
    running: subprocess.Popen[bytes] | None = None

    def pass_on(number: int, frame: FrameType | None) -> None:
        if running is not None:
            running.send_signal(number)

    # The terminal sends SIGINT to both; this process goes on, to say what was traced.
    signal.signal(signal.SIGINT, lambda number, frame: None)
    signal.signal(signal.SIGTERM, pass_on)
    try:
        running = subprocess.Popen(command, env=environ)
    except FileNotFoundError:
        print(f"infertrace run: {command[0]}: not found", file=sys.stderr)
        return _NOT_FOUND
    except OSError as error:
        print(f"infertrace run: {command[0]}: {error.strerror}", file=sys.stderr)
        return _NOT_EXECUTABLE
    code = running.wait()
    return code if code >= 0 else _BY_SIGNAL - code
