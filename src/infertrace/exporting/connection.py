"""The exporter's connection: opened when it is needed, and what the log says of it."""

from __future__ import annotations

import contextlib
from enum import Enum, auto

from infertrace.exporting.answer import Retryable, SpeaksOtlp
from infertrace.exporting.log_text import one_line
from infertrace.exporting.packed_request import PackedRequest
from infertrace.log import logger

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from infertrace.exporting.answer import Answer
    from infertrace.exporting.envelope import Request
    from infertrace.exporting.transport import Transport


class State(Enum):
    """What became of the last request."""

    UNKNOWN = auto()
    UP = auto()
    DOWN = auto()
    REFUSED = auto()


class Connection:
    """One transport at a time."""

    def __init__(
        self,
        endpoint: str,
        open_transport: Callable[[], Transport],
        open_for_otlp: Callable[[], Transport] | None = None,
    ) -> None:
        self.transport: Transport | None = None
        self._parked: Transport | None = None
        self._is_parked = False
        self.takes_otlp = False
        """Whether the endpoint turned out to take OTLP, and not our own protocol."""
        self.state = State.UNKNOWN
        self.use(endpoint, open_transport, open_for_otlp)

    def use(
        self,
        endpoint: str,
        open_transport: Callable[[], Transport],
        open_for_otlp: Callable[[], Transport] | None = None,
    ) -> None:
        """Open the next transport by this; the one that is open stays until `disconnect`.

        open_for_otlp: opens the one for where the endpoint turns out to take OTLP instead.
        """
        self.endpoint = endpoint
        """For messages."""
        self.takes_otlp = False
        self._open_transport = open_transport
        self._open_for_otlp = open_for_otlp

    def send(self, request: Request | PackedRequest, span_count: int, timeout_s: float) -> Answer:
        try:
            return self._send(request, span_count, timeout_s)
        except SpeaksOtlp:
            if self._open_for_otlp is None:
                raise
            self._switch_to_otlp(self._open_for_otlp)
        return self._send(request, span_count, timeout_s)

    def _send(self, request: Request | PackedRequest, span_count: int, timeout_s: float) -> Answer:
        transport = self._connected()
        if isinstance(request, PackedRequest):
            return transport.send_packed(request, span_count, timeout_s)
        return transport.send(request, span_count, timeout_s)

    def prepare(self) -> None:
        """Open the transport before there is anything to send, if that is possible now."""
        with contextlib.suppress(Exception):  # told of where something is to be sent
            self._connected()

    def _switch_to_otlp(self, open_for_otlp: Callable[[], Transport]) -> None:
        """Nothing of the batch was taken: an empty request has shown what the endpoint takes."""
        logger.warning(
            "%s: takes OTLP, and not infertrace's protocol; spans go there by OTLP from now on "
            "(protocol='otlp/grpc' says so from the start)",
            self.endpoint,
        )
        self.use(self.endpoint, open_for_otlp)
        self.takes_otlp = True
        self.disconnect()

    def _connected(self) -> Transport:
        while (transport := self.transport) is None:
            opening = self._open_transport
            opened = opening()
            if self._is_parked:
                opened.close()
                raise Retryable("a sender has the spans")
            self.transport = opened
            if opening is not self._open_transport:  # another thread has called `use`
                self.disconnect()
        return transport

    def disconnect(self) -> None:
        transport, self.transport = self.transport, None
        if transport is not None:
            transport.close()

    def park(self) -> Transport | None:
        """Have nobody use the transport any more, or open another, and `disconnect` leave it open
        until `close_parked`."""
        self._is_parked = True
        self._parked, self.transport = self.transport, None
        return self._parked

    def close_parked(self) -> None:
        parked, self._parked = self._parked, None
        if parked is not None:
            parked.close()

    def after_fork_in_child(self) -> None:
        """Leave the parent's transports alone, and know nothing of the endpoint."""
        for transport in (self.transport, self._parked):
            if transport is not None:
                transport.after_fork_in_child()
        self.transport = self._parked = None
        self._is_parked = False
        self.state = State.UNKNOWN

    def change_state(self, state: State, level: int, message: str) -> None:
        """Log one line when the state changes, never one for each failure."""
        if state is not self.state:
            self.state = state
            logger.log(level, "%s: %s", self.endpoint, one_line(message))
