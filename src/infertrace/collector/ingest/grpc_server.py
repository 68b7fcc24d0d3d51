"""The gRPC server: an event loop in a thread, and the limits of what it accepts."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from typing import Any, TypeVar

import grpc
import grpc.aio

from infertrace.collector.background_thread import BackgroundThread
from infertrace.collector.ingest.grpc_calls import GrpcMethod
from infertrace.collector.listen_address import AddressError, ListenAddress, is_free

MAX_MESSAGE_BYTES = 64 * 1024 * 1024  # what OTLP recommends; a service may take less
MAX_CALLS_PER_CONNECTION = 1_024  # a client queues further ones itself
# Calls that gRPC has not handed over yet. By default it refuses some at random from 1,000 on,
# without a time to retry after.
MAX_ARRIVING_CALLS = 8_192
HANDSHAKE_TIMEOUT_MS = 10_000  # for the handshake of TLS or HTTP/2
IDLE_MS = 300_000  # without a call, then the connection is closed; a producer opens another one
KEEPALIVE_MS = 60_000  # detects producers whose machine is gone
MIN_PING_INTERVAL_MS = 10_000

Result = TypeVar("Result")


def require_free(address: ListenAddress) -> None:
    """Raise AddressError if `address` is taken; gRPC would log that in its own format."""
    if not is_free(address):
        raise AddressError("grpc", address)


class GrpcServer:
    """Listens once constructed, answers once started; with TLS where it has credentials."""

    def __init__(
        self, address: ListenAddress, credentials: grpc.ServerCredentials | None = None
    ) -> None:
        self._loop = asyncio.new_event_loop()
        self.thread = BackgroundThread("grpc", self._run_loop)
        self.thread.start()
        self._server: grpc.aio.Server | None = None
        try:
            port = self._run(self._listen(address, credentials))
        except RuntimeError:
            port = 0
        if port == 0:
            self._end_loop()
            raise AddressError("grpc", address)
        self.address = ListenAddress(address.host, port)

    def _run_loop(self, thread: BackgroundThread) -> None:
        self._loop.call_soon(thread.does_well)
        self._loop.run_forever()

    async def _listen(
        self, address: ListenAddress, credentials: grpc.ServerCredentials | None
    ) -> int:
        self._server = grpc.aio.server(
            options=[
                ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
                ("grpc.max_concurrent_streams", MAX_CALLS_PER_CONNECTION),
                ("grpc.server.max_pending_requests", MAX_ARRIVING_CALLS),
                ("grpc.server.max_pending_requests_hard_limit", 2 * MAX_ARRIVING_CALLS),
                # With it, a second collector on this port would silently get half of the calls.
                ("grpc.so_reuseport", 0),
                ("grpc.server_handshake_timeout_ms", HANDSHAKE_TIMEOUT_MS),
                ("grpc.max_connection_idle_ms", IDLE_MS),
                ("grpc.keepalive_time_ms", KEEPALIVE_MS),
                ("grpc.keepalive_permit_without_calls", 1),
                ("grpc.http2.min_ping_interval_without_data_ms", MIN_PING_INTERVAL_MS),
            ],
        )
        if credentials is None:
            return self._server.add_insecure_port(str(address))
        return self._server.add_secure_port(str(address), credentials)

    def start(self, methods: Mapping[str, GrpcMethod]) -> None:
        """Start answering calls with `methods`, by their paths `SERVICE/METHOD`."""
        assert self._server is not None
        for path, method in methods.items():
            service, _, name = path.partition("/")
            # No deserializer: the service checks the bytes before they become objects.
            handler: Any = grpc.stream_unary_rpc_method_handler(
                method, request_deserializer=None, response_serializer=None
            )
            self._server.add_generic_rpc_handlers(
                (grpc.method_handlers_generic_handler(service, {name: handler}),)
            )
        self._run(self._server.start())

    def stop(self, grace_s: float) -> None:
        """Accept no new call, and give those in progress `grace_s` seconds."""
        assert self._server is not None
        self._run(self._server.stop(grace_s))
        self._end_loop()

    def _run(self, work: Coroutine[Any, Any, Result]) -> Result:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def _end_loop(self) -> None:
        async def forget() -> None:
            # gRPC's objects use the loop when they are destroyed, so they have to go first.
            self._server = None

        self._run(forget())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self.thread.stop()
        self._loop.close()
