"""Causes in what shares the engine: the queue, the prefill of others, preemptions, the batch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from infertrace.collector.diagnosis.examination import Examination
from infertrace.collector.diagnosis.facts import NANOS_PER_MS, RequestFacts
from infertrace.collector.diagnosis.finding import MAX_EVIDENCE, Finding, SlowStep, worst_steps
from infertrace.collector.diagnosis.timeline import TimedStep
from infertrace.collector.diagnosis.wording import (
    counted,
    milliseconds,
    named,
    percent,
    step_numbers,
)

_MOST = 0.5  # of the tokens, from where on one request is the culprit
_FULL = 0.95


def queue(of: Examination, otherwise_ms: float) -> Finding | None:
    """The wait for its turn, without the part of it that other causes explain."""
    request, waited_ms = of.request, of.request.queue_ms
    if waited_ms is None:
        waited_ms = request.queue_wait_time_ms
    usual_ms = None if of.usual.queue_ms is None else of.usual.queue_ms.p50
    if waited_ms is None or ("queue" not in of.slow_phases and request.queue_ms is not None):
        return None
    explained_ms = waited_ms - (usual_ms or 0.0) - otherwise_ms
    if not of.is_material(explained_ms, "queue"):
        return None
    ahead = [other for other in of.others if _was_waiting(other, request)]
    running = [other for other in of.others if _was_running(other, request)]
    is_recorded = bool(of.others or of.steps)
    behind = f" behind {counted(len(ahead), 'request')}" if is_recorded and ahead else ""
    sentence = f"It waited {milliseconds(waited_ms)} in the queue{behind}"
    sentence += "." if usual_ms is None else f"; usually {milliseconds(usual_ms)}."
    steps = [timed.step for timed in of.timeline.waiting]
    fills = [step.batch_fill_ratio for step in steps if step.batch_fill_ratio is not None]
    usages = [step.kv_cache_usage for step in steps if step.kv_cache_usage is not None]
    full = sum(fill >= _FULL for fill in fills) / len(fills) if fills else None
    most_used = max(usages, default=None)
    culprit = None
    if full is not None and full >= _MOST:
        sentence += f" The batch was full in {percent(full)} of the steps of that time."
    elif most_used is not None and most_used >= _FULL - 0.15:
        sentence += f" The KV cache was {percent(most_used)} full."
        culprit = of.memory_hog()
    if request.queue_ms is None:
        sentence += " The server says so; how much of it lies within the span is not recorded."
    return Finding(
        "queue",
        explained_ms,
        sentence,
        {
            "queue_ms": waited_ms,
            "usual_queue_ms": usual_ms,
            "requests_ahead": len(ahead) if is_recorded else None,
            "requests_running": len(running) if is_recorded else None,
            "full_batch_share": full,
            "kv_cache_usage": most_used,
        },
        culprit,
        sorted(ahead, key=lambda other: (other.start_ns, other.span_id))[:MAX_EVIDENCE],
        [SlowStep(step, 0.0) for step in steps[:1]],
    )


def _was_waiting(other: RequestFacts, request: RequestFacts) -> bool:
    """Whether it was in the queue when the request came."""
    waited_ms = other.queue_ms
    if waited_ms is None or other.span_id == request.span_id:
        return False
    scheduled_ns = other.start_ns + waited_ms * NANOS_PER_MS
    return other.start_ns <= request.start_ns < scheduled_ns


def _was_running(other: RequestFacts, request: RequestFacts) -> bool:
    scheduled_ns = other.start_ns + (other.queue_ms or 0.0) * NANOS_PER_MS
    return other.span_id != request.span_id and scheduled_ns <= request.start_ns < other.end_ns


def prefill_of_others(of: Examination) -> Finding | None:
    """Steps that were long because they prefilled the prompts of other requests."""
    cost = of.cost
    if cost is None or not cost.prefill_token_ms:
        return None
    explained_ms = 0.0
    blamed: list[tuple[TimedStep, float]] = []
    for phase, steps, share in (
        ("prefill", of.timeline.prefill, 1.0),
        ("decode", of.timeline.decode, of.decoded_share),
    ):
        if phase in of.slow_phases:
            chosen, beyond = _long_for_prefill(of, steps)
            rate_ms = share * cost.prefill_token_ms
            # What tokens cost is learned from usual steps; of a far larger one, it may be too much.
            most_ms = share * sum(timed.interval_ms for timed in chosen)
            explained_ms += min(max(0.0, rate_ms * beyond), most_ms)
            blamed += [
                (timed, min(rate_ms * _beyond_usual(of, timed), timed.interval_ms))
                for timed in chosen
            ]
    waiting_ms, waiting = _one_prompt_ahead(of)
    explained_ms += waiting_ms
    blamed += waiting
    blamed = [(timed, ms) for timed, ms in blamed if ms > 0]
    if not of.is_material(explained_ms, "prefill", "decode"):
        explained_ms, blamed = _unusual_prompts(of, cost.prefill_token_ms)
        if not of.is_material(explained_ms, "prefill", "decode"):
            return None
    blamed_steps = [timed.step for timed, _ in blamed]
    tokens = sum(timed.foreign_tokens for timed, _ in blamed)
    by_request = _foreign_tokens(of, [timed for timed, _ in blamed])
    worst = [of.by_span[span_id] for span_id, _ in by_request.most_common(MAX_EVIDENCE)]
    culprit = worst[0] if worst and _is_culprit(of, by_request, tokens) else None
    count = len(by_request)
    whose = counted(count, "other request")
    if culprit is not None:
        whose = f"{named(culprit)} ({culprit.uncached_tokens or 0:,} tokens to compute)"
        if count > 1:
            whose += f" and {counted(count - 1, 'other request')}"
    elif not count:
        whose = "requests that are not recorded"
    where = step_numbers([step.index for step in blamed_steps])
    return Finding(
        "prefill_of_others",
        explained_ms,
        f"{where[0].upper()}{where[1:]} prefilled {counted(tokens, 'token')} of {whose}, which "
        f"held it up for {milliseconds(explained_ms)}.",
        {
            "step_count": len(blamed_steps),
            "prefill_tokens": tokens,
            "request_count": count,
            "longest_step_ms": max(step.duration_ms for step in blamed_steps),
            "prefill_token_ms": cost.prefill_token_ms,
        },
        culprit,
        worst,
        worst_steps(blamed),
    )


def _is_culprit(of: Examination, by_request: Counter[str], tokens: int) -> bool:
    """Whether the first of them has most of the tokens, or an unusual prompt and far more."""
    (first_id, first), *rest = by_request.most_common(2)
    if first >= _MOST * tokens:
        return True
    spread = of.usual.uncached_tokens
    is_unusual = spread is not None and spread.stands_out(of.by_span[first_id].uncached_tokens or 0)
    return is_unusual and (not rest or first >= 2 * rest[0][1])


def _unusual_prompts(
    of: Examination, prefill_token_ms: float
) -> tuple[float, list[tuple[TimedStep, float]]]:
    """The steps after it was scheduled that prefilled far longer prompts than usual."""
    spread = of.usual.uncached_tokens
    if spread is None:
        return 0.0, []
    unusual = {
        other.span_id for other in of.others if spread.stands_out(other.uncached_tokens or 0)
    }
    found = []
    for timed in (*of.timeline.prefill, *of.timeline.decode):
        shares = _shares_of_others(of, timed)
        if tokens := sum(n for span_id, n in shares.items() if span_id in unusual):
            found.append((timed, tokens * prefill_token_ms))
    return sum(ms for _, ms in found), found


def _foreign(of: Examination, timed: TimedStep) -> int:
    """The prefill tokens of others; of a request that was preempted only those known as theirs.

    The rest may be its own, computed again.
    """
    if not of.request.preemption_count:
        return timed.foreign_tokens
    return sum(_shares_of_others(of, timed).values())


def _shares_of_others(of: Examination, timed: TimedStep) -> dict[str, int]:
    shares = of.timeline.shares.get(timed.step.index, {})
    return {span_id: n for span_id, n in shares.items() if span_id != of.request.span_id}


def _foreign_tokens(of: Examination, steps: Sequence[TimedStep]) -> Counter[str]:
    found: Counter[str] = Counter()
    for timed in steps:
        found.update(_shares_of_others(of, timed))
    return found


def _long_for_prefill(
    of: Examination, steps: Sequence[TimedStep]
) -> tuple[Sequence[TimedStep], float]:
    """The steps that were long for the prefill of others, and how many tokens more than usual.

    These are the few whose duration stands out, or all, whichever explain more. Some stand out at
    any time: what the same number of such steps usually prefills does not count.
    """
    spread = of.usual.step_ms
    in_all = sum(_beyond_usual(of, timed) for timed in steps)
    if spread is None:
        return [timed for timed in steps if _foreign(of, timed)], in_all
    long = [
        timed
        for timed in steps
        if _foreign(of, timed) and spread.stands_out(timed.step.duration_ms)
    ]
    in_long = sum(_beyond_usual(of, timed) for timed in long)
    in_long -= len(steps) * of.usual.step_stall_tokens
    return (long, in_long) if in_long >= in_all or not of.is_pace_slow else (steps, in_all)


def _beyond_usual(of: Examination, timed: TimedStep) -> float:
    return _foreign(of, timed) - of.usual.step_prefill_tokens


def _one_prompt_ahead(of: Examination) -> tuple[float, list[tuple[TimedStep, float]]]:
    """Of the wait in the queue, what the prompt of a single request explains, if that is most."""
    cost, waited_ms = of.cost, of.request.queue_ms
    if "queue" not in of.slow_phases or cost is None or waited_ms is None:
        return 0.0, []
    by_request = _foreign_tokens(of, of.timeline.waiting)
    if not by_request:
        return 0.0, []
    ((span_id, tokens),) = by_request.most_common(1)
    explained_ms = tokens * cost.prefill_token_ms
    if explained_ms < _MOST * waited_ms or tokens < _MOST * by_request.total():
        return 0.0, []
    explained_ms = min(explained_ms, waited_ms)
    steps = [t for t in of.timeline.waiting if span_id in of.timeline.shares.get(t.step.index, {})]
    return explained_ms, [
        (
            timed,
            explained_ms * of.timeline.shares[timed.step.index][span_id] / tokens,
        )
        for timed in steps
    ]


def waited_otherwise_ms(of: Examination) -> float:
    """Of the wait in the queue, what steps explain that were slow, or one request's prompt."""
    if "queue" not in of.slow_phases:
        return 0.0
    slow_ms = sum(max(0.0, t.residual_ms or 0.0) for t in of.timeline.waiting if t.is_outlier)
    return slow_ms + _one_prompt_ahead(of)[0]


def preemption(of: Examination) -> Finding | None:
    """It lost its place in the KV cache, and was computed again."""
    request = of.request
    explained_ms = of.preempted_ms
    if not of.is_material(explained_ms, "decode"):
        return None
    members = [*of.timeline.prefill, *of.timeline.decode]
    fullest = sorted(
        (timed for timed in members if timed.step.kv_cache_usage is not None),
        key=lambda timed: (-(timed.step.kv_cache_usage or 0.0), timed.step.index),
    )
    hog = of.memory_hog()
    times = counted(request.preemption_count or 0, "time")
    sentence = (
        f"It was preempted {times}, and was without a token for {milliseconds(explained_ms)}, "
        "until it was scheduled and computed again."
    )
    if hog is not None:
        size = (hog.input_tokens or 0) + (hog.output_tokens or 0)
        sentence += f" Most of the KV cache was {named(hog)}'s, of {counted(size, 'token')}."
    return Finding(
        "preemption",
        explained_ms,
        sentence,
        {
            "preemption_count": request.preemption_count,
            "longest_interval_ms": request.max_inter_token_latency_ms,
            "kv_cache_usage": fullest[0].step.kv_cache_usage if fullest else None,
        },
        hog,
        () if hog is None else (hog,),
        [SlowStep(timed.step, 0.0) for timed in fullest[:1]],
    )


def batch(of: Examination) -> Finding | None:
    """Steps that were long because they decoded more requests than usual."""
    cost, spread, steps = of.cost, of.usual.step_decode_tokens, of.timeline.decode
    if cost is None or spread is None or not steps or not of.is_pace_slow:
        return None
    mean = sum(timed.step.decoded for timed in steps) / len(steps)
    if mean <= spread.p95:
        return None
    parts = [
        (t, of.decoded_share * cost.decode_token_ms * (t.step.decoded - spread.p50)) for t in steps
    ]
    explained_ms = sum(ms for _, ms in parts)
    if not of.is_material(explained_ms, "decode"):
        return None
    return Finding(
        "batch",
        explained_ms,
        f"Its steps decoded {mean:.1f} tokens each, usually {spread.p50:.0f}: "
        f"{milliseconds(explained_ms)} in {counted(len(steps), 'step')}.",
        {
            "decode_tokens_mean": mean,
            "usual_decode_tokens": spread.p50,
            "step_count": len(steps),
            "decode_token_ms": cost.decode_token_ms,
        },
        steps=worst_steps(parts),
    )
