"""The service of OTLP that takes traces: its method, and what its answers say.

Sources: opentelemetry/proto/collector/trace/v1/trace_service.proto; google/rpc/status.proto. The
messages are three fields, not worth a dependency.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from infertrace.wire.protobuf import LENGTH_DELIMITED, VARINT, WireError, read_varint, skip_value

GRPC_METHOD: Final = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"

_UINT64: Final = 2**64
_INT64_MAX: Final = 2**63 - 1


class PartialSuccess(NamedTuple):
    """What an answer says of the spans that were not taken."""

    rejected_spans: int
    error_message: str
    """Without rejected spans, a warning."""


def read_response(response: bytes) -> PartialSuccess:
    """What an `ExportTraceServiceResponse` says; raises WireError where it is none."""
    rejected, message = 0, ""
    for tag, value in _fields(response):
        if tag == 1 << 3 | LENGTH_DELIMITED and isinstance(value, bytes):
            for inner, found in _fields(value):
                if inner == 1 << 3 | VARINT and isinstance(found, int):
                    rejected = found - _UINT64 if found > _INT64_MAX else found
                elif inner == 2 << 3 | LENGTH_DELIMITED and isinstance(found, bytes):
                    message = found.decode(errors="replace")
    return PartialSuccess(rejected, message)


def read_status_message(status: bytes) -> str:
    """The message of a google.rpc.Status; raises WireError where it is none."""
    message = ""
    for tag, value in _fields(status):
        if tag == 2 << 3 | LENGTH_DELIMITED and isinstance(value, bytes):
            message = value.decode(errors="replace")
    return message


def _fields(message: bytes) -> list[tuple[int, int | bytes]]:
    found: list[tuple[int, int | bytes]] = []
    position = 0
    while position < len(message):
        tag, start = read_varint(message, position)
        position = skip_value(message, start, tag & 7)
        if position > len(message) or not tag >> 3:
            raise WireError("cut short within a field")
        if tag & 7 == VARINT:
            found.append((tag, read_varint(message, start)[0] % _UINT64))
        elif tag & 7 == LENGTH_DELIMITED:
            size, start = read_varint(message, start)
            found.append((tag, message[start : start + size]))
    return found
