"""Who shared the steps of a request, and whose prompt a step prefilled.

What is stored of a membership is its interval of steps. A request prefills from its first step to
the one that ends with its first token; from there on it decodes one token in each. Where a step has
less prefill than its members could take, those that were scheduled first got it, as engines do.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from infertrace.collector.diagnosis.facts import NANOS_PER_MS, RequestFacts, StepFacts


@dataclass(frozen=True)
class Companion:
    """A request that shared steps with another one.

    Its tokens are those of the shared steps; `time_share` is of the other request's duration, 0 to
    1, in which they shared them. A request that was preempted was not in all of its interval, so
    `shared_steps` says at most how many.
    """

    request: RequestFacts
    shared_steps: int
    first_step: int
    last_step: int
    prefill_tokens: int
    decode_tokens: int
    time_share: float


def prefill_shares(
    steps: Sequence[StepFacts], requests: Sequence[RequestFacts]
) -> dict[int, dict[str, int]]:
    """For each step, by its index, the prefill tokens of each request, by its span id."""
    left = {request.span_id: request.uncached_tokens or 0 for request in requests}
    coming = deque(
        sorted(
            (request for request in requests if request.first_step is not None),
            key=lambda request: (request.first_step or 0, request.start_ns, request.span_id),
        )
    )
    active: list[RequestFacts] = []
    shares: dict[int, dict[str, int]] = {}
    for step in sorted(steps, key=lambda step: step.index):
        room = step.prefilled
        if room <= 0:
            continue
        while coming and (coming[0].first_step or 0) <= step.index:
            active.append(coming.popleft())
        active = [one for one in active if left[one.span_id] > 0 and is_prefilling(one, step)]
        for request in active:
            tokens = min(room, left[request.span_id])
            if tokens > 0:
                shares.setdefault(step.index, {})[request.span_id] = tokens
                left[request.span_id] -= tokens
                room -= tokens
    return shares


def is_prefilling(request: RequestFacts, step: StepFacts) -> bool:
    """Whether a step of its interval comes before its first token, or ends with it."""
    if request.first_step is None or step.index < request.first_step:
        return False
    if request.last_step is not None and step.index > request.last_step:
        return False
    if request.time_to_first_token_ms is None:
        return True
    # The token comes when the step ends; offsets are rounded, so its middle decides.
    first_ns = request.start_ns + request.time_to_first_token_ms * NANOS_PER_MS
    return step.start_ns + step.duration_ns / 2 < first_ns


def companions_of(
    request: RequestFacts, steps: Sequence[StepFacts], others: Sequence[RequestFacts]
) -> list[Companion]:
    """Those that shared most of its time first; empty where the steps of it are not known."""
    if request.first_step is None or request.last_step is None:
        return []
    by_index = {step.index: step for step in steps}
    shares = prefill_shares(steps, [request, *others])
    found = [
        companion
        for other in others
        if other.span_id != request.span_id
        and (companion := _companion(request, other, by_index, shares)) is not None
    ]
    found.sort(
        key=lambda one: (-one.time_share, -one.shared_steps, one.first_step, one.request.span_id)
    )
    return found


def _companion(
    request: RequestFacts,
    other: RequestFacts,
    by_index: Mapping[int, StepFacts],
    shares: Mapping[int, Mapping[str, int]],
) -> Companion | None:
    if None in (request.first_step, request.last_step, other.first_step, other.last_step):
        return None
    first = max(request.first_step or 0, other.first_step or 0)
    last = min(request.last_step or 0, other.last_step or 0)
    if first > last:
        return None
    shared = [by_index[index] for index in range(first, last + 1) if index in by_index]
    together_ns = sum(
        max(0, min(step.end_ns, request.end_ns) - max(step.start_ns, request.start_ns))
        for step in shared
    )
    return Companion(
        other,
        shared_steps=last - first + 1,
        first_step=first,
        last_step=last,
        prefill_tokens=sum(shares.get(s.index, {}).get(other.span_id, 0) for s in shared),
        decode_tokens=sum(not is_prefilling(other, step) for step in shared)
        if other.output_tokens
        else 0,
        time_share=min(1.0, together_ns / request.duration_ns) if request.duration_ns else 0.0,
    )
