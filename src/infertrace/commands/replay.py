"""`infertrace replay`: sends the spans of files to a collector.

A file is a tracer's (`file:///PATH`), or OTLP in JSON, one request a line.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from infertrace.commands.replayed_files import ReplayedRequest, read_requests

if TYPE_CHECKING:
    from infertrace.configuration import Settings
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
    from infertrace.configuration import resolve
    from infertrace.exporting.answer import SendError
    from infertrace.exporting.file_transport import Unreadable

    try:
        settings = resolve({"endpoint": args.to, "sender_process": "none"}, os.environ)
    except ValueError as error:
        return _say(str(error).replace("endpoint:", "--to:"), USAGE_ERROR)
    if settings.endpoint.startswith("file:"):
        return _say("--to: expected a collector, got a file", USAGE_ERROR)
    replay = _Replay(settings, args.patience)
    status = 0
    for path in args.file:
        try:
            for request in read_requests(path):
                reason = replay.send(request)
                if reason:
                    status = _say(f"{path}: batch {replay.batch_count}: {reason}", 1)
        except (OSError, Unreadable, SendError) as error:
            status = _say(str(error), 1)
    replay.close()
    print(replay.summary())
    return status or int(replay.rejected_count > 0)


class _Replay:
    """Sends requests of either kind, and counts what became of their spans."""

    def __init__(self, settings: Settings, patience_s: float) -> None:
        self._settings = settings
        self._patience_s = patience_s
        self._transports: dict[bool, Transport] = {}
        self.batch_count = self.rejected_count = 0
        self._refused_count = self._accepted_count = self._kept_count = 0

    def send(self, request: ReplayedRequest) -> str:
        """Send it; why it was not taken, or nothing. Raises SendError for a bad endpoint."""
        from infertrace.exporting.answer import SendError

        self.batch_count += 1
        transport = self._transport(request.is_otlp)
        reason = request.error
        if not reason:
            try:
                answer = _send(transport, request.body, request.span_count, self._patience_s)
            except SendError as error:
                reason = str(error)
            else:
                self._accepted_count += answer.accepted_count
                self.rejected_count += answer.rejected_count
                return ""
        self._refused_count += 1
        self._kept_count += request.span_count
        return reason

    def _transport(self, is_otlp: bool) -> Transport:
        if is_otlp not in self._transports:
            self._transports[is_otlp] = _open(self._settings, is_otlp)
        return self._transports[is_otlp]

    def close(self) -> None:
        for transport in self._transports.values():
            transport.close()

    def summary(self) -> str:
        return (
            f"{self.batch_count} batches, {self._refused_count} not taken; "
            f"{self._accepted_count} spans accepted, {self.rejected_count} rejected, "
            f"{self._kept_count} not taken"
        )


def _open(settings: Settings, is_otlp: bool) -> Transport:
    """The way to the endpoint; raises SendError. What is OTLP goes there as that."""
    from infertrace import backend
    from infertrace.exporting.answer import Retryable
    from infertrace.exporting.choice import choose_transport, open_here
    from infertrace.exporting.target import Target

    if not is_otlp:
        return choose_transport(settings, backend.selected)()
    from infertrace.exporting.otlp_request_wire import OtlpRequestWire

    target = Target.of(settings)
    if target.wire == "infertrace":
        target = target._replace(wire="otlp/grpc")
    try:
        return open_here(target, OtlpRequestWire())
    except (OSError, ValueError) as error:
        raise Retryable(str(error)) from None


def _send(transport: Transport, request: bytes, span_count: int, patience_s: float) -> Answer:
    from infertrace.exporting.answer import Retryable

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
