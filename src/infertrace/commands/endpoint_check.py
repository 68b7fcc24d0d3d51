"""Finds out what answers at an endpoint that is not an infertrace collector over gRPC."""

from __future__ import annotations

import http.client
import ssl
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from infertrace.configuration import Settings

_GRPC_PORT: Final = 4317
_OTHER_PORTS: Final = {
    4318: "4318 is by custom the port of OTLP over HTTP",
    8080: "8080 is by default the port on which a collector answers over HTTP",
}


def address(settings: Settings) -> tuple[str, int]:
    """Host and port."""
    host, _, port = settings.endpoint.rpartition("://")[2].rstrip("/").rpartition(":")
    return host.strip("[]"), int(port)


def port_hint(settings: Settings) -> str:
    """What a port that is often mistaken for the right one is for; empty for other ports."""
    known = _OTHER_PORTS.get(address(settings)[1])
    return f"; {known}: spans go to a collector's gRPC port, {_GRPC_PORT}" if known else ""


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
