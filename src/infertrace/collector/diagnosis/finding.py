"""What the diagnosis of a request says: findings, each with its numbers and its evidence."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from infertrace.collector.diagnosis.facts import RequestFacts, StepFacts
from infertrace.collector.diagnosis.timeline import TimedStep

Cause = Literal[
    "error",
    "queue",
    "own_prefill",
    "prefill_of_others",
    "preemption",
    "batch",
    "slow_step",
    "gpu",
    "output",
    "stall",
]
"""`stall` is a pause between tokens of which no step is recorded that could explain it."""

MAX_EVIDENCE = 10  # spans, and steps, of one finding


@dataclass(frozen=True)
class SlowStep:
    """A step as evidence: by how many milliseconds it was longer for this cause."""

    step: StepFacts
    explained_ms: float


def worst_steps(parts: Iterable[tuple[TimedStep, float]]) -> list[SlowStep]:
    """Of steps with their milliseconds, the worst ones as evidence."""
    ordered = sorted(parts, key=lambda part: (-part[1], part[0].step.index))
    return [SlowStep(timed.step, ms) for timed, ms in ordered[:MAX_EVIDENCE]]


@dataclass(frozen=True)
class Finding:
    """One cause, and how many milliseconds of the request it explains.

    `spans` are requests, `culprit` the one of them that caused most of it, if one did. `steps` are
    the worst first. Both hold at most MAX_EVIDENCE, their counts are among the numbers.
    """

    cause: Cause
    explained_ms: float
    sentence: str
    numbers: Mapping[str, float | int | str | None] = field(default_factory=dict)
    culprit: RequestFacts | None = None
    spans: Sequence[RequestFacts] = ()
    steps: Sequence[SlowStep] = ()


@dataclass(frozen=True)
class Diagnosis:
    """Why a request was slow: the findings, an error first, then by the milliseconds explained.

    `excess_ms` is how much longer it took than usual requests of the model, None where nothing is
    known of these. Of that, `ordinary_ms` is what its own tokens explain where their number is not
    unusual, and `unexplained_ms` what nothing explains. `unknown` says what could not be looked at,
    and why.
    """

    summary: str
    findings: Sequence[Finding]
    excess_ms: float | None
    unexplained_ms: float | None
    unexplained: str
    ordinary_ms: float
    unknown: Sequence[str]
