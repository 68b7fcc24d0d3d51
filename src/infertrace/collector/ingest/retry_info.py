"""The status details that tell a producer when to retry.

`grpc-status-details-bin` carries a google.rpc.Status (code = 1, message = 2, details = 3), whose
details hold a google.rpc.RetryInfo (retry_delay = 1), each wrapped in an Any:
https://github.com/googleapis/googleapis/blob/master/google/rpc/status.proto and
error_details.proto beside it. Any and Duration come with protobuf; the two outer messages are
three fields, not worth a dependency.
"""

from __future__ import annotations

from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration

STATUS_DETAILS_KEY = "grpc-status-details-bin"

_RESOURCE_EXHAUSTED = 8


def retry_details(message: str, delay_s: int) -> bytes:
    """A google.rpc.Status RESOURCE_EXHAUSTED that asks for a retry after `delay_s` seconds."""
    retry_info = _field(1, Duration(seconds=delay_s).SerializeToString())
    details = Any(type_url="type.googleapis.com/google.rpc.RetryInfo", value=retry_info)
    code = bytes((1 << 3, _RESOURCE_EXHAUSTED))
    return code + _field(2, message.encode()) + _field(3, details.SerializeToString())


def _field(number: int, value: bytes) -> bytes:
    if len(value) > 127:
        raise ValueError("expected at most 127 bytes, whose length is one byte")
    return bytes((number << 3 | 2, len(value))) + value
