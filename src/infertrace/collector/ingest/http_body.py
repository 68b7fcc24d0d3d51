"""The bodies of requests over HTTP, bounded in bytes: each, and all that are held at once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any

from infertrace.collector.ingest.reading_places import NoPlaceError
from infertrace.collector.ingest.wire_fields import RequestTooLargeError

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


def too_large(max_bytes: int) -> str:
    """What a sender is told whose body has more bytes."""
    return f"body: expected at most {max_bytes} bytes"


class BodyBudget:
    """At most `max_bytes` of bodies at once, and `max_body_bytes` of each; for one event loop."""

    def __init__(self, max_bytes: int, max_body_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._max_body_bytes = max_body_bytes
        self._held_bytes = 0

    @contextmanager
    def body(self, receive: Receive) -> Iterator[Callable[[], Awaitable[bytes | None]]]:
        """Reads one body of ASGI, whose bytes count until the end of the block.

        The reader returns None where the connection ends before the body does. It raises
        RequestTooLargeError, and NoPlaceError where others hold too many bytes.
        """
        size = 0
        is_over = False

        async def read() -> bytes | None:
            nonlocal size
            pieces: list[bytes] = []
            while True:
                message = await receive()
                # A refused request may still be read from, until its connection says that it ended.
                if is_over or message["type"] != "http.request":
                    return None
                piece: bytes = message.get("body", b"")
                size += len(piece)
                self._held_bytes += len(piece)
                if size > self._max_body_bytes:
                    raise RequestTooLargeError(too_large(self._max_body_bytes))
                if self._held_bytes > self._max_bytes:
                    raise NoPlaceError("too many bytes of requests at once")
                pieces.append(piece)
                if not message.get("more_body"):
                    return b"".join(pieces)

        try:
            yield read
        finally:
            is_over = True
            self._held_bytes -= size
