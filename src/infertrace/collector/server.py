"""A whole collector: gRPC in, a store, HTTP out."""

from __future__ import annotations

import logging
from contextlib import ExitStack

from infertrace.collector.authorization import BearerToken
from infertrace.collector.counters import Counters
from infertrace.collector.ingest.grpc_server import GrpcServer, require_free
from infertrace.collector.ingest.service import CollectorService
from infertrace.collector.listen_address import AddressError, ListenAddress
from infertrace.collector.query.app import create_app
from infertrace.collector.query.http_server import HttpServer
from infertrace.collector.store.group_commit import GroupCommit
from infertrace.collector.store.registry import open_store
from infertrace.collector.store.retention import RetentionWorker
from infertrace.collector.store.store import (
    DEFAULT_QUERY_TIMEOUT_S,
    Maintenance,
    Retention,
    StoreError,
)
from infertrace.collector.tls import TlsFiles

STOP_GRACE_S = 5.0  # for the calls in progress, and again for the queued batches

_log = logging.getLogger(__name__)


class TokenRequiredError(ValueError):
    """An address can be reached from beyond this machine, and there is no token."""


class Collector:
    """A collector in this process; it installs no signal handlers.

    Addresses are `HOST:PORT`, where port 0 takes a free one; a malformed one raises ValueError at
    once. `start` raises ValueError for a bad store URL, TokenRequiredError for an address beyond
    this machine without a token, AddressError where it cannot listen, StoreError where the store
    cannot be opened, and TlsFileError for a file of `tls`. The store interrupts a query that takes
    longer than `query_timeout_s` seconds. A collector can be started once.
    """

    def __init__(
        self,
        grpc_address: str = "127.0.0.1:4317",
        http_address: str = "127.0.0.1:8080",
        store_url: str = "duckdb:///infertrace.duckdb",
        token: BearerToken | None = None,
        retention: Retention = Retention(),  # noqa: B008 - it is immutable
        tls: TlsFiles | None = None,
        query_timeout_s: float = DEFAULT_QUERY_TIMEOUT_S,
    ) -> None:
        self._grpc = ListenAddress.parse(grpc_address)
        self._http = ListenAddress.parse(http_address)
        self._store_url = store_url
        self._token = token
        self._retention = retention
        self._tls = tls
        self._query_timeout_s = query_timeout_s
        self._stack = ExitStack()

    @property
    def grpc_address(self) -> str:
        """Where gRPC listens; the real port once started."""
        return str(self._grpc)

    @property
    def http_address(self) -> str:
        """Where HTTP listens; the real port once started."""
        return str(self._http)

    def start(self) -> None:
        """Listen, open the store and answer; returns when both servers are ready."""
        for address in (self._grpc, self._http):
            if not address.is_loopback and self._token is None:
                raise TokenRequiredError(
                    f"listening beyond this machine, on {address}, needs a token"
                )
        credentials = None if self._tls is None else self._tls.credentials()
        with ExitStack() as stack:
            # The ports come first: a collector that cannot run must not create a store.
            try:
                http_server = HttpServer(self._http.host, self._http.port)
            except OSError as error:
                raise AddressError("http", self._http) from error
            stack.callback(http_server.close)
            require_free(self._grpc)
            store = open_store(self._store_url, self._query_timeout_s)
            stack.callback(_close, store)
            stack.callback(http_server.stop, STOP_GRACE_S)
            counters = Counters()
            writer = GroupCommit(store, counters)
            writer.start()
            retention_worker = RetentionWorker(store, self._retention)
            stack.callback(retention_worker.stop)
            retention_worker.start()
            stack.callback(writer.stop, STOP_GRACE_S)
            service = CollectorService(writer, counters, self._token)
            stack.callback(service.close)
            grpc_server = GrpcServer(self._grpc, credentials)
            stack.callback(grpc_server.stop, STOP_GRACE_S)
            grpc_server.start(service)
            permits = None if self._token is None else self._token.permits
            threads = [
                writer.thread,
                retention_worker.thread,
                http_server.thread,
                grpc_server.thread,
            ]
            threads += store.threads
            http_server.start(create_app(store, counters, threads, permits))
            self._grpc = grpc_server.address
            self._http = ListenAddress(self._http.host, http_server.port)
            self._stack = stack.pop_all()

    def stop(self) -> None:
        """Finish the calls in progress, write the queued batches, close; at most about 15 s."""
        self._stack.close()

    def __enter__(self) -> Collector:
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()


def _close(store: Maintenance) -> None:
    try:
        store.checkpoint()
    except StoreError as error:
        _log.error("the write-ahead log stays for the next start: %s", error)
    store.close()
