"""The gRPC service: a request in, its spans durable, the answer out."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import Any, NoReturn, TypeVar

import grpc

from infertrace.collecting.authorization import BearerToken
from infertrace.collecting.decoding import DecodedRequest, decode_batch, decode_span
from infertrace.collecting.listen_address import AddressError, ListenAddress
from infertrace.collecting.retry_info import STATUS_DETAILS_KEY, retry_details
from infertrace.collecting.wire_fields import RequestError
from infertrace.generated.span_pb2 import SendSpanBatchResponse, SendSpanResponse
from infertrace.storing.counters import Counters
from infertrace.storing.group_commit import GroupCommit, OverloadError
from infertrace.storing.store import StoreBusyError, StoreError
from infertrace.storing.time_limits import TimeLimits

MAX_MESSAGE_BYTES = 16 * 1024 * 1024
MAX_CONCURRENT_CALLS = 1_024  # beyond the threads, they wait with their bytes not yet read
# A request in progress has one, from its first byte until it is durable, so their number times the
# size of a message bounds the memory of what has not come to its end.
THREADS = 16
REQUEST_TIMEOUT_S = 10  # for a request to come to its end
COMMIT_TIMEOUT_S = 10
RETRY_DELAY_S = 1
HANDSHAKE_TIMEOUT_MS = 10_000  # for a connection to say that it speaks HTTP/2, or TLS
KEEPALIVE_MS = 60_000  # finds producers whose machine went away
MIN_PING_INTERVAL_MS = 10_000

_SERVICE_NAME = "infertrace.v1.CollectorService"
_log = logging.getLogger(__name__)

Response = TypeVar("Response")


class SlowRequestError(Exception):
    """A request did not come to its end in time."""


class CollectorService:
    """Answers the two calls of the contract, on the bytes of a request.

    On the wire, a call with one request is a stream of one. As a stream, who sends it is known
    before its body is read, and a body that does not come to its end can be ended here; gRPC
    itself would keep a thread for it without end.
    """

    def __init__(
        self, writer: GroupCommit, counters: Counters, token: BearerToken | None = None
    ) -> None:
        self._writer = writer
        self._counters = counters
        self._token = token
        self._time_limits = TimeLimits(REQUEST_TIMEOUT_S, SlowRequestError, "slow-requests")
        self.threads = (self._time_limits.thread,)

    def close(self) -> None:
        """End the thread that watches; after this, no call is answered."""
        self._time_limits.close()

    def send_span(
        self, requests: Iterator[bytes], context: grpc.ServicerContext
    ) -> SendSpanResponse:
        """Store one span; not accepted means that it is invalid."""
        decoded = self._ingest(requests, context, decode_span)
        return SendSpanResponse(accepted=not decoded.batch.rejected_positions)

    def send_span_batch(
        self, requests: Iterator[bytes], context: grpc.ServicerContext
    ) -> SendSpanBatchResponse:
        """Store a batch; the answer counts what is durable and what never can be."""
        decoded = self._ingest(requests, context, decode_batch)
        rejected = len(decoded.batch.rejected_positions)
        return SendSpanBatchResponse(
            accepted_count=decoded.batch.span_count - rejected,
            rejected_count=rejected,
            rejection_reason=decoded.rejection_reason,
        )

    def _ingest(
        self,
        requests: Iterator[bytes],
        context: grpc.ServicerContext,
        decode: Callable[[bytes], DecodedRequest],
    ) -> DecodedRequest:
        self._counters.add(requests=1)
        if self._token is not None and not self._token.permits(
            dict(context.invocation_metadata()).get("authorization")
        ):
            self._refuse(context, grpc.StatusCode.UNAUTHENTICATED, "a valid token is required")
        try:
            with self._time_limits.limit(context.cancel):
                raw = next(requests)
        except (StopIteration, SlowRequestError):
            self._refuse(context, grpc.StatusCode.CANCELLED, "the request did not come to its end")
        try:
            with self._writer.reserve(len(raw)) as reservation:
                decoded = decode(raw)
                batch = decoded.batch
                self._counters.add(spans_rejected=len(batch.rejected_positions))
                if batch.producer is None and not len(batch.rows):
                    return decoded
                done = self._writer.submit(batch, reservation)
            done.result(COMMIT_TIMEOUT_S)
        except RequestError as error:
            self._refuse(context, grpc.StatusCode.INVALID_ARGUMENT, str(error))
        except (OverloadError, StoreBusyError) as error:
            context.set_trailing_metadata(
                ((STATUS_DETAILS_KEY, retry_details(str(error), RETRY_DELAY_S)),)
            )
            self._refuse(context, grpc.StatusCode.RESOURCE_EXHAUSTED, str(error))
        except FutureTimeoutError:
            # It may be stored yet; the retry is then a duplicate, which the store recognises.
            reason = f"the store took longer than {COMMIT_TIMEOUT_S} s"
            self._refuse(context, grpc.StatusCode.UNAVAILABLE, reason)
        except StoreError as error:
            _log.error("spans could not be stored: %s", error)
            self._refuse(context, grpc.StatusCode.UNAVAILABLE, "the spans could not be stored")
        return decoded

    def _refuse(
        self, context: grpc.ServicerContext, code: grpc.StatusCode, reason: str
    ) -> NoReturn:
        self._counters.add(requests_refused=1)
        context.abort(code, reason)


def require_free(address: ListenAddress) -> None:
    """Raise AddressError if `address` is taken; gRPC itself reports that in lines of its own."""
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    try:
        socket.create_server((address.host, address.port), family=family).close()
    except OSError as error:
        raise AddressError("grpc", address) from error


class GrpcServer:
    """Listens from the moment it is made, answers from `start` on; in the clear or with TLS."""

    def __init__(
        self, address: ListenAddress, credentials: grpc.ServerCredentials | None = None
    ) -> None:
        self._server = grpc.server(
            ThreadPoolExecutor(THREADS, thread_name_prefix="infertrace-grpc"),
            maximum_concurrent_rpcs=MAX_CONCURRENT_CALLS,
            options=[
                ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
                # Otherwise a second collector would silently take half of the calls.
                ("grpc.so_reuseport", 0),
                ("grpc.server_handshake_timeout_ms", HANDSHAKE_TIMEOUT_MS),
                ("grpc.keepalive_time_ms", KEEPALIVE_MS),
                ("grpc.keepalive_permit_without_calls", 1),
                ("grpc.http2.min_ping_interval_without_data_ms", MIN_PING_INTERVAL_MS),
            ],
        )
        try:
            if credentials is None:
                port = self._server.add_insecure_port(str(address))
            else:
                port = self._server.add_secure_port(str(address), credentials)
        except RuntimeError:
            port = 0
        if port == 0:
            raise AddressError("grpc", address)
        self.address = ListenAddress(address.host, port)

    def start(self, service: CollectorService) -> None:
        """Begin to answer."""
        handlers = {
            "SendSpan": _handler(service.send_span, SendSpanResponse.SerializeToString),
            "SendSpanBatch": _handler(
                service.send_span_batch, SendSpanBatchResponse.SerializeToString
            ),
        }
        self._server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(_SERVICE_NAME, handlers),)
        )
        self._server.start()

    def stop(self, grace_s: float) -> None:
        """Take no new call, and give those in progress `grace_s` seconds."""
        self._server.stop(grace_s).wait()


def _handler(
    method: Callable[[Iterator[bytes], grpc.ServicerContext], Response],
    serialize: Callable[[Response], bytes],
) -> grpc.RpcMethodHandler[Any, Any]:
    # No deserializer: the bytes are examined before they become objects.
    return grpc.stream_unary_rpc_method_handler(
        method, request_deserializer=None, response_serializer=serialize
    )
