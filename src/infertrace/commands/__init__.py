"""The command line: `infertrace`, with `collector`, `demo`, `doctor` and the others below."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from infertrace.commands import (
    agent,
    collector,
    demo,
    doctor,
    export,
    replay,
    run,
    spool,
    sql,
    top,
    why,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="infertrace", description="Traces machine-learning inference."
    )
    parser.add_argument("--version", action="store_true", help="print version and backend")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    modules = {
        "agent": (agent, "send for all traced processes of a host, and outlive them"),
        "collector": (collector, "take spans in over gRPC, store them, answer over HTTP"),
        "demo": (demo, "a simulated model server, traced into a collector"),
        "doctor": (doctor, "say whether spans get from here to the collector, and why not"),
        "export": (export, "write stored spans as Parquet files, or as a file of OTLP"),
        "replay": (replay, "send what a file holds to a collector: a tracer's, or OTLP"),
        "run": (run, "run a Python program with its libraries traced"),
        "spool": (spool, "deliver what dead processes left in a directory of spools"),
        "sql": (sql, "ask a running collector's embedded store"),
        "top": (top, "what a collector's models are doing, in a terminal"),
        "why": (why, "say why a request was slow"),
    }
    # Not the first lines of their docstrings: `python -OO` drops those.
    for name, (module, summary) in modules.items():
        command = commands.add_parser(name, help=summary, description=summary)
        module.add_arguments(command)
        command.set_defaults(run=module.run)
    options = parser.parse_args(arguments)
    if options.version:
        import infertrace

        print(f"infertrace {infertrace.__version__} ({infertrace.BACKEND} backend)")
        return 0
    if options.command is None:
        parser.print_help()
        return 2
    return int(options.run(options))
