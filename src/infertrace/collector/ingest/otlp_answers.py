"""What a sender of OTLP hears, in the encoding of its request.

The messages are ExportTraceServiceResponse (partial_success = 1: rejected_spans = 1,
error_message = 2) and google.rpc.Status (code = 1, message = 2):
https://github.com/open-telemetry/opentelemetry-proto, collector/trace/v1/trace_service.proto, and
https://github.com/googleapis/googleapis/blob/master/google/rpc/status.proto.
"""

from __future__ import annotations

import json

from infertrace.collector.ingest.request_batches import DecodedRequest
from infertrace.wire.protobuf import delimited, varint

PROTOBUF = "application/x-protobuf"
JSON = "application/json"

_MISDIRECTED = (
    "no span of the request has a valid trace_id: logs and metrics that are sent to the route of "
    "traces look like that, and infertrace takes traces only"
)


def misdirected(decoded: DecodedRequest) -> str | None:
    """Why all of a request is wrong that holds no span at all, by the look of it; or None."""
    reasons = {reason for sender in decoded.batch.senders for reason in sender.rejected}
    rejected = len(decoded.batch.rejected_positions)
    if not rejected or rejected < decoded.batch.span_count:
        return None
    if any(not reason.startswith("trace_id:") for reason in reasons):
        return None
    return f"{_MISDIRECTED} ({decoded.rejection_reason})"


def export_response(decoded: DecodedRequest, content_type: str = PROTOBUF) -> bytes:
    """An ExportTraceServiceResponse, without `partial_success` where nothing was rejected."""
    rejected = len(decoded.batch.rejected_positions)
    if content_type == JSON:
        partial = {"rejectedSpans": str(rejected), "errorMessage": decoded.rejection_reason}
        return json.dumps({"partialSuccess": partial} if rejected else {}).encode()
    if not rejected:
        return b""
    return delimited(
        b"\x0a",
        b"\x08" + varint(rejected) + delimited(b"\x12", decoded.rejection_reason.encode()),
    )


def status(code: int, message: str, content_type: str) -> bytes:
    """A google.rpc.Status; `code` is one of gRPC."""
    if content_type == JSON:
        return json.dumps({"code": code, "message": message}).encode()
    return b"\x08" + varint(code) + delimited(b"\x12", message.encode("utf-8", "replace"))
