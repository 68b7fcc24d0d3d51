"""One request: who shared its steps, and why it was slow."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from infertrace.collector.diagnosis.companions import companions_of
from infertrace.collector.diagnosis.why import why
from infertrace.collector.query.diagnosis_answer import diagnosis_answer
from infertrace.collector.query.documentation import OBJECT, documented
from infertrace.collector.query.engine_facts import shown_request
from infertrace.collector.query.engine_reader import (
    MAX_OTHERS,
    MAX_STEPS,
    StoredRequest,
    find_request,
    surroundings,
    usual_before,
)
from infertrace.collector.query.parameters import (
    DEFAULT_LIMIT,
    LIMIT,
    SPAN_ID,
    parse_parameters,
)
from infertrace.collector.query.routes.trace_ids import TraceId, wanted_trace
from infertrace.collector.store.store import SpanReader

TRUNCATED = (
    f"All of its time: only the first {MAX_STEPS:,} steps and {MAX_OTHERS:,} requests count here."
)


def request_routes(store: SpanReader) -> APIRouter:
    """`/traces/{trace_id}/companions` and `/traces/{trace_id}/why`."""
    router = APIRouter()

    def find(trace_id: str, span_id: int | None) -> StoredRequest:
        wanted = wanted_trace(trace_id)
        found = find_request(store, wanted, span_id)
        if found is None:
            which = f"trace {wanted.hex}" if span_id is None else f"span {span_id:016x}"
            raise HTTPException(404, f"no request: {which} has no span of a model")
        return found

    @router.get(
        "/traces/{trace_id}/companions",
        **documented("Who shared the steps of a request", (SPAN_ID, LIMIT), OBJECT),
    )
    def companions(trace_id: TraceId, request: Request) -> Response:
        """Those that shared most of its time first. `prefill_tokens` and `decode_tokens` are those
        of the shared steps, `time_share` is of the request's duration, 0 to 1. Membership is an
        interval of steps, so `shared_steps` of a preempted request is an upper bound. `membership`
        is `inferred` where an engine does not say whom it ran, and that follows from times."""
        values = parse_parameters(request.query_params, (SPAN_ID, LIMIT))
        stored = find(trace_id, values.get("span_id"))
        around = surroundings(store, stored)
        facts = stored.facts
        found = companions_of(facts, around.steps, around.others)
        limit = values.get("limit", DEFAULT_LIMIT)
        answer: dict[str, Any] = {
            **shown_request(facts),
            "model_name": facts.model_name,
            "engine": facts.engine,
        }
        for name in ("first_step", "last_step", "step_count"):
            if (value := getattr(facts, name)) is not None:
                answer[name] = value
        answer["companion_count"] = len(found)
        answer["companions"] = [
            {
                **shown_request(one.request),
                "shared_steps": one.shared_steps,
                "first_shared_step": one.first_step,
                "last_shared_step": one.last_step,
                "prefill_tokens": one.prefill_tokens,
                "decode_tokens": one.decode_tokens,
                "time_share": one.time_share,
            }
            for one in found[:limit]
        ]
        if around.is_truncated:
            answer["truncated"] = True
        return JSONResponse(answer)

    @router.get(
        "/traces/{trace_id}/why",
        **documented("Why a request was slow", (SPAN_ID,), OBJECT),
    )
    def explain(trace_id: TraceId, request: Request) -> Response:
        """`findings` are in sentences, each with its numbers and its evidence: an error first, then
        what explains most of the milliseconds. `unexplained_ms` is what of `excess_ms`, the time
        beyond the usual, nothing explains. `baseline` is what it was compared with: requests
        of the model that had ended, in the hour before. docs/why.md says how this is found."""
        values = parse_parameters(request.query_params, (SPAN_ID,))
        stored = find(trace_id, values.get("span_id"))
        around = surroundings(store, stored)
        usual = usual_before(store, stored)
        diagnosis = why(stored.facts, around.steps, around.others, usual)
        answer = diagnosis_answer(stored.facts, diagnosis, usual)
        if around.is_truncated:
            answer["unknown"].append(TRUNCATED)
        return JSONResponse(answer)

    return router
