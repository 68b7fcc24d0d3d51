"""A diagnosis as JSON types."""

from __future__ import annotations

from typing import Any

from infertrace.collector.diagnosis.facts import RequestFacts
from infertrace.collector.diagnosis.finding import Diagnosis, Finding, SlowStep
from infertrace.collector.diagnosis.usual import Spread, Usual
from infertrace.collector.query.engine_facts import shown_request
from infertrace.collector.store.timestamps import format_rfc3339

_SPREADS = (
    "duration_ms",
    "queue_ms",
    "first_token_ms",
    "prefill_ms",
    "input_tokens",
    "uncached_tokens",
    "output_tokens",
    "interval_ms",
    "longest_interval_ms",
    "step_ms",
)


def diagnosis_answer(request: RequestFacts, diagnosis: Diagnosis, usual: Usual) -> dict[str, Any]:
    """What `why` answers."""
    phases = {
        name: value
        for name in ("queue_ms", "prefill_ms", "decode_ms")
        if (value := getattr(request, name)) is not None
    }
    return {
        **shown_request(request),
        "model_name": request.model_name,
        "status": request.status,
        "summary": diagnosis.summary,
        "phases": phases,
        "findings": [_finding(request, finding) for finding in diagnosis.findings],
        "excess_ms": diagnosis.excess_ms,
        "ordinary_ms": diagnosis.ordinary_ms,
        "unexplained_ms": diagnosis.unexplained_ms,
        "unexplained": diagnosis.unexplained,
        "unknown": list(diagnosis.unknown),
        "baseline": _baseline(usual),
    }


def _finding(request: RequestFacts, finding: Finding) -> dict[str, Any]:
    return {
        "cause": finding.cause,
        "explained_ms": finding.explained_ms,
        "share": finding.explained_ms / request.duration_ms if request.duration_ns else 0.0,
        "sentence": finding.sentence,
        "numbers": dict(finding.numbers),
        "culprit": None if finding.culprit is None else shown_request(finding.culprit),
        "spans": [shown_request(span) for span in finding.spans],
        "steps": [_step(request, slow) for slow in finding.steps],
    }


def _step(request: RequestFacts, slow: SlowStep) -> dict[str, Any]:
    step = slow.step
    return {
        "engine": request.engine,
        "index": step.index,
        "trace_id": step.trace_id,
        "span_id": step.span_id,
        "start_time": format_rfc3339(step.start_ns),
        "duration_ms": step.duration_ms,
        "explained_ms": slow.explained_ms,
    }


def _baseline(usual: Usual) -> dict[str, Any]:
    answer: dict[str, Any] = {
        "since": format_rfc3339(usual.since_ns),
        "until": format_rfc3339(usual.until_ns),
        "request_count": usual.request_count,
        "step_count": usual.step_count,
    }
    for name in _SPREADS:
        spread: Spread | None = getattr(usual, name)
        if spread is not None:
            answer[name] = {"p50": spread.p50, "p95": spread.p95}
    if (cost := usual.step_cost) is not None:
        answer["step_cost_ms"] = {
            "base": cost.base_ms,
            "prefill_token": cost.prefill_token_ms,
            "decode_token": cost.decode_token_ms,
        }
    return answer
