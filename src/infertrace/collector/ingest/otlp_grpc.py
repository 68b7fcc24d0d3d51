"""OTLP over gRPC: the TraceService, on the server of our own service.

https://opentelemetry.io/docs/specs/otlp/#otlpgrpc
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial
from typing import NoReturn

import grpc

from infertrace.collector.ingest.grpc_calls import Context, GrpcMethod, authorization, first, refuse
from infertrace.collector.ingest.ingestion import Ingestion, Refusal, RefusalKind
from infertrace.collector.ingest.other_signals import SIGNALS, OtherSignals
from infertrace.collector.ingest.otlp.default_models import DefaultModels
from infertrace.collector.ingest.otlp_answers import export_response, misdirected
from infertrace.collector.ingest.otlp_batches import decode_export

# A client's deadline is often 10 s, with all of its retries: it has to hear why in that time.
ANSWER_WITHIN_S = 8.0
COMMIT_TIMEOUT_S = 5.0

_PATH = "opentelemetry.proto.collector.{0}.v1.{1}Service/Export"


class OtlpGrpcService:
    """Answers an Export once its spans are durable; metrics and logs are UNIMPLEMENTED."""

    def __init__(
        self, ingestion: Ingestion, other_signals: OtherSignals, models: DefaultModels
    ) -> None:
        self._ingestion = ingestion
        self._decode = partial(decode_export, models=models, is_passed_on=ingestion.passes_on)
        self._other_signals = other_signals

    @property
    def methods(self) -> dict[str, GrpcMethod]:
        """Its methods, by their paths."""
        others = {
            _PATH.format(signal, signal.capitalize()): partial(self._refuse_signal, signal)
            for signal in SIGNALS
        }
        return {_PATH.format("trace", "Trace"): self.export, **others}

    async def export(self, requests: AsyncIterator[bytes], context: Context) -> bytes:
        """Store the spans of an ExportTraceServiceRequest."""
        try:
            self._ingestion.admit(authorization(context))
            decoded = await self._ingestion.durable(
                lambda: first(requests),
                self._decode,
                peer=context.peer(),
                commit_timeout_s=COMMIT_TIMEOUT_S,
                answer_within_s=ANSWER_WITHIN_S,
            )
            if (reason := misdirected(decoded)) is not None:
                raise self._ingestion.refusal(RefusalKind.INVALID, reason)
            return export_response(decoded)
        except Refusal as refusal:
            await refuse(context, refusal)

    async def _refuse_signal(
        self, signal: str, _: AsyncIterator[bytes], context: Context
    ) -> NoReturn:
        try:
            self._ingestion.admit(authorization(context))
        except Refusal as refusal:
            await refuse(context, refusal)
        self._ingestion.count_refusal()
        reason = self._other_signals.refusal(signal)
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, reason)
