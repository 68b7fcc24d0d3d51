"""The status details that tell a sender when to come again, in either trailer that has them.

`grpc-status-details-bin` carries a google.rpc.Status (code = 1, message = 2, details = 3), whose
details hold a google.rpc.RetryInfo (retry_delay = 1), each wrapped in an Any:
https://github.com/googleapis/googleapis/blob/master/google/rpc/status.proto and
error_details.proto beside it. Any and Duration come with protobuf; the two outer messages are
three fields, not worth a dependency. OpenTelemetry's exporter for Python reads the RetryInfo alone,
from `google.rpc.retryinfo-bin`.
"""

from __future__ import annotations

from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError

from infertrace.wire.protobuf import WireError, delimited, delimited_fields, varint

STATUS_DETAILS_KEY = "grpc-status-details-bin"
RETRY_INFO_KEY = "google.rpc.retryinfo-bin"
"""Carries a RetryInfo by itself, without google.rpc.Status around it."""

_RESOURCE_EXHAUSTED = 8
_TYPE_URL = "type.googleapis.com/google.rpc.RetryInfo"


def retry_details(message: str, delay_s: int) -> bytes:
    """A google.rpc.Status RESOURCE_EXHAUSTED that asks for a retry after `delay_s` seconds."""
    details = Any(type_url=_TYPE_URL, value=retry_info(delay_s)).SerializeToString()
    return (
        b"\x08"
        + varint(_RESOURCE_EXHAUSTED)
        + delimited(b"\x12", message.encode())
        + delimited(b"\x1a", details)
    )


def retry_info(delay_s: int) -> bytes:
    """A google.rpc.RetryInfo."""
    return delimited(b"\x0a", Duration(seconds=delay_s).SerializeToString())


def retry_delay_s(status: bytes) -> float | None:
    """The delay in seconds that a google.rpc.Status asks for; None where it asks for none."""
    try:
        for detail in delimited_fields(status, 3):
            packed = Any.FromString(detail)
            if packed.type_url == _TYPE_URL:
                return retry_info_delay_s(packed.value)
    except (DecodeError, WireError):
        pass
    return None


def retry_info_delay_s(encoded: bytes) -> float | None:
    """The delay in seconds of a google.rpc.RetryInfo; None where it has none."""
    try:
        for delay in delimited_fields(encoded, 1):
            duration = Duration.FromString(delay)
            return float(duration.seconds + duration.nanos / 1e9)
    except (DecodeError, WireError):
        pass
    return None
