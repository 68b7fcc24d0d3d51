"""Whether the collector works, and what it has done so far."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter
from fastapi.responses import JSONResponse, PlainTextResponse, Response

from infertrace.collector.background_thread import BackgroundThread
from infertrace.collector.counters import Counters
from infertrace.collector.forwarding.forwarder import Forwarder
from infertrace.collector.query.documentation import OBJECT, documented
from infertrace.collector.query.model_histograms import ModelHistograms
from infertrace.collector.query.prometheus_metrics import CONTENT_TYPE, PrometheusMetrics
from infertrace.collector.store.group_commit import WRITING_THREAD
from infertrace.collector.store.store import SpanReader, StoreError

_log = logging.getLogger(__name__)


def health_routes(
    store: SpanReader,
    counters: Counters,
    threads: Sequence[BackgroundThread],
    forwarders: Sequence[Forwarder] = (),
    histograms: ModelHistograms | None = None,
) -> APIRouter:
    """`/health` and `/metrics`."""
    router = APIRouter()
    prometheus = PrometheusMetrics(counters, threads, forwarders, histograms)

    @router.get("/health", **documented("Whether spans are taken and can be read", (), OBJECT))
    def health() -> Response:
        """`status` is degraded while a thread fails that no span waits for. Of threads that ever
        failed, `threads` says how often each was replaced, and the error if it fails still."""
        for thread in threads:
            thread.ensure()
        states = [thread.state for thread in threads]
        failing = {state.name for state in states if state.error is not None}
        status = 200
        answer: dict[str, Any] = {"status": "degraded" if failing else "ok"}
        try:
            store.check()
            if WRITING_THREAD in failing:
                raise StoreError("the thread that writes fails")
        except StoreError as error:
            _log.error("the store is not healthy: %s", error)
            status, answer = 503, {"error": "the store cannot answer"}
            if WRITING_THREAD in failing:
                answer["error"] = "the store is not being written"
        if replaced := [state for state in states if state.restarts]:
            answer["threads"] = {
                state.name: {"restarts": state.restarts, "error": state.error} for state in replaced
            }
        return JSONResponse(answer, status)

    @router.get(
        "/metrics", summary="Counters, as Prometheus text", response_class=PlainTextResponse
    )
    def metrics() -> Response:
        return Response(prometheus.text(), headers={"Content-Type": CONTENT_TYPE})

    return router
