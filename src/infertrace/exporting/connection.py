"""The exporter's connection: opened when it is needed, and what the log says of it."""

from __future__ import annotations

import logging
from enum import Enum, auto
from typing import TYPE_CHECKING

from infertrace.exporting.log_text import one_line

if TYPE_CHECKING:
    from collections.abc import Callable

    from infertrace.exporting.answer import Answer
    from infertrace.exporting.envelope import Request
    from infertrace.exporting.transport import Transport

logger = logging.getLogger("infertrace")


class State(Enum):
    """What became of the last request."""

    UNKNOWN = auto()
    UP = auto()
    DOWN = auto()
    REFUSED = auto()


class Connection:
    """One transport at a time."""

    def __init__(self, endpoint: str, open_transport: Callable[[], Transport]) -> None:
        self.endpoint = endpoint
        """For messages."""
        self._open_transport = open_transport
        self.transport: Transport | None = None
        self.state = State.UNKNOWN

    def use(self, endpoint: str, open_transport: Callable[[], Transport]) -> None:
        """Open the next transport by this; the one that is open stays until `disconnect`."""
        self.endpoint = endpoint
        self._open_transport = open_transport

    def send(self, request: Request, span_count: int, timeout_s: float) -> Answer:
        return self._connected().send(request, span_count, timeout_s)

    def _connected(self) -> Transport:
        while (transport := self.transport) is None:
            opening = self._open_transport
            self.transport = opening()
            if opening is not self._open_transport:  # another thread has called `use`
                self.disconnect()
        return transport

    def disconnect(self) -> None:
        transport, self.transport = self.transport, None
        if transport is not None:
            transport.close()

    def after_fork_in_child(self) -> None:
        """Leave the parent's transport alone, and know nothing of the endpoint."""
        transport, self.transport = self.transport, None
        if transport is not None:
            transport.after_fork_in_child()
        self.state = State.UNKNOWN

    def change_state(self, state: State, level: int, message: str) -> None:
        """Log one line when the state changes, never one for each failure."""
        if state is not self.state:
            self.state = state
            logger.log(level, "%s: %s", self.endpoint, one_line(message))
