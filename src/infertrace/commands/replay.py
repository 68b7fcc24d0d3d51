"""`infertrace replay`: sends the spans in a tracer's file (`file:///PATH`) to a collector."""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from infertrace.exporting.answer import Answer
    from infertrace.exporting.transport import Transport

USAGE_ERROR = 2
SEND_TIMEOUT_S = 30.0
RETRY_S = 0.5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the command."""
    parser.add_argument("file", type=Path, nargs="+", metavar="FILE", help="what to send")
    parser.add_argument(
        "--to",
        required=True,
        metavar="ENDPOINT",
        help="HOST:PORT, http://HOST:PORT, https://HOST:PORT; tokens and certificates come from "
        "INFERTRACE_*, as for a tracer",
    )
    parser.add_argument(
        "--patience",
        type=float,
        default=30.0,
        metavar="SECONDS",
        help="how long a batch may wait for the collector (default: %(default)s)",
    )


def run(args: argparse.Namespace) -> int:
    """Send all files; returns 0 if every batch was accepted, 1 otherwise.

    Sending a file twice does no harm: the collector keeps one of each span.
    """
    from infertrace import backend
    from infertrace.configuration import resolve
    from infertrace.exporting.answer import SendError
    from infertrace.exporting.choice import choose_transport
    from infertrace.exporting.file_transport import Unreadable, read_batches

    try:
        settings = resolve({"endpoint": args.to, "sender_process": False}, os.environ)
    except ValueError as error:
        return _say(str(error).replace("endpoint:", "--to:"), USAGE_ERROR)
    if settings.endpoint.startswith("file:"):
        return _say("--to: expected a collector, got a file", USAGE_ERROR)
    try:
        transport = choose_transport(settings, backend.selected)()
    except SendError as error:
        return _say(str(error), 1)
    batches = accepted = rejected = refused = 0
    status = 0
    for path in args.file:
        try:
            for request in read_batches(path):
                try:
                    answer = _send(transport, request, args.patience)
                except SendError as error:
                    refused += 1
                    status = _say(f"{path}: batch {batches + 1}: {error}", 1)
                else:
                    accepted += answer.accepted_count
                    rejected += answer.rejected_count
                batches += 1
        except (OSError, Unreadable) as error:
            status = _say(str(error), 1)
    transport.close()
    print(f"{batches} batches, {refused} not taken; {accepted} spans accepted, {rejected} rejected")
    return status or int(rejected > 0)


def _send(transport: Transport, request: bytes, patience_s: float) -> Answer:
    from infertrace.exporting.answer import Retryable
    from infertrace.exporting.envelope import count_spans

    span_count = count_spans(request)
    deadline = time.monotonic() + patience_s
    while True:
        try:
            return transport.send((request,), span_count, SEND_TIMEOUT_S)
        except Retryable as error:
            if time.monotonic() >= deadline:
                raise
            time.sleep(error.retry_after_s or RETRY_S)


def _say(reason: str, status: int) -> int:
    print(f"infertrace replay: {reason}", file=sys.stderr)
    return status
