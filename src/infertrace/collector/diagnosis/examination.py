"""What the causes are looked for in: a request, its timeline and what is usual for its model."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import inf
from typing import Literal

from infertrace.collector.diagnosis.facts import RequestFacts, StepFacts
from infertrace.collector.diagnosis.step_cost import StepCost, step_cost
from infertrace.collector.diagnosis.timeline import TimedStep, Timeline, timeline
from infertrace.collector.diagnosis.usual import Usual

Phase = Literal["queue", "prefill", "decode"]

# A cause has to explain so much of the request's own duration, and of the usual one.
_LEAST_SHARE = 0.05
_LEAST_USUAL_SHARE = 0.1
_LEAST_FIRST_TOKEN_SHARE = 0.25
_LEAST_STALL = 5.0  # times the usual interval
# Without a baseline a phase is slow where it takes so much of the request.
_LONE_QUEUE_SHARE = 0.3
_LONE_PREFILL_SHARE = 0.5
_LONE_STALL = 5.0  # times the mean interval


@dataclass(frozen=True)
class Examination:
    """One request and what it is compared with.

    `is_lenient` counts every phase as slow: for a request that is slow though no phase is.
    """

    request: RequestFacts
    steps: Sequence[StepFacts]
    others: Sequence[RequestFacts]
    usual: Usual
    is_lenient: bool = False

    @cached_property
    def cost(self) -> StepCost | None:
        """What tokens cost: as usual, or as in the steps at hand, where nothing is usual."""
        return self.usual.step_cost or step_cost(self.steps)

    @cached_property
    def timeline(self) -> Timeline:
        return timeline(self.request, self.steps, self.others, self.cost)

    @cached_property
    def by_span(self) -> dict[str, RequestFacts]:
        return {other.span_id: other for other in (*self.others, self.request)}

    @property
    def usual_interval_ms(self) -> float | None:
        return None if self.usual.interval_ms is None else self.usual.interval_ms.p50

    @cached_property
    def longest_interval_ms(self) -> float | None:
        """The longest pause between two tokens: as recorded, or of the steps."""
        if self.request.max_inter_token_latency_ms is not None:
            return self.request.max_inter_token_latency_ms
        return max((timed.interval_ms for timed in self.timeline.decode), default=None)

    @property
    def is_slow(self) -> bool:
        """Whether the request as a whole stands out."""
        spread = self.usual.duration_ms
        return spread is not None and spread.stands_out(self.request.duration_ms)

    def is_material(self, explained_ms: float, *phases: Phase) -> bool:
        """Whether a delay of these milliseconds, in these phases, is worth a finding.

        It is where it is much of the request; of the time to its first token, where that
        stands out; or of a pause between tokens, where the longest one stands out.
        """
        least_ms = _LEAST_SHARE * self.request.duration_ms
        if self.usual.duration_ms is not None:
            least_ms = max(least_ms, _LEAST_USUAL_SHARE * self.usual.duration_ms.p50)
        if not {"queue", "prefill"}.isdisjoint(phases):
            least_ms = min(least_ms, self._least_of_first_token_ms)
        if "decode" in phases:
            least_ms = min(least_ms, self._least_stall_ms)
        return explained_ms > 0 and explained_ms >= least_ms

    @property
    def _least_of_first_token_ms(self) -> float:
        first_ms, spread = self.request.time_to_first_token_ms, self.usual.first_token_ms
        if first_ms is None or spread is None or not spread.stands_out(first_ms):
            return inf
        return _LEAST_FIRST_TOKEN_SHARE * first_ms

    @property
    def _least_stall_ms(self) -> float:
        longest_ms, spread = self.longest_interval_ms, self.usual.longest_interval_ms
        usual_ms = self.usual_interval_ms
        if longest_ms is None or spread is None or not spread.stands_out(longest_ms):
            return inf
        return inf if usual_ms is None else _LEAST_STALL * usual_ms

    @cached_property
    def slow_phases(self) -> frozenset[Phase]:
        """The phases that took longer than they usually do."""
        found: dict[Phase, bool] = {
            "queue": self._is_queue_slow(),
            "prefill": self._is_prefill_slow(),
            "decode": self._is_decode_slow(),
        }
        return frozenset(name for name, is_slow in found.items() if is_slow or self.is_lenient)

    def _is_queue_slow(self) -> bool:
        waited_ms = self.request.queue_ms
        if waited_ms is None:
            return False
        if self.usual.queue_ms is not None:
            return self.usual.queue_ms.stands_out(waited_ms)
        return waited_ms >= _LONE_QUEUE_SHARE * self.request.duration_ms

    def _is_prefill_slow(self) -> bool:
        prefill_ms = self.request.prefill_ms
        if prefill_ms is None:
            return False
        if self.usual.prefill_ms is not None:
            return self.usual.prefill_ms.stands_out(prefill_ms)
        return prefill_ms >= _LONE_PREFILL_SHARE * self.request.duration_ms

    @cached_property
    def is_pace_slow(self) -> bool:
        """Whether all tokens came slowly, not only some: what slows every step shows in that."""
        interval_ms, spread = self.request.interval_ms, self.usual.interval_ms
        is_slow = interval_ms is not None and spread is not None and spread.stands_out(interval_ms)
        return is_slow or self.is_lenient

    def _is_decode_slow(self) -> bool:
        interval_ms, longest_ms = self.request.interval_ms, self.longest_interval_ms
        if interval_ms is None:
            return False
        if self.is_pace_slow:
            return True
        if self.usual.longest_interval_ms is not None:
            return longest_ms is not None and self.usual.longest_interval_ms.stands_out(longest_ms)
        return longest_ms is not None and longest_ms >= _LONE_STALL * interval_ms

    @cached_property
    def preempted_ms(self) -> float:
        """How long preemptions kept it from its next token; 0 without any.

        At least the steps of its interval in which it was not, and at least its longest pause.
        """
        request = self.request
        if not request.preemption_count:
            return 0.0
        lost_ms = 0.0
        members = [*self.timeline.prefill, *self.timeline.decode]
        if members and request.step_count is not None:
            missing = max(0, len(members) - request.step_count)
            lost_ms = missing * sum(timed.interval_ms for timed in members) / len(members)
        if request.max_inter_token_latency_ms is not None:
            usual_ms = self.usual_interval_ms or request.interval_ms or 0.0
            lost_ms = max(lost_ms, request.max_inter_token_latency_ms - usual_ms)
        return min(lost_ms, request.duration_ms)

    @cached_property
    def decoded_share(self) -> float:
        """Of the time after the first token, the share in which it was not preempted."""
        decode_ms = self.request.decode_ms
        if not decode_ms:
            return 1.0
        return max(0.0, 1 - self.preempted_ms / decode_ms)

    def slow_steps(self) -> Iterable[tuple[TimedStep, float]]:
        """The steps of the slow phases, each with the share of it that counts."""
        phases = (
            ("queue", self.timeline.waiting, 1.0),
            ("prefill", self.timeline.prefill, 1.0),
            ("decode", self.timeline.decode, self.decoded_share),
        )
        for phase, steps, share in phases:
            if phase in self.slow_phases:
                for timed in steps:
                    yield timed, share

    def memory_hog(self) -> RequestFacts | None:
        """The companion that holds far more of the KV cache than is usual, and than any other."""
        usual_in, usual_out = self.usual.input_tokens, self.usual.output_tokens
        if usual_in is None or usual_out is None:
            return None
        sizes = sorted(
            (
                ((other.input_tokens or 0) + (other.output_tokens or 0), other)
                for other in self.others
                if other.span_id != self.request.span_id
            ),
            key=lambda sized: (-sized[0], sized[1].span_id),
        )
        if not sizes or sizes[0][0] <= 2 * (usual_in.p95 + usual_out.p95):
            return None
        if len(sizes) > 1 and sizes[0][0] < 2 * sizes[1][0]:
            return None
        return sizes[0][1]
