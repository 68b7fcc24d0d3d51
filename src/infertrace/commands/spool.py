"""`infertrace spool`: delivers the spans that dead processes left in a spool directory."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

USAGE_ERROR = 2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the command."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    drain = actions.add_parser("drain", help="deliver the spans and remove the files")
    drain.add_argument("--spool-dir", metavar="DIR", help="instead of INFERTRACE_SPOOL_DIR")
    drain.add_argument("--endpoint", metavar="HOST:PORT", help="instead of the configured one")
    drain.add_argument(
        "--timeout",
        type=float,
        default=10.0,
        metavar="SECONDS",
        help="how long to wait for the answer to a batch (default: %(default)g)",
    )


def run(options: argparse.Namespace) -> int:
    """Deliver every spool that no live process owns; returns 0 if none of them is left."""
    from infertrace import backend
    from infertrace.configuration import resolve
    from infertrace.exporting.answer import SendError
    from infertrace.exporting.choice import choose_transport

    try:
        settings = resolve(
            {"endpoint": options.endpoint, "spool_dir": options.spool_dir}, os.environ
        )
    except ValueError as error:
        return _fail(str(error))
    if settings.spool_dir is None:
        return _fail("expected --spool-dir or INFERTRACE_SPOOL_DIR")
    # Imported late: these modules load only on POSIX, which `resolve` has checked.
    from infertrace.buffering.spool_reader import left_in
    from infertrace.exporting.spool_drain import Leftovers

    directory = Path(settings.spool_dir)
    # This process does nothing else, so it needs no sender process.
    connect = choose_transport(settings._replace(sender_process="none"), backend.selected)
    try:
        transport = connect()
    except (OSError, SendError) as error:
        return _fail(f"{settings.endpoint}: {error}")
    leftovers = Leftovers(directory, settings.max_batch_bytes)
    try:
        done = leftovers.deliver(
            lambda request, span_count: transport.send(request, span_count, options.timeout)
        )
    finally:
        transport.close()
    for path, drained in done:
        print(
            f"{path.name}: {drained.delivered} spans delivered, {drained.rejected} rejected, "
            f"{drained.damaged} damaged"
        )
    left = left_in(directory)
    if leftovers.stopped_by:
        print(f"{len(left)} spools are left in {directory}: {leftovers.stopped_by}")
        return 1
    if left:
        print(f"{len(left)} spools in {directory} belong to live processes")
    return 0


def _fail(message: str) -> int:
    print(f"infertrace spool: {message}", file=sys.stderr)
    return USAGE_ERROR
