"""The sender process of one tracer: takes requests from a socket, sends them, answers.

It keeps nothing: the traced process has the batch until it is acknowledged. So it may be killed,
and it goes when its socket closes, soon also when the collector does not answer; signals that are
meant for the traced program do not end it first.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import threading
import time
from typing import Final

from infertrace.exporting import link
from infertrace.exporting.choice import load_transport
from infertrace.exporting.sender_session import Session
from infertrace.exporting.shared_transports import SharedTransports

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
    connection.sendall(link.greeting())
    threading.Thread(target=_leave_with, args=(connection,), daemon=True).start()
    with contextlib.suppress(OSError):
        Session(connection, SharedTransports(), takes_packed=True).run()
    os._exit(0)  # the traced process is gone


def _leave_with(connection: socket.socket) -> None:
    """End when the other end has closed, whatever the collector does."""
    hang_up = select.poll()
    hang_up.register(connection, 0)  # poll reports a hang-up without being asked
    hang_up.poll()
    time.sleep(_LAST_REQUEST_S)
    os._exit(0)
