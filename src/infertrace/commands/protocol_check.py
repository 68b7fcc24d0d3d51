"""Finds out whether the endpoint speaks the protocol that a tracer would speak."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from infertrace.commands.endpoint_check import http_hint, port_hint
from infertrace.commands.finding import NOTE, OK, PROBLEM, Finding
from infertrace.exporting.answer import Answer, SendError, SpeaksOtlp
from infertrace.exporting.choice import choose_wire, open_here
from infertrace.exporting.envelope import Request
from infertrace.exporting.target import Target
from infertrace.exporting.wire import Encoded, Wire

if TYPE_CHECKING:
    from infertrace.configuration import Settings

_SPOKEN: Final = {
    "infertrace": "infertrace's over gRPC",
    "otlp/grpc": "OTLP over gRPC",
    "otlp/http": "OTLP over HTTP",
}


class EmptyRequest(Wire):
    """A request without spans, which every protocol takes."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    @property
    def grpc_method(self) -> str:
        return self._wire.grpc_method

    def encode(self, request: Request, span_count: int) -> Encoded:
        return Encoded(b"", 0)

    def read(self, reply: bytes, encoded: Encoded) -> Answer:
        return self._wire.read(reply, encoded)


def check_protocol(settings: Settings, timeout_s: float) -> Finding:
    """What an empty request is answered."""
    protocol = settings.protocol
    try:
        transport = open_here(
            Target.of(settings), EmptyRequest(choose_wire(protocol, settings.conventions))
        )
    except OSError as error:
        return Finding("protocol", PROBLEM, f"cannot connect: {error}")
    try:
        transport.send((), 0, timeout_s)
    except SpeaksOtlp:
        detail = "OTLP, and not infertrace's: spans go there by OTLP; protocol='otlp/grpc' says so"
        return Finding("protocol", NOTE, detail)
    except SendError as error:
        hint = "" if protocol == "otlp/http" else http_hint(settings, timeout_s)
        detail = f"{protocol}: {error}{hint or port_hint(settings)}"
        return Finding("protocol", PROBLEM, detail)
    finally:
        transport.close()
    return Finding("protocol", OK, _SPOKEN[protocol])
