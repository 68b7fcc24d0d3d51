"""OTLP, over gRPC as over HTTP: our spans as its requests, and its answers as ours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from infertrace.exporting.answer import Answer, Refused
from infertrace.exporting.envelope import Request
from infertrace.exporting.wire import Encoded, Wire
from infertrace.otlp import conventions as known_conventions
from infertrace.otlp import translator_choice
from infertrace.otlp.export_service import GRPC_METHOD, read_response
from infertrace.version import VERSION
from infertrace.wire.protobuf import WireError

_SDK_NAME: Final = b"infertrace"


class OtlpWire(Wire):
    """Has no words for a producer's ledger, so the collector learns nothing of it."""

    def __init__(self, conventions: Sequence[str]) -> None:
        self._conventions = known_conventions.bits(conventions)
        self._translate = translator_choice.select().translate

    @property
    def grpc_method(self) -> str:
        return GRPC_METHOD

    def encode(self, request: Request, span_count: int) -> Encoded:
        if not span_count:
            return Encoded(None, 0)
        envelope = request[0] if len(request) == 1 else b"".join(request)
        body, sent, reason = self._translate(
            bytes(envelope), self._conventions, _SDK_NAME, VERSION.encode()
        )
        return Encoded(body or None, sent, max(span_count - sent, 0), reason)

    def read(self, reply: bytes, encoded: Encoded) -> Answer:
        try:
            rejected, message = read_response(reply)
        except WireError:
            raise Refused("the answer is not of OTLP") from None
        rejected = max(0, min(rejected, encoded.span_count))
        return Answer(
            encoded.span_count - rejected,
            encoded.rejected_count + rejected,
            message or encoded.rejection_reason,
        )
