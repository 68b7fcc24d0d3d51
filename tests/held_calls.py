"""Opens calls whose request never ends: HTTP/2 by hand.

gRPC's own client would wait when a server asks it to; these calls do not.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

_HEADERS, _DATA, _SETTINGS = 1, 0, 4
_END_HEADERS = 4
_METHOD_POST, _SCHEME_HTTP = b"\x83", b"\x86"


def _frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    length = struct.pack(">I", len(payload))[1:]
    return length + bytes((kind, flags)) + struct.pack(">I", stream) + payload


def _literal(name: bytes, value: bytes) -> bytes:
    return b"\x00" + bytes((len(name),)) + name + bytes((len(value),)) + value


_CALL = (
    _METHOD_POST
    + _SCHEME_HTTP
    + _literal(b":path", b"/infertrace.v1.CollectorService/SendSpanBatch")
    + _literal(b":authority", b"x")
    + _literal(b"content-type", b"application/grpc")
    + _literal(b"te", b"trailers")
)
_BEGINNING = struct.pack(">BI", 0, 65_535)  # not compressed, and so long; the bytes never come


@contextmanager
def held_calls(address: str, connections: int, calls_each: int) -> Iterator[None]:
    host, _, port = address.rpartition(":")
    with ExitStack() as stack:
        for _ in range(connections):
            connection = stack.enter_context(socket.create_connection((host, int(port)), 30))
            frames = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", _frame(_SETTINGS, 0, 0)]
            for number in range(calls_each):
                stream = 2 * number + 1
                frames.append(_frame(_HEADERS, _END_HEADERS, stream, _CALL))
                frames.append(_frame(_DATA, 0, stream, _BEGINNING))
            connection.sendall(b"".join(frames))
        yield
