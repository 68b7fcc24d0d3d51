"""How long a step takes for its tokens, learned from steps of the same model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import compress
from math import isclose
from operator import mul, truediv
from statistics import median

from infertrace.collector.diagnosis.facts import StepFacts

MIN_STEPS = 8  # fewer teach nothing
_ROUNDS = 6
_OUTLIER_DEVIATIONS = 4.0
_MAD_TO_DEVIATION = 1.4826  # of a normal distribution
_LEAST_DEVIATION = 0.01
_SINGULAR = 1e-30

_Terms = tuple[Sequence[float], Sequence[float], Sequence[float]]


@dataclass(frozen=True)
class StepCost:
    """A step's milliseconds: a base, and so much for each token that it prefills and decodes.

    `deviation` is how far usual steps are from that, as a share of their duration.
    """

    base_ms: float
    prefill_token_ms: float
    decode_token_ms: float
    deviation: float

    def of(self, prefill_tokens: float, decode_tokens: float) -> float:
        """The milliseconds of a step with these tokens."""
        return (
            self.base_ms
            + self.prefill_token_ms * prefill_tokens
            + self.decode_token_ms * decode_tokens
        )

    def is_outlier(self, duration_ms: float, expected_ms: float) -> bool:
        """Whether a step is longer than its tokens and the usual noise explain."""
        allowed = max(0.25, 2 * _OUTLIER_DEVIATIONS * self.deviation)
        return duration_ms > expected_ms * (1 + allowed)


def step_cost(steps: Sequence[StepFacts]) -> StepCost | None:
    """Least squares of the relative error, without outliers; None where there are few steps.

    A relative error is at most 1 for a step that stood still, however long, so a few such steps
    cannot spoil the first round.
    """
    timed = [step for step in steps if step.duration_ns > 0]
    if len(timed) < MIN_STEPS:
        return None
    # All terms as shares of the step's duration, so that their sum should be 1.
    inverse = [1 / step.duration_ms for step in timed]
    terms: _Terms = (
        inverse,
        [step.prefilled * share for step, share in zip(timed, inverse, strict=True)],
        [step.decoded * share for step, share in zip(timed, inverse, strict=True)],
    )
    kept, coefficients, deviation = terms, (0.0, 0.0, 0.0), 0.0
    for _ in range(_ROUNDS):
        coefficients = _fit(kept)
        base, prefill, decode = coefficients
        errors = [
            abs(1 - base * a - prefill * b - decode * c) for a, b, c in zip(*terms, strict=True)
        ]
        deviation = max(_LEAST_DEVIATION, _MAD_TO_DEVIATION * median(errors))
        most = _OUTLIER_DEVIATIONS * deviation
        is_kept = [error <= most for error in errors]
        kept = tuple(list(compress(column, is_kept)) for column in terms)  # type: ignore[assignment]
    return StepCost(*coefficients, deviation)


def _fit(terms: _Terms) -> tuple[float, float, float]:
    """The best coefficients of which none is negative."""
    used = [column for column in (0, 1, 2) if any(terms[column])]
    # A count that is the same in all steps says nothing: the base has it.
    for column in (1, 2):
        ratios = map(truediv, terms[column], terms[0])
        first = next(ratios, 0.0)
        if column in used and all(isclose(ratio, first, abs_tol=1e-9) for ratio in ratios):
            used.remove(column)
    while True:
        found = _solved([terms[column] for column in used])
        worst = min(range(len(used)), key=lambda place: found[place])
        if found[worst] >= 0 or len(used) == 1:
            values = dict(zip(used, found, strict=True))
            base, prefill, decode = (max(0.0, values.get(column, 0.0)) for column in (0, 1, 2))
            return base, prefill, decode
        del used[worst]


def _solved(columns: Sequence[Sequence[float]]) -> list[float]:
    """The normal equations of a sum that should be 1, by Gauss with a pivot."""
    matrix = [[*(sum(map(mul, one, other)) for other in columns), sum(one)] for one in columns]
    size = len(columns)
    for place in range(size):
        pivot = max(range(place, size), key=lambda row: abs(matrix[row][place]))
        matrix[place], matrix[pivot] = matrix[pivot], matrix[place]
        if abs(matrix[place][place]) < _SINGULAR:
            matrix[place][place] = 1 / _SINGULAR  # a column that says nothing new gets 0
        for row in range(size):
            if row != place:
                factor = matrix[row][place] / matrix[place][place]
                for column in range(place, size + 1):
                    matrix[row][column] -= factor * matrix[place][column]
    return [matrix[place][size] / matrix[place][place] for place in range(size)]
