"""Requests that are OTLP already, as files hold them; the answers are as for `otlp_wire.py`."""

from __future__ import annotations

from infertrace.exporting.answer import Answer
from infertrace.exporting.envelope import Request
from infertrace.exporting.otlp_wire import read_answer
from infertrace.exporting.wire import Encoded, Wire
from infertrace.otlp.export_service import GRPC_METHOD


class OtlpRequestWire(Wire):
    """Takes an ExportTraceServiceRequest as it is."""

    @property
    def grpc_method(self) -> str:
        return GRPC_METHOD

    def encode(self, request: Request, span_count: int) -> Encoded:
        return Encoded(b"".join(request), span_count)

    def read(self, reply: bytes, encoded: Encoded) -> Answer:
        return read_answer(reply, encoded)
