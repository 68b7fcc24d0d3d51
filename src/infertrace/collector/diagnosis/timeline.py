"""A request's steps, by what it did in them, and how long each was beyond its tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

from infertrace.collector.diagnosis.companions import is_prefilling, prefill_shares
from infertrace.collector.diagnosis.facts import NANOS_PER_MS, RequestFacts, StepFacts
from infertrace.collector.diagnosis.step_cost import StepCost


@dataclass(frozen=True)
class TimedStep:
    """A step in the life of a request.

    `interval_ms` is from the end of the step before to its own end, without what steps usually
    have between them; `residual_ms` is what of it the step's tokens do not explain, None where
    nothing is known of what tokens cost. `foreign_tokens` are the prefill tokens of others.
    """

    step: StepFacts
    interval_ms: float
    residual_ms: float | None
    is_outlier: bool
    foreign_tokens: int


@dataclass(frozen=True)
class Timeline:
    """The steps while a request waited, while it prefilled and while it decoded.

    `shares` are the prefill tokens of each request in each step, by index and by span id.
    """

    waiting: Sequence[TimedStep]
    prefill: Sequence[TimedStep]
    decode: Sequence[TimedStep]
    shares: dict[int, dict[str, int]]

    @property
    def all(self) -> list[TimedStep]:
        return [*self.waiting, *self.prefill, *self.decode]


def timeline(
    request: RequestFacts,
    steps: Sequence[StepFacts],
    others: Sequence[RequestFacts],
    cost: StepCost | None,
) -> Timeline:
    """The steps of the request's producer and engine that overlap its time, sorted into phases."""
    ordered = sorted(steps, key=lambda step: step.index)
    overlapping = [
        step
        for step in ordered
        if step.end_ns > request.start_ns and step.start_ns < request.end_ns
    ]
    shares = prefill_shares(ordered, [request, *others])
    gaps = _gaps_ms(overlapping)
    usual_gap_ms = median(gaps.values()) if gaps else 0.0
    phases: tuple[list[TimedStep], list[TimedStep], list[TimedStep]] = ([], [], [])
    for step in overlapping:
        gap_ms = max(0.0, gaps.get(step.index, usual_gap_ms) - usual_gap_ms)
        began_ns = max(step.start_ns, request.start_ns)
        lived = (step.end_ns - began_ns) / step.duration_ns if step.duration_ns else 1.0
        interval_ms = step.duration_ms * lived + gap_ms
        expected_ms = None if cost is None else cost.of(step.prefilled, step.decoded)
        own = shares.get(step.index, {}).get(request.span_id, 0)
        timed = TimedStep(
            step,
            interval_ms,
            None if expected_ms is None else interval_ms - expected_ms * lived,
            cost is not None
            and expected_ms is not None
            and cost.is_outlier(step.duration_ms + gap_ms, expected_ms),
            max(0, step.prefilled - own),
        )
        phases[_phase(request, step)].append(timed)
    return Timeline(*phases, shares)


def _gaps_ms(steps: Sequence[StepFacts]) -> dict[int, float]:
    """The time before each step in which none ran, where the step before is known."""
    return {
        step.index: max(0, step.start_ns - before.end_ns) / NANOS_PER_MS
        for before, step in pairwise(steps)
        if step.index == before.index + 1
    }


def _phase(request: RequestFacts, step: StepFacts) -> int:
    if request.first_step is not None:
        if step.index < request.first_step:
            return 0
        return 1 if is_prefilling(request, step) else 2
    middle_ms = (step.start_ns + step.duration_ns / 2 - request.start_ns) / NANOS_PER_MS
    if request.queue_ms is not None and middle_ms < request.queue_ms:
        return 0
    first_ms = request.time_to_first_token_ms
    return 1 if first_ms is not None and middle_ms < first_ms else 2
