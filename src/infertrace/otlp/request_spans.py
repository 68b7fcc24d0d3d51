"""The spans of an ExportTraceServiceRequest, by their places in its bytes.

Source of the numbers: opentelemetry/proto/trace/v1/trace.proto.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from infertrace.otlp.pure_reader import fields

_RESOURCE_SPANS: Final = 0x0A
_SCOPE_SPANS: Final = 0x12
_SPANS: Final = 0x12


def count_spans(request: bytes) -> int:
    """How many spans a request has; raises WireError where it is no protobuf."""
    return sum(
        1
        for group in _messages(request, _RESOURCE_SPANS)
        for scope in _messages(group, _SCOPE_SPANS)
        for _ in _messages(scope, _SPANS)
    )


def _messages(message: bytes, tag: int) -> Iterator[bytes]:
    for found, value in fields(message):
        if found == tag and isinstance(value, bytes):
            yield value
