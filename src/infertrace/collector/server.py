"""A whole collector: gRPC and OTLP over HTTP in, a store, HTTP out."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Literal

from infertrace.collector.authorization import BearerToken
from infertrace.collector.counters import Counters
from infertrace.collector.forwarding.forward_target import ForwardTarget
from infertrace.collector.forwarding.forwarder import Forwarding
from infertrace.collector.ingest.grpc_server import GrpcServer, require_free
from infertrace.collector.ingest.other_signals import OtherSignals
from infertrace.collector.ingest.otlp.default_models import DefaultModels
from infertrace.collector.ingest.otlp_grpc import OtlpGrpcService
from infertrace.collector.ingest.otlp_http import OtlpHttpApp
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
FORWARD_GRACE_S = 5.0  # for what waits to be forwarded

_log = logging.getLogger(__name__)


class TokenRequiredError(ValueError):
    """An address can be reached from beyond this machine, and there is no token."""


class Collector:
    """A collector in this process; it installs no signal handlers.

    Addresses are `HOST:PORT`, where port 0 takes a free one; a malformed one raises ValueError at
    once. `start` raises ValueError for a bad store URL, TokenRequiredError for an address beyond
    this machine without a token, AddressError where it cannot listen, StoreError where the store
    cannot be opened, and TlsFileError for a file of `tls`. The store interrupts a query that takes
    longer than `query_timeout_s` seconds. Without `otlp_http_address` it takes OTLP over gRPC
    alone; `otlp_origins` are those of web pages that may send there. `default_models` has the
    models of services whose spans do not say theirs. What is durable is passed on to the targets of
    `forward`. With `has_model_metrics`, `/metrics` has histograms of each model. A collector can be
    started once.
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
        otlp_http_address: str | None = None,
        otlp_origins: Sequence[str] = (),
        default_models: Mapping[str, str] | None = None,
        forward: Sequence[ForwardTarget] = (),
        *,
        has_model_metrics: bool = False,
    ) -> None:
        self._grpc = ListenAddress.parse(grpc_address)
        self._http = ListenAddress.parse(http_address)
        self._otlp_http = (
            None if otlp_http_address is None else ListenAddress.parse(otlp_http_address)
        )
        self._otlp_origins = otlp_origins
        self._default_models = default_models
        self._forward = forward
        self._has_model_metrics = has_model_metrics
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

    @property
    def otlp_http_address(self) -> str | None:
        """Where OTLP over HTTP listens, if it does; the real port once started."""
        return None if self._otlp_http is None else str(self._otlp_http)

    def start(self) -> None:
        """Listen, open the store and answer; returns when all servers are ready."""
        for address in (self._grpc, self._http, self._otlp_http):
            if address and not address.is_loopback and self._token is None:
                raise TokenRequiredError(
                    f"listening beyond this machine, on {address}, needs a token"
                )
        for forward in self._forward:
            if _is_itself(forward, self._grpc) or _is_itself(forward, self._otlp_http):
                raise ValueError(f"forward: {forward.name} is this collector itself")
        credentials = None if self._tls is None else self._tls.credentials()
        with ExitStack() as stack:
            # The ports come first: a collector that cannot run must not create a store.
            http_server = self._listen("http", self._http)
            stack.callback(http_server.close)
            otlp_server = None
            if self._otlp_http is not None:
                otlp_server = self._listen("otlp_http", self._otlp_http)
                stack.callback(otlp_server.close)
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
            forwarding = Forwarding(self._forward)
            stack.callback(forwarding.stop, FORWARD_GRACE_S)
            forwarding.start()
            stack.callback(writer.stop, STOP_GRACE_S)
            pass_on = forwarding.pass_on if self._forward else None
            service = CollectorService(writer, counters, self._token, pass_on)
            stack.callback(service.close)
            grpc_server = GrpcServer(self._grpc, credentials)
            stack.callback(grpc_server.stop, STOP_GRACE_S)
            other_signals, models = OtherSignals(), DefaultModels(self._default_models)
            otlp_service = OtlpGrpcService(service.ingestion, other_signals, models)
            grpc_server.start({**service.methods, **otlp_service.methods})
            permits = None if self._token is None else self._token.permits
            threads = [
                writer.thread,
                retention_worker.thread,
                http_server.thread,
                grpc_server.thread,
            ]
            if otlp_server is not None:
                app = OtlpHttpApp(
                    writer,
                    counters,
                    other_signals,
                    models,
                    self._token,
                    self._otlp_origins,
                    pass_on,
                )
                stack.callback(app.close)
                stack.callback(otlp_server.stop, STOP_GRACE_S)
                otlp_server.start(app)
                threads.append(otlp_server.thread)
            threads += [*store.threads, *forwarding.threads]
            http_server.start(
                create_app(
                    store,
                    counters,
                    threads,
                    permits,
                    forwarding.forwarders,
                    has_model_metrics=self._has_model_metrics,
                )
            )
            self._grpc = grpc_server.address
            self._http = ListenAddress(self._http.host, http_server.port)
            if self._otlp_http is not None and otlp_server is not None:
                self._otlp_http = ListenAddress(self._otlp_http.host, otlp_server.port)
            self._stack = stack.pop_all()

    def _listen(self, protocol: Literal["http", "otlp_http"], address: ListenAddress) -> HttpServer:
        tls = None if self._tls is None else self._tls.context()
        try:
            return HttpServer(address.host, address.port, tls, protocol.replace("_", "-"))
        except OSError as error:
            raise AddressError(protocol, address) from error

    def stop(self) -> None:
        """Finish the calls in progress, write the queued batches, close; at most about 25 s."""
        self._stack.close()

    def __enter__(self) -> Collector:
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()


def _is_itself(forward: ForwardTarget, address: ListenAddress | None) -> bool:
    if address is None or not address.port:
        return False
    target = ListenAddress.parse(forward.target.address)
    return target.port == address.port and (
        target.host == address.host or (target.is_loopback and address.is_loopback)
    )


def _close(store: Maintenance) -> None:
    try:
        store.checkpoint()
    except StoreError as error:
        _log.error("the write-ahead log stays for the next start: %s", error)
    store.close()
