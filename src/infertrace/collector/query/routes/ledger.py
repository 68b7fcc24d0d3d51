"""How complete the data of each producer is."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from infertrace.collector.forwarding.forwarder import Forwarder
from infertrace.collector.query.documentation import OBJECT, documented
from infertrace.collector.query.parameters import DEFAULT_LIMIT, LIMIT, parse_parameters
from infertrace.collector.store.ledger import Producer
from infertrace.collector.store.store import SpanReader
from infertrace.collector.store.timestamps import format_rfc3339


def ledger_routes(store: SpanReader, forwarders: Sequence[Forwarder] = ()) -> APIRouter:
    """`/ledger`."""
    router = APIRouter()

    @router.get("/ledger", **documented("How complete the data is", (LIMIT,), OBJECT))
    def ledger(request: Request) -> Response:
        """One account for each producer, the last seen first; all counts are spans.

        A sender of OTLP is not `numbered`: what would follow from numbers is null. `forwards` has
        an account for each target of `--forward`, since the collector started.
        """
        values = parse_parameters(request.query_params, (LIMIT,))
        now_ns = time.time_ns()
        producers = store.producers(values.get("limit", DEFAULT_LIMIT))
        return JSONResponse(
            {
                "producers": [_producer_answer(p, now_ns) for p in producers],
                "forwards": list(map(_forward_answer, forwarders)),
            }
        )

    return router


def _forward_answer(forwarder: Forwarder) -> dict[str, Any]:
    counts = forwarder.account.counts()._asdict()
    return {"target": forwarder.name, "share": forwarder.share, **counts}


def _producer_answer(producer: Producer, now_ns: int) -> dict[str, Any]:
    # What follows from the numbers of spans cannot be known of a sender that gives none.
    numbered = producer.numbered
    return {
        "producer_id": producer.producer_id.hex(),
        "service_name": producer.service_name,
        "numbered": numbered,
        "state": producer.state(now_ns),
        "received": producer.received_count,
        "produced": producer.produced if numbered else None,
        "stored": producer.stored,
        "pending": producer.pending if numbered else None,
        "dropped": producer.dropped if numbered else None,
        "rejected": producer.rejected,
        "rejected_reasons": None if numbered else producer.rejected_reasons,
        "duplicates": producer.duplicates,
        "gaps": producer.gaps if numbered else None,
        "completeness": producer.completeness if numbered else None,
        "complete": producer.complete if numbered else None,
        "first_seen": format_rfc3339(producer.first_seen_ns),
        "last_seen": format_rfc3339(producer.last_seen_ns),
    }
