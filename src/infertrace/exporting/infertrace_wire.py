"""infertrace's own protocol: proto/span.proto."""

from __future__ import annotations

from typing import Final

from google.protobuf.message import DecodeError

from infertrace.exporting.answer import Answer, Refused
from infertrace.exporting.envelope import Request
from infertrace.exporting.wire import Encoded, Wire
from infertrace.generated.span_pb2 import SendSpanBatchResponse

_GRPC_METHOD: Final = "/infertrace.v1.CollectorService/SendSpanBatch"


class InfertraceWire(Wire):
    """Takes the envelope as it is."""

    @property
    def grpc_method(self) -> str:
        return _GRPC_METHOD

    def encode(self, request: Request, span_count: int) -> Encoded:
        return Encoded(b"".join(request), span_count)

    def read(self, reply: bytes, encoded: Encoded) -> Answer:
        try:
            answer = SendSpanBatchResponse.FromString(reply)
        except DecodeError:
            raise Refused("the answer is not of the infertrace protocol") from None
        return Answer(answer.accepted_count, answer.rejected_count, answer.rejection_reason)
