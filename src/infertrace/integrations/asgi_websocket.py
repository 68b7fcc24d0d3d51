"""A connection of WebSocket, from its handshake to its end, as one span.

Source of the codes: RFC 6455, section 7.4, and the registry of IANA.
"""

from __future__ import annotations

from typing import Final

from infertrace.integrations.asgi_protocol import Application, Begun, Message, Receive, Scope, Send

WEBSOCKET: Final = "WS"  # as FastAPI's own tracing has it
_ACCEPTED: Final = 101
_REFUSED: Final = 403  # what a server answers where the application closes and had not accepted
_NORMAL: Final = 1000
# Normal, going away, no code, and what applications define.
_FINE: Final = (_NORMAL, 1001, 1005)
_OF_APPLICATIONS: Final = 3000
# Without a farewell, and a server that restarts.
_CUT: Final = {1006: "the client has gone", 1012: "the server has ended"}
_FAILURES: Final = (1011, 1012, 1013, 1014)  # of those that an application sends


class WebSocket:
    """What passes between application and client."""

    def __init__(self, begun: Begun, receive: Receive, send: Send) -> None:
        self._begun = begun
        self._span = begun.span
        self._receive = receive
        self._send = send
        self._received = self._sent = 0
        self._is_accepted = self._is_over = False

    async def run(self, app: Application, scope: Scope) -> None:
        """Serve the connection; ends its span."""
        try:
            await app(scope, self.receive, self.send)
            if not (self._is_accepted or self._is_over):
                self._span.set_status("ERROR", "the handshake is not complete")
        except BaseException as error:
            self._count()
            # So applications that do not catch it say that the client has closed.
            if self._is_over and type(error).__name__ == "WebSocketDisconnect":
                self._span.end()
            raise
        self._count()

    async def receive(self) -> Message:
        message = await self._receive()
        kind = message["type"]
        if kind == "websocket.receive":
            self._received += 1
        elif kind == "websocket.disconnect" and not self._is_over:
            self._end(message.get("code", _NORMAL))
        return message

    async def send(self, message: Message) -> None:
        kind = message["type"]
        if kind == "websocket.accept":
            self._is_accepted = True
            self._begun.answer(_ACCEPTED)
        elif kind == "websocket.close" and not self._is_over:
            self._close(message.get("code", _NORMAL))
        elif kind == "websocket.http.response.start":
            self._is_over = True
            self._begun.answer(message["status"])
        try:
            await self._send(message)
        except OSError:  # so some servers say that the client has gone
            if not self._is_over:
                self._end(1006)
            raise
        if kind == "websocket.send":
            self._sent += 1

    def _close(self, code: int) -> None:
        self._is_over = True
        if not self._is_accepted:
            self._begun.answer(_REFUSED)
            return
        self._span.set_attribute("websocket.close_code", code)
        if code in _FAILURES:
            self._span.set_status("ERROR", f"closed with {code}")

    def _end(self, code: int) -> None:
        """The client has closed, or has gone."""
        self._is_over = True
        self._span.set_attribute("websocket.close_code", code)
        if code in _CUT:
            self._span.set_status("CANCELLED", _CUT[code])
        elif code not in _FINE and code < _OF_APPLICATIONS:
            self._span.set_status("ERROR", f"closed with {code}")

    def _count(self) -> None:
        self._span.set_attribute("websocket.messages_received", self._received)
        self._span.set_attribute("websocket.messages_sent", self._sent)
