"""The sender process: takes requests from a socket, sends them over gRPC or HTTP, answers.

It keeps nothing: the traced process has the batch until it is acknowledged. So it may be killed,
and it goes when its socket closes, soon also when the collector does not answer; signals that are
meant for the traced program do not end it first.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import threading
import time
from typing import Final

from infertrace.exporting import link
from infertrace.exporting.answer import Answer, Retryable
from infertrace.exporting.choice import load_transport, open_here
from infertrace.exporting.envelope import Request
from infertrace.exporting.launcher import READY
from infertrace.exporting.target import Target
from infertrace.exporting.transport import Transport

# For the request in flight, when the traced process is gone.
_LAST_REQUEST_S: Final = 1.0


def main(descriptor: int, wire: str) -> None:
    """Serve the traced process at the other end of this socket, which will probably want `wire`."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    connection = socket.socket(fileno=descriptor)
    connection.setblocking(True)  # gevent and eventlet create only non-blocking sockets
    with contextlib.suppress(ImportError):  # which opening the transport tells of
        load_transport(wire)
    connection.sendall(READY)
    threading.Thread(target=_leave_with, args=(connection,), daemon=True).start()
    settings = _receive(connection).envelope
    transport: Transport
    try:
        transport = open_here(Target(**json.loads(settings)))
    except Exception as error:
        transport = Unusable(error)
    while True:
        connection.sendall(_answer_to(transport, _receive(connection)))


def _leave_with(connection: socket.socket) -> None:
    """End when the other end has closed, whatever the collector does."""
    hang_up = select.poll()
    hang_up.register(connection, 0)  # poll reports a hang-up without being asked
    hang_up.poll()
    time.sleep(_LAST_REQUEST_S)
    os._exit(0)


class Unusable(Transport):
    """Stands in where no connection can be made, and tells each request why."""

    def __init__(self, error: Exception) -> None:
        self._reason = f"cannot connect: {error}"

    def send(self, request: Request, span_count: int, timeout_s: float) -> Answer:
        raise Retryable(self._reason)

    def close(self) -> None: ...

    def after_fork_in_child(self) -> None: ...


def _receive(connection: socket.socket) -> link.Received:
    received = link.receive(connection)
    if received is None:
        os._exit(0)  # the traced process is gone
    return received


def _answer_to(transport: Transport, received: link.Received) -> bytes:
    outcome: Answer | Exception
    try:
        outcome = transport.send((received.envelope,), received.span_count, received.timeout_s)
    except Exception as error:
        outcome = error
    return link.pack_answer(outcome)
