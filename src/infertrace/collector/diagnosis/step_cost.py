"""How long a step takes for its tokens, learned from steps of the same model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from infertrace.collector.diagnosis.facts import StepFacts

MIN_STEPS = 8  # fewer teach nothing
_ROUNDS = 6
_OUTLIER_DEVIATIONS = 4.0
_MAD_TO_DEVIATION = 1.4826  # of a normal distribution
_LEAST_DEVIATION = 0.01


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
    rows = [
        (float(step.prefilled), float(step.decoded), step.duration_ms)
        for step in steps
        if step.duration_ns > 0
    ]
    if len(rows) < MIN_STEPS:
        return None
    kept = rows
    coefficients, deviation = (0.0, 0.0, 0.0), 0.0
    for _ in range(_ROUNDS):
        coefficients = _fit(kept)
        errors = [_relative_error(coefficients, row) for row in rows]
        deviation = max(_LEAST_DEVIATION, _MAD_TO_DEVIATION * median(map(abs, errors)))
        kept = [
            row
            for row, error in zip(rows, errors, strict=True)
            if abs(error) <= _OUTLIER_DEVIATIONS * deviation
        ]
    return StepCost(*coefficients, deviation)


def _relative_error(coefficients: tuple[float, float, float], row: tuple[float, ...]) -> float:
    prefilled, decoded, duration_ms = row
    base, prefill, decode = coefficients
    return 1 - (base + prefill * prefilled + decode * decoded) / duration_ms


def _fit(rows: Sequence[tuple[float, float, float]]) -> tuple[float, float, float]:
    """The best coefficients of which none is negative."""
    used = [
        column for column in (0, 1, 2) if column == 0 or len({row[column - 1] for row in rows}) > 1
    ]
    while True:
        found = _solved(rows, used)
        worst = min(range(len(used)), key=lambda place: found[place])
        if found[worst] >= 0 or len(used) == 1:
            values = dict(zip(used, found, strict=True))
            base, prefill, decode = (max(0.0, values.get(column, 0.0)) for column in (0, 1, 2))
            return base, prefill, decode
        del used[worst]


def _solved(rows: Sequence[tuple[float, float, float]], used: Sequence[int]) -> list[float]:
    """The normal equations, by Gauss with a pivot."""
    size = len(used)
    matrix = [[0.0] * (size + 1) for _ in range(size)]
    for prefilled, decoded, duration_ms in rows:
        all_terms = (1 / duration_ms, prefilled / duration_ms, decoded / duration_ms)
        terms = [all_terms[column] for column in used]
        for line, one in zip(matrix, terms, strict=True):
            for place, other in enumerate(terms):
                line[place] += one * other
            line[size] += one
    for place in range(size):
        pivot = max(range(place, size), key=lambda row: abs(matrix[row][place]))
        matrix[place], matrix[pivot] = matrix[pivot], matrix[place]
        if abs(matrix[place][place]) < 1e-30:
            matrix[place][place] = 1e30  # a column that says nothing new: its coefficient is 0
        for row in range(size):
            if row != place:
                factor = matrix[row][place] / matrix[place][place]
                for column in range(place, size + 1):
                    matrix[row][column] -= factor * matrix[place][column]
    return [matrix[place][size] / matrix[place][place] for place in range(size)]
