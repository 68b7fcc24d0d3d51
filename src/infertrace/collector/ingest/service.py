"""The gRPC service: answers a request once its spans are durable."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NoReturn

import grpc
import grpc.aio

from infertrace.collector.authorization import BearerToken
from infertrace.collector.counters import Counters
from infertrace.collector.ingest.reading_places import (
    NoPlaceError,
    PlaceLimits,
    ReadingPlaces,
    SlowBodyError,
)
from infertrace.collector.ingest.request_batches import DecodedRequest, decode_batch, decode_span
from infertrace.collector.ingest.wire_fields import RequestError
from infertrace.collector.store.group_commit import GroupCommit, OverloadError
from infertrace.collector.store.store import StoreBusyError, StoreError
from infertrace.generated.span_pb2 import SendSpanBatchResponse, SendSpanResponse
from infertrace.wire.retry_info import STATUS_DETAILS_KEY, retry_details

# READING_PLACES x MAX_MESSAGE_BYTES bounds the memory of the bodies that are being read.
READING_PLACES = 64
PLACES_PER_CONNECTION = 16
MAX_WAITING_CALLS = 4_096  # for a place; each takes some 64 KiB
READING_TURN_S = 1.0  # for a body to arrive while other calls wait
REQUEST_TIMEOUT_S = 10.0  # for a body to arrive, including the wait for a place
COMMIT_TIMEOUT_S = 10
RETRY_DELAY_S = 1
DECODING_THREADS = max(2, min(16, os.cpu_count() or 1))

_log = logging.getLogger(__name__)

Context = grpc.aio.ServicerContext[bytes, Any]
Taken = tuple[DecodedRequest, "Future[None] | None"]


class CollectorService:
    """Answers the two calls of the contract, on the bytes of a request.

    On the wire, a call with one request is a stream of one. Handled as a stream, it is authorized
    before its body is read, and the service itself can refuse a body that does not arrive in full.
    A call takes no thread while its body arrives or while its spans are being stored.
    """

    def __init__(
        self, writer: GroupCommit, counters: Counters, token: BearerToken | None = None
    ) -> None:
        self._writer = writer
        self._counters = counters
        self._token = token
        self._places = ReadingPlaces(
            PlaceLimits(
                READING_PLACES,
                PLACES_PER_CONNECTION,
                MAX_WAITING_CALLS,
                READING_TURN_S,
                REQUEST_TIMEOUT_S,
            )
        )
        self._threads = ThreadPoolExecutor(DECODING_THREADS, thread_name_prefix="infertrace-decode")
        self._logged: set[type[Exception]] = set()

    def close(self) -> None:
        """End the threads that decode; no call may follow."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def send_span(self, requests: AsyncIterator[bytes], context: Context) -> SendSpanResponse:
        """Store one span; not accepted means that it is invalid."""
        decoded = await self._answered(requests, context, decode_span)
        return SendSpanResponse(accepted=not decoded.batch.rejected_positions)

    async def send_span_batch(
        self, requests: AsyncIterator[bytes], context: Context
    ) -> SendSpanBatchResponse:
        """Store a batch; the answer counts what is durable and what never can be."""
        decoded = await self._answered(requests, context, decode_batch)
        rejected = len(decoded.batch.rejected_positions)
        return SendSpanBatchResponse(
            accepted_count=decoded.batch.span_count - rejected,
            rejected_count=rejected,
            rejection_reason=decoded.rejection_reason,
        )

    async def _answered(
        self,
        requests: AsyncIterator[bytes],
        context: Context,
        decode: Callable[[bytes], DecodedRequest],
    ) -> DecodedRequest:
        """The decoded request, once it is durable; every failure ends the call."""
        self._counters.add(requests=1)
        if self._token is not None and not self._token.permits(
            dict(context.invocation_metadata() or ()).get("authorization")
        ):
            await self._refuse(
                context, grpc.StatusCode.UNAUTHENTICATED, "a valid token is required"
            )
        try:
            return await self._ingested(requests, context.peer(), decode)
        except SlowBodyError as error:
            await self._refuse(context, grpc.StatusCode.CANCELLED, str(error))
        except RequestError as error:
            await self._refuse(context, grpc.StatusCode.INVALID_ARGUMENT, str(error))
        except (NoPlaceError, OverloadError, StoreBusyError) as error:
            await self._refuse(
                context,
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                str(error),
                ((STATUS_DETAILS_KEY, retry_details(str(error), RETRY_DELAY_S)),),
            )
        except TimeoutError as error:
            # The spans may still get stored; the store then recognises the retry as a duplicate.
            await self._refuse(context, grpc.StatusCode.UNAVAILABLE, str(error))
        except StoreError as error:
            _log.error("spans could not be stored: %s", error)
            reason = "the spans could not be stored"
            await self._refuse(context, grpc.StatusCode.UNAVAILABLE, reason)
        except Exception as error:
            # gRPC would answer UNKNOWN, which does not tell the producer whether to retry.
            self._log_once(error)
            await self._refuse(context, grpc.StatusCode.UNAVAILABLE, "the collector failed")

    async def _ingested(
        self,
        requests: AsyncIterator[bytes],
        peer: str,
        decode: Callable[[bytes], DecodedRequest],
    ) -> DecodedRequest:
        loop = asyncio.get_running_loop()
        async with self._places.read(peer, lambda: _first(requests)) as raw:
            if raw is None:
                raise SlowBodyError("the request did not come to its end")
            decoded, done = await loop.run_in_executor(self._threads, self._take, raw, decode)
        if done is not None:
            durable = asyncio.wrap_future(done)
            # The queued batch cannot be taken back, so the wait for it is not cancelled either.
            await asyncio.wait({durable}, timeout=COMMIT_TIMEOUT_S)
            if not durable.done():
                raise TimeoutError(f"the store took longer than {COMMIT_TIMEOUT_S} s")
            durable.result()
        return decoded

    def _take(self, raw: bytes, decode: Callable[[bytes], DecodedRequest]) -> Taken:
        """Decode a request and queue it; the future is done when it is durable."""
        with self._writer.reserve(len(raw)) as reservation:
            decoded = decode(raw)
            batch = decoded.batch
            self._counters.add(spans_rejected=len(batch.rejected_positions))
            if batch.producer is None and not batch.senders and not len(batch.rows):
                return decoded, None
            return decoded, self._writer.submit(batch, reservation)

    def _log_once(self, error: Exception) -> None:
        """Log the first error of each type, with its traceback."""
        if type(error) not in self._logged:
            self._logged.add(type(error))
            _log.error("a request failed, as others may after it", exc_info=error)

    async def _refuse(
        self,
        context: Context,
        code: grpc.StatusCode,
        reason: str,
        trailing_metadata: tuple[tuple[str, bytes], ...] = (),
    ) -> NoReturn:
        self._counters.add(requests_refused=1)
        await context.abort(code, reason, trailing_metadata)


async def _first(requests: AsyncIterator[bytes]) -> bytes | None:
    async for raw in requests:
        return raw
    return None
