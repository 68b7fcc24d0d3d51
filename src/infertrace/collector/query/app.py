"""The query API: its routes, its access control, and one form for all errors."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from fastapi import FastAPI

from infertrace.collector.background_thread import BackgroundThread
from infertrace.collector.counters import Counters
from infertrace.collector.forwarding.forwarder import Forwarder
from infertrace.collector.query.access import AccessMiddleware
from infertrace.collector.query.error_answers import add_error_answers
from infertrace.collector.query.model_histograms import ModelHistograms
from infertrace.collector.query.routes.comparison import comparison_routes
from infertrace.collector.query.routes.gpus import gpu_routes
from infertrace.collector.query.routes.health import health_routes
from infertrace.collector.query.routes.heatmap import heatmap_routes
from infertrace.collector.query.routes.jaeger import jaeger_routes
from infertrace.collector.query.routes.ledger import ledger_routes
from infertrace.collector.query.routes.models import model_routes
from infertrace.collector.query.routes.objectives import objective_routes
from infertrace.collector.query.routes.overview import overview_routes
from infertrace.collector.query.routes.page import page_routes
from infertrace.collector.query.routes.perfetto import perfetto_routes
from infertrace.collector.query.routes.requests import request_routes
from infertrace.collector.query.routes.spans import span_routes
from infertrace.collector.query.routes.sql import sql_routes
from infertrace.collector.query.routes.steps import step_routes
from infertrace.collector.query.routes.tail import tail_routes
from infertrace.collector.store.store import SpanReader


def create_app(
    store: SpanReader,
    counters: Counters,
    threads: Sequence[BackgroundThread],
    permits: Callable[[str | None], bool] | None = None,
    forwarders: Sequence[Forwarder] = (),
    *,
    has_model_metrics: bool = False,
) -> FastAPI:
    """The application; `permits` checks the `authorization` header, None requires none."""
    app = FastAPI(
        title="infertrace collector",
        description="Stored inference spans. Every error is a JSON object with the key `error`.",
        docs_url=None,  # the pages for it load scripts from other hosts
        redoc_url=None,
        redirect_slashes=False,
    )
    app.add_middleware(AccessMiddleware, permits=permits)
    add_error_answers(app)
    app.include_router(span_routes(store))
    app.include_router(model_routes(store))
    app.include_router(step_routes(store))
    app.include_router(request_routes(store))
    for routes in (
        overview_routes,
        heatmap_routes,
        comparison_routes,
        tail_routes,
        gpu_routes,
        objective_routes,
        perfetto_routes,
        jaeger_routes,
        sql_routes,
    ):
        app.include_router(routes(store))
    app.include_router(page_routes())
    app.include_router(ledger_routes(store, forwarders))
    histograms = None
    if has_model_metrics:
        histograms = ModelHistograms()
        store.listen(histograms.add)
    app.include_router(health_routes(store, counters, threads, forwarders, histograms))
    return app
