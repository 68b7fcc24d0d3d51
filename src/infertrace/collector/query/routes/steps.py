"""Steps of engines, and who was in one."""

from __future__ import annotations

import time
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from infertrace.collector.diagnosis.companions import is_prefilling, prefill_shares
from infertrace.collector.query.documentation import OBJECT, documented
from infertrace.collector.query.engine_facts import (
    REQUEST_COLUMNS,
    SHOWN_STEP_COLUMNS,
    STEP_COLUMNS,
    request_facts,
    shown_request,
    shown_step,
    step_facts,
)
from infertrace.collector.query.engine_reader import (
    LONGEST_REQUEST_NS,
    LONGEST_STEP_NS,
    MAX_OTHERS,
    MAX_STEPS,
)
from infertrace.collector.query.parameters import (
    COLUMNS,
    ENGINE,
    MODEL,
    PRODUCER,
    SINCE,
    UNTIL,
    ParameterError,
    parse_parameters,
    parse_step_index,
)
from infertrace.collector.query.routes.any_text import register_any_text
from infertrace.collector.store.engine_filter import EngineFilter, StepColumn
from infertrace.collector.store.span_filter import Row
from infertrace.collector.store.store import SpanReader
from infertrace.collector.store.timestamps import NANOS_PER_MS, NANOS_PER_SECOND, format_rfc3339

DEFAULT_STEPS_WINDOW_NS = 300 * NANOS_PER_SECOND
DEFAULT_MEMBERS_WINDOW_NS = 86_400 * NANOS_PER_SECOND
DEFAULT_COLUMNS = 240
MAX_LISTED_STEPS = 2_000
MAX_PRODUCERS = 10  # of one step, in an error

# FastAPI only documents them; the route validates them, so that all errors have one form.
EngineName = Annotated[str, Path(json_schema_extra={"minLength": 1})]
StepIndex = Annotated[str, Path(json_schema_extra={"pattern": "^[0-9]{1,18}$"})]

register_any_text()


def step_routes(store: SpanReader) -> APIRouter:
    """`/steps`, and the members of one."""
    router = APIRouter()
    parameters = (MODEL, ENGINE, PRODUCER, SINCE, UNTIL, COLUMNS)

    @router.get("/steps", **documented("Steps of engines", parameters, OBJECT))
    def steps(request: Request) -> Response:
        """Without `since`, the 5 minutes before `until`, which is now by default. `steps` are in
        start order; where there are more than 2000, `columns` sums them up, in equal parts of the
        time: their count, mean and longest duration, the mean fill of the batch, the share of the
        tokens that were prefilled, the mean depth of the queue and use of the KV cache. A column
        without steps is left out."""
        values = parse_parameters(request.query_params, parameters)
        since_ns, until_ns = _window(values, DEFAULT_STEPS_WINDOW_NS)
        where = EngineFilter(
            "step",
            since_ns,
            until_ns,
            model=values.get("model"),
            engine=values.get("engine"),
            producer_id=values.get("producer"),
        )
        answer: dict[str, Any] = {
            "since": format_rfc3339(since_ns),
            "until": format_rfc3339(until_ns),
        }
        rows = store.engine_rows(where, SHOWN_STEP_COLUMNS, MAX_LISTED_STEPS + 1)
        if len(rows) <= MAX_LISTED_STEPS:
            answer["step_count"] = len(rows)
            answer["steps"] = [shown_step(row) for row in rows]
            return JSONResponse(answer)
        count = values.get("columns", DEFAULT_COLUMNS)
        length_ns = max(1, -(-(until_ns - since_ns) // count))
        found = store.step_columns(where, length_ns)
        answer["step_count"] = sum(column.step_count for column in found)
        answer["column_seconds"] = length_ns / NANOS_PER_SECOND
        answer["columns"] = [_shown_column(column) for column in found]
        return JSONResponse(answer)

    @router.get(
        "/steps/{engine:text}/{index}/members",
        **documented("The requests that were in a step", (PRODUCER, SINCE, UNTIL), OBJECT),
    )
    def members(engine: EngineName, index: StepIndex, request: Request) -> Response:
        """The engine counts its steps by itself in each process; `producer` is which, and may be
        left out where only one has such a step. Without `since`, the step is looked for in the 24h
        before `until`. `phase` is `prefill` until the step that ends with the first token; where
        prompts were prefilled together, `prefill_tokens` go to those scheduled first. `membership`
        is `inferred` where the engine does not say who was in a step, and it follows from times."""
        values = parse_parameters(request.query_params, (PRODUCER, SINCE, UNTIL))
        try:
            number = parse_step_index(index)
        except ValueError as error:
            raise ParameterError(f"index: expected {error}, got {index[:100]!r}") from None
        since_ns, until_ns = _window(values, DEFAULT_MEMBERS_WINDOW_NS)
        row = _the_step(store, engine, number, since_ns, until_ns, values.get("producer"))
        return JSONResponse(_members(store, engine, row))

    return router


def _window(values: dict[str, Any], default_ns: int) -> tuple[int, int]:
    until_ns = values.get("until", time.time_ns())
    since_ns = values.get("since", max(0, until_ns - default_ns))
    if since_ns >= until_ns:
        raise ParameterError("since: expected a time before until, which is now by default")
    return since_ns, until_ns


def _shown_column(column: StepColumn) -> dict[str, Any]:
    shown = {
        "time": format_rfc3339(column.start_ns),
        "step_count": column.step_count,
        "mean_ms": column.mean_duration_ns / NANOS_PER_MS,
        "longest_ms": column.longest_duration_ns / NANOS_PER_MS,
    }
    for name in ("batch_fill_ratio", "prefill_share", "queue_depth", "kv_cache_usage"):
        if (value := getattr(column, name)) is not None:
            shown[name] = value
    return shown


def _the_step(
    store: SpanReader, engine: str, index: int, since_ns: int, until_ns: int, producer: Any
) -> Row:
    where = EngineFilter(
        "step", since_ns, until_ns, engine=engine, producer_id=producer, steps=(index, index)
    )
    rows = store.engine_rows(where, SHOWN_STEP_COLUMNS, MAX_PRODUCERS)
    if not rows:
        raise HTTPException(404, f"no step {index} of engine {engine[:100]!r} in that time")
    place = SHOWN_STEP_COLUMNS.index("producer_id")
    producers = {row[place] for row in rows}
    if len(producers) > 1:
        names = ", ".join(sorted("none" if one is None else one.hex for one in producers))
        raise ParameterError(f"producer: expected one of those that have such a step: {names}")
    return rows[-1]


def _members(store: SpanReader, engine: str, row: Row) -> dict[str, Any]:
    given = dict(zip(SHOWN_STEP_COLUMNS, row, strict=True))
    step = step_facts(SHOWN_STEP_COLUMNS, row)

    def around(kind: Any, before_ns: int, steps: tuple[int, int]) -> EngineFilter:
        return EngineFilter(
            kind,
            max(0, step.start_ns - before_ns),
            step.end_ns + 1,
            model=given["model_name"],
            engine=engine,
            producer_id=given["producer_id"],
            steps=steps,
        )

    where = around("request", LONGEST_REQUEST_NS, (step.index, step.index))
    found = [
        request_facts(REQUEST_COLUMNS, one)
        for one in store.engine_rows(where, REQUEST_COLUMNS, MAX_OTHERS)
    ]
    # What they prefilled before counts: a prompt in chunks has its rest here.
    first = min(
        (one.first_step or step.index for one in found if is_prefilling(one, step)),
        default=step.index,
    )
    before = around("step", LONGEST_STEP_NS, (first, step.index))
    steps = [
        step_facts(STEP_COLUMNS, one) for one in store.engine_rows(before, STEP_COLUMNS, MAX_STEPS)
    ]
    shares = prefill_shares(steps, found).get(step.index, {})
    return {
        "step": shown_step(row),
        "members": [
            {
                **shown_request(one),
                "phase": "prefill" if is_prefilling(one, step) else "decode",
                "prefill_tokens": shares.get(one.span_id, 0),
                "first_step": one.first_step,
                "last_step": one.last_step,
            }
            for one in found
        ],
    }
