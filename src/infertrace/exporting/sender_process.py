"""The sender process: takes requests from a socket, sends them over gRPC, answers.

It keeps nothing: who asked has the batch until it is settled. So it may be killed, and it
goes when its socket closes, soon also when the collector does not answer; signals that are meant
for the traced program do not end it first.
"""

from __future__ import annotations

import json
import math
import os
import select
import signal
import socket
import threading
import time
from typing import Final

from infertrace.exporting.grpc_transport import GrpcTransport
from infertrace.exporting.process_transport import (
    ACCEPTED,
    ANSWER,
    MAX_TEXT_BYTES,
    OVERLOADED,
    READY,
    REFUSED,
    REQUEST,
    RETRYABLE,
    STUMBLED,
    TOO_LARGE,
)
from infertrace.exporting.transport import (
    Answer,
    Overloaded,
    Refused,
    Request,
    Retryable,
    Stumbled,
    Target,
    TooLarge,
    Transport,
)

# For the request in flight, when the traced process is gone.
_LAST_REQUEST_S: Final = 1.0


def main(descriptor: int) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    connection = socket.socket(fileno=descriptor)
    connection.setblocking(True)  # a program with green threads makes none that block
    connection.sendall(READY)
    threading.Thread(target=_leave_with, args=(connection,), daemon=True).start()
    settings, _ = _receive(connection)
    try:
        transport: Transport = GrpcTransport(Target(**json.loads(settings)))
    except Exception as error:
        transport = Unusable(error)
    while True:
        connection.sendall(_answer_to(transport, *_receive(connection)))


def _leave_with(connection: socket.socket) -> None:
    """End when the other end has closed, whatever the collector does."""
    hang_up = select.poll()
    hang_up.register(connection, 0)  # asked or not, poll tells of a hang-up
    hang_up.poll()
    time.sleep(_LAST_REQUEST_S)
    os._exit(0)


class Unusable:
    """Stands in where no connection can be made, and tells each request why."""

    def __init__(self, error: Exception) -> None:
        self._reason = f"cannot connect: {error}"

    def send(self, request: Request, timeout_s: float) -> Answer:
        raise Retryable(self._reason)

    def close(self) -> None: ...

    def forget(self) -> None: ...


def _receive(connection: socket.socket) -> tuple[bytes, float]:
    size, timeout_s = REQUEST.unpack(_read(connection, REQUEST.size))
    return _read(connection, size), timeout_s


def _read(connection: socket.socket, size: int) -> bytes:
    found = connection.recv(size, socket.MSG_WAITALL)
    if len(found) < size:
        os._exit(0)  # nobody is left to send for
    return found


def _answer_to(transport: Transport, request: bytes, timeout_s: float) -> bytes:
    kind, accepted, rejected, retry_after_s = RETRYABLE, 0, 0, math.nan
    try:
        answer = transport.send((request,), timeout_s)
        kind, text = ACCEPTED, answer.rejection_reason
        accepted, rejected = answer.accepted_count, answer.rejected_count
    except TooLarge as error:
        kind, text = TOO_LARGE, str(error)
    except Refused as error:
        kind, text = REFUSED, str(error)
    except Overloaded as error:
        kind, text = OVERLOADED, str(error)
    except Stumbled as error:
        kind, text = STUMBLED, str(error)
    except Retryable as error:
        text = str(error)
        if error.retry_after_s is not None:
            retry_after_s = error.retry_after_s
    except Exception as error:  # what gRPC does not document; the batch may fare better next time
        text = f"{type(error).__name__}: {error}"
    shown = text.encode(errors="replace")[:MAX_TEXT_BYTES].decode(errors="ignore").encode()
    return ANSWER.pack(kind, accepted, rejected, retry_after_s, len(shown)) + shown
