"""Finds out what answers at an endpoint that is not an infertrace collector over gRPC."""

from __future__ import annotations

import http.client
import ssl
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from infertrace.configuration import Settings

_GRPC_PORT: Final = 4317
_HTTP_PORT: Final = 4318
_PORTS: Final = {
    _GRPC_PORT: "4317 is by custom the port of gRPC",
    _HTTP_PORT: "4318 is by custom the port of OTLP over HTTP",
    8080: "8080 is by default the port on which a collector answers over HTTP",
}
# Which of them is right, and what it is.
_RIGHT_PORTS: Final = {
    "infertrace": (_GRPC_PORT, "spans go to a collector's gRPC port, 4317"),
    "otlp/grpc": (_GRPC_PORT, "OTLP over gRPC goes to 4317 by custom"),
    "otlp/http": (_HTTP_PORT, "OTLP over HTTP goes to 4318 by custom"),
}


def address(settings: Settings) -> tuple[str, int]:
    """Host and port."""
    host, _, port = settings.endpoint.rpartition("://")[2].partition("/")[0].rpartition(":")
    return host.strip("[]"), int(port)


def port_hint(settings: Settings) -> str:
    """What a port that is often mistaken for the right one is for; empty for other ports."""
    port = address(settings)[1]
    right, said = _RIGHT_PORTS[settings.protocol]
    return f"; {_PORTS[port]}: {said}" if port in _PORTS and port != right else ""


def http_hint(settings: Settings, timeout_s: float) -> str:
    """A hint that HTTP answers there, and whose it is; empty if it does not."""
    host, port = address(settings)
    connection: http.client.HTTPConnection
    if settings.endpoint.startswith("https:"):
        # The request holds no secret, and the answer is only used to name the server.
        unverified = ssl._create_unverified_context()
        connection = http.client.HTTPSConnection(host, port, timeout=timeout_s, context=unverified)
    else:
        connection = http.client.HTTPConnection(host, port, timeout=timeout_s)
    try:
        connection.request("GET", "/openapi.json")
        answer = connection.getresponse()
        is_ours = b"infertrace" in answer.read(4096)
    except (OSError, http.client.HTTPException):
        return ""
    finally:
        connection.close()
    whose = ": the HTTP side of a collector of infertrace" if is_ours else ""
    return (
        f"; it answers HTTP/1.1, not gRPC{whose}; spans go to a collector's gRPC port, "
        f"{_GRPC_PORT} by default"
    )
