"""Serves an ASGI application over HTTP/1.1 from a thread, within limits."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import threading
from collections.abc import Callable
from operator import itemgetter
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from infertrace.collector.background_thread import BackgroundThread

MAX_CONNECTIONS = 1_024
MAX_HEADER_BYTES = 32 * 1024
REQUEST_TIMEOUT_S = 10  # for a client to send its whole request
HANDSHAKE_TIMEOUT_S = 10  # of TLS
ANSWER_TIMEOUT_S = 30  # for a client to read what waits to be sent
KEEP_ALIVE_S = 15
START_TIMEOUT_S = 30

_WAITING_FOR_CLIENT = ("IDLE", "SEND_BODY")

_log = logging.getLogger(__name__)


class BoundedProtocol(H11Protocol):
    """Closes connections of slow clients, and beyond the limit those that have waited longest.

    uvicorn bounds the pause between two requests, but neither the time in which a request has to
    arrive, nor that in which a client has to read the answer.
    """

    _deadline: asyncio.TimerHandle | None = None
    _taken: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._watch_request()
        if len(self.connections) > MAX_CONNECTIONS:
            self._make_room()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch_request()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._watch_request()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._taken = self.loop.call_later(ANSWER_TIMEOUT_S, self.transport.abort)
        self._forget_deadline()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._forget_taken()
        self._watch_request()

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget_deadline()
        self._forget_taken()
        super().connection_lost(exc)

    def _watch_request(self) -> None:
        waiting = self._taken is None and str(self.conn.their_state) in _WAITING_FOR_CLIENT
        if not waiting:
            self._forget_deadline()
        elif self._deadline is None:
            self._deadline = self.loop.call_later(REQUEST_TIMEOUT_S, self.transport.abort)

    def _make_room(self) -> None:
        """End the connection that has waited longest for its client; a new one has not waited."""
        waiting = [
            (timer.when(), connection.transport)
            for connection in self.connections
            if isinstance(connection, BoundedProtocol)
            and (timer := connection._deadline or connection._taken) is not None
            and not connection.transport.is_closing()
        ]
        # An aborted connection stays in `connections` for a moment.
        _, transport = min(waiting, key=itemgetter(0), default=(0.0, self.transport))
        transport.abort()

    def _forget_taken(self) -> None:
        if self._taken is not None:
            self._taken.cancel()
            self._taken = None

    def _forget_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


class _ThreadedServer(uvicorn.Server):
    def __init__(
        self, config: uvicorn.Config, tls: ssl.SSLContext | None, is_ready: Callable[[], None]
    ) -> None:
        super().__init__(config)
        self._tls = tls
        self._is_ready = is_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        # uvicorn's own listeners give a client a minute for the handshake of TLS.
        await super().startup([])
        for each in sockets or []:
            server = await asyncio.get_running_loop().create_server(
                self._protocol,
                sock=each,
                backlog=MAX_CONNECTIONS,
                ssl=self._tls,
                ssl_handshake_timeout=None if self._tls is None else HANDSHAKE_TIMEOUT_S,
            )
            self.servers.append(server)
        self._is_ready()

    def _protocol(self) -> BoundedProtocol:
        return BoundedProtocol(self.config, self.server_state, self.lifespan.state)

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        try:
            await super().serve(sockets)
        finally:
            # After an error, uvicorn leaves its sockets open.
            for server in self.servers if self.started else ():
                server.close()
            for connection in list(self.server_state.connections):
                connection.transport.abort()


class HttpServer:
    """Listens once constructed, which may raise OSError; answers once started.

    With `tls`, it speaks HTTPS alone. `name` is that of its thread.
    """

    def __init__(
        self, host: str, port: int, tls: ssl.SSLContext | None = None, name: str = "http"
    ) -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._socket = socket.create_server((host, port), family=family, backlog=MAX_CONNECTIONS)
        # asyncio sets this only on sockets that name their protocol, which this one does not.
        # Without it, the body of an answer waits 40 ms for its head. Accepted sockets inherit it.
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.port: int = self._socket.getsockname()[1]
        self._tls = tls
        self._server: _ThreadedServer | None = None
        self._is_ready = threading.Event()
        self._is_stopping = False
        self.thread = BackgroundThread(name, self._serve)

    def start(self, app: Callable[..., Any]) -> None:
        """Answer with `app`, which is of ASGI; returns once the first request can be answered."""
        options: dict[str, Any] = {
            "http": BoundedProtocol,
            "ws": "none",
            "lifespan": "off",
            "log_config": None,
            "access_log": False,
            "server_header": False,
            "proxy_headers": False,
            "h11_max_incomplete_event_size": MAX_HEADER_BYTES,
            "timeout_keep_alive": KEEP_ALIVE_S,
        }
        self._config = uvicorn.Config(app, **options)
        # uvicorn installs signal handlers only in the main thread.
        self.thread.start()
        if not self._is_ready.wait(START_TIMEOUT_S):
            raise RuntimeError("the HTTP server did not start")

    def _serve(self, thread: BackgroundThread) -> None:
        def is_ready() -> None:
            thread.does_well()
            self._is_ready.set()

        self._server = _ThreadedServer(self._config, self._tls, is_ready)
        # A copy, since the server closes the socket that it gets.
        with self._socket.dup() as copy:
            self._server.run([copy])
        if not self._is_stopping:
            raise RuntimeError("the HTTP server ended by itself")

    def stop(self, grace_s: float) -> None:
        """Accept no new request, and give those in progress `grace_s` seconds."""
        self._is_stopping = True
        if self._server is None:
            return
        self._config.timeout_graceful_shutdown = max(1, int(grace_s))
        self._server.should_exit = True
        if not self.thread.stop(grace_s + 1):
            _log.warning("the HTTP server did not stop within %s s", grace_s)

    def close(self) -> None:
        """Stop listening."""
        self._socket.close()
