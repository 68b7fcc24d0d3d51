"""The gRPC service of our own contract: answers a request once its spans are durable."""

from __future__ import annotations

from collections.abc import AsyncIterator

from infertrace.collector.authorization import BearerToken
from infertrace.collector.counters import Counters
from infertrace.collector.ingest.grpc_calls import Context, GrpcMethod, authorization, first, refuse
from infertrace.collector.ingest.ingestion import RETRY_DELAY_S, Decode, Ingestion, Refusal
from infertrace.collector.ingest.reading_places import PlaceLimits
from infertrace.collector.ingest.request_batches import DecodedRequest, decode_batch, decode_span
from infertrace.collector.ingest.sent_spans import PassOn
from infertrace.collector.ingest.wire_fields import RequestTooLargeError
from infertrace.collector.store.group_commit import GroupCommit
from infertrace.generated.span_pb2 import SendSpanBatchResponse, SendSpanResponse

__all__ = ["RETRY_DELAY_S", "CollectorService"]

SERVICE_NAME = "infertrace.v1.CollectorService"
MAX_REQUEST_BYTES = 16 * 1024 * 1024
# READING_PLACES x grpc_server.MAX_MESSAGE_BYTES bounds the memory of the bodies that are being
# read: which service a call is for makes no difference to what gRPC reads of it.
READING_PLACES = 16
PLACES_PER_CONNECTION = 4
MAX_WAITING_CALLS = 4_096  # for a place; each takes some 64 KiB
READING_TURN_S = 1.0  # for a body to arrive while other calls wait
REQUEST_TIMEOUT_S = 10.0  # for a body to arrive, including the wait for a place
COMMIT_TIMEOUT_S = 10


class CollectorService:
    """Answers the two calls of the contract, on the bytes of a request.

    On the wire, a call with one request is a stream of one. Handled as a stream, it is authorized
    before its body is read, and the service itself can refuse a body that does not arrive in full.
    """

    def __init__(
        self,
        writer: GroupCommit,
        counters: Counters,
        token: BearerToken | None = None,
        pass_on: PassOn | None = None,
    ) -> None:
        limits = PlaceLimits(
            READING_PLACES,
            PLACES_PER_CONNECTION,
            MAX_WAITING_CALLS,
            READING_TURN_S,
            REQUEST_TIMEOUT_S,
        )
        self.ingestion = Ingestion(writer, counters, limits, token, pass_on)
        """For other services on the same server: they share the places."""

    def close(self) -> None:
        """End the threads that decode; no call may follow."""
        self.ingestion.close()

    @property
    def methods(self) -> dict[str, GrpcMethod]:
        """Its methods, by their paths."""
        return {
            f"{SERVICE_NAME}/SendSpan": self.send_span,
            f"{SERVICE_NAME}/SendSpanBatch": self.send_span_batch,
        }

    async def send_span(self, requests: AsyncIterator[bytes], context: Context) -> bytes:
        """Store one span; not accepted means that it is invalid."""
        decoded = await self._answered(requests, context, decode_span)
        return SendSpanResponse(accepted=not decoded.batch.rejected_positions).SerializeToString()

    async def send_span_batch(self, requests: AsyncIterator[bytes], context: Context) -> bytes:
        """Store a batch; the answer counts what is durable and what never can be."""
        decoded = await self._answered(requests, context, decode_batch)
        rejected = len(decoded.batch.rejected_positions)
        return SendSpanBatchResponse(
            accepted_count=decoded.batch.span_count - rejected,
            rejected_count=rejected,
            rejection_reason=decoded.rejection_reason,
        ).SerializeToString()

    async def _answered(
        self, requests: AsyncIterator[bytes], context: Context, decode: Decode
    ) -> DecodedRequest:
        try:
            self.ingestion.admit(authorization(context))
            return await self.ingestion.durable(
                lambda: first(requests),
                decode,
                peer=context.peer(),
                commit_timeout_s=COMMIT_TIMEOUT_S,
                unpack=_bounded,
            )
        except Refusal as refusal:
            await refuse(context, refusal)


def _bounded(raw: bytes) -> bytes:
    """What gRPC does not refuse, as the limit of the server is that of OTLP."""
    if len(raw) > MAX_REQUEST_BYTES:
        raise RequestTooLargeError(
            f"Received message larger than max ({len(raw)} vs. {MAX_REQUEST_BYTES})"
        )
    return raw
