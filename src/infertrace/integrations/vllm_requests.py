"""The requests of a vLLM engine: what is known of each while it lives, and its span at the end."""

from __future__ import annotations

import time
from array import array
from collections.abc import Mapping, Sequence
from typing import Any, Final

from infertrace.integrations.switch import Switch
from infertrace.integrations.token_times import (
    MS_PER_SECOND,
    NANOS_PER_MS,
    NANOS_PER_SECOND,
    interval_fields,
)
from infertrace.integrations.vllm_clock import EngineClock

REQUEST: Final = "request"
FRAMEWORK: Final = "vllm"
KIND: Final = "server"
"""As vLLM's own spans of requests."""
# Where we keep ours on vLLM's objects.
_ATTRIBUTE: Final = "_infertrace_iteration"
_TIME_ATTRIBUTE: Final = "_infertrace_engine_s"


def served_name(vllm_config: Any) -> str:
    """What the users of a server call its model."""
    name = vllm_config.model_config.served_model_name or vllm_config.model_config.model
    return str(name if isinstance(name, str) else name[0])


class LiveRequest:
    """A request that has not ended.

    state: vLLM's RequestState. parent: the `traceparent` that it goes under. Before its first
    output it has no clock, engine and steps.
    """

    __slots__ = (
        "__weakref__",
        "clock",
        "computed_tokens",
        "engine",
        "first_step",
        "has_begun",
        "last",
        "model_name",
        "parent",
        "prefill_only_steps",
        "state",
        "token_s",
    )

    def __init__(self, state: Any, parent: str | None, model_name: str | None) -> None:
        self.state = state
        self.parent = parent
        self.model_name = model_name
        self.has_begun = False
        self.computed_tokens = 0
        self.clock: EngineClock | None = None
        self.engine: str | None = None
        self.first_step = self.prefill_only_steps = 0
        self.last: Iteration | None = None
        """The last one that had something of it."""
        self.token_s = array("d")
        """When its tokens came, by the engine's clock; those of one step once."""


class Iteration:
    """One output of the engine: a step's end, with what its requests got."""

    __slots__ = ("begun", "engine_s", "finished", "first_tokens", "size", "step_index")

    def __init__(self, engine_s: float) -> None:
        self.engine_s = engine_s
        self.size = self.first_tokens = self.step_index = 0
        self.begun: list[LiveRequest] = []
        """Those of which this is the first output."""
        self.finished: list[LiveRequest] = []
        """In the order of vLLM's `finished_requests`."""


def iteration_of(iteration_stats: Any) -> Iteration | None:
    found: Iteration | None = getattr(iteration_stats, _ATTRIBUTE, None)
    return found


def note_time(outputs: Any) -> None:
    """Keep when a step ended, also one of which no request got anything."""
    if outputs.scheduler_stats is not None:
        setattr(outputs.scheduler_stats, _TIME_ATTRIBUTE, outputs.timestamp)


def said_s(scheduler_stats: Any) -> float | None:
    found: float | None = getattr(scheduler_stats, _TIME_ATTRIBUTE, None)
    return found


def note_outputs(
    live: dict[str, LiveRequest],
    states: Mapping[str, Any],
    outputs: Sequence[Any],
    engine_s: float,
    iteration_stats: Any,
) -> None:
    """Keep what a part of the engine's output says; `states` are the requests that go on."""
    iteration = iteration_of(iteration_stats)
    if iteration is None:
        iteration = Iteration(engine_s)
        setattr(iteration_stats, _ATTRIBUTE, iteration)
    for output in outputs:
        request_id = output.request_id
        request = live.get(request_id)
        if request is None:
            continue
        if request_id not in states:
            iteration.finished.append(live.pop(request_id))
        iteration.size += 1
        tokens = output.new_token_ids
        request.last = iteration
        if not request.has_begun:
            request.has_begun = True
            request.computed_tokens = _computed_tokens(request.state, output)
            iteration.begun.append(request)
            iteration.first_tokens += len(tokens)
        if tokens:
            request.token_s.append(engine_s)


def _computed_tokens(state: Any, output: Any) -> int:
    """Of its prompt, the tokens that the engine had to read."""
    prefill = getattr(output, "prefill_stats", None)
    if prefill is not None:
        return int(prefill.num_computed_tokens)
    return max(0, int(state.prompt_len - state.num_cached_tokens))


def row_of(request: LiveRequest, end_ns: int, finish_reason: str) -> dict[str, Any]:
    """Its span as a row of `record_batch`; what is not known is None."""
    state, stats = request.state, request.state.stats
    start_ns = round(stats.arrival_time * NANOS_PER_SECOND)
    lora = state.lora_name
    return {
        "start_ns": start_ns,
        "duration_ns": max(0, end_ns - start_ns),
        "parents": request.parent,
        "request_id": state.external_req_id,
        "framework": FRAMEWORK,
        "finish_reason": finish_reason,
        "input_tokens": state.prompt_len,
        "output_tokens": stats.num_generation_tokens,
        "tags": None if lora is None else {"vllm.lora_name": lora},
        **_engine_fields(request, start_ns),
    }


def record_ended(
    switch: Switch,
    request: LiveRequest,
    status: str,
    finish_reason: str,
    message: str | None = None,
    end_ns: int | None = None,
) -> None:
    """Record a request that was not finished, by default now."""
    row = row_of(request, time.time_ns() if end_ns is None else end_ns, finish_reason)
    fields: Any = {name: value for name, value in row.items() if value is not None}
    switch.count_use()
    switch.tracer.record(
        request.model_name,
        REQUEST,
        parent=fields.pop("parents", None),
        status=status,
        status_message=message,
        kind=KIND,
        **fields,
    )


def _engine_fields(request: LiveRequest, start_ns: int) -> dict[str, Any]:
    """What the engine has said of it; nothing before its first output."""
    state, stats, clock = request.state, request.state.stats, request.clock
    if clock is None or request.last is None:
        return {}

    def after_ms(engine_s: float) -> float:
        return max(0, clock.unix_ns(engine_s) - start_ns) / NANOS_PER_MS

    fields: dict[str, Any] = {
        "cached_input_tokens": state.num_cached_tokens,
        "preemption_count": stats.num_preemptions,
        "engine": request.engine,
        "membership": "inferred",
        "first_step": request.first_step,
        "last_step": request.last.step_index,
        "step_count": request.prefill_only_steps + max(1, len(request.token_s)),
    }
    if stats.scheduled_ts:
        waited_s = max(0.0, stats.scheduled_ts - stats.queued_ts)
        fields["queue_wait_time_ms"] = waited_s * MS_PER_SECOND
        fields["scheduled_after_ms"] = after_ms(stats.scheduled_ts)
    if request.token_s:
        fields["time_to_first_token_ms"] = after_ms(stats.first_token_ts)
        fields.update(_interval_fields(request, stats))
    return fields


def _interval_fields(request: LiveRequest, stats: Any) -> dict[str, Any]:
    if stats.num_generation_tokens < 2:
        return {}
    decode_s = stats.last_token_ts - stats.first_token_ts
    mean_ms = decode_s * MS_PER_SECOND / (stats.num_generation_tokens - 1)
    return {"inter_token_latency_ms": mean_ms, **interval_fields(request.token_s)}
