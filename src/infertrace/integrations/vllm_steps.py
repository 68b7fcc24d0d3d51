"""The steps of a vLLM engine, from what it says at the end of each.

The engine says when a step ended, how many tokens it generated, and in a request's first output
when that was scheduled and how much of its prompt had to be read. All else follows from times:

- A step began when the one before it ended, or, where the engine was idle, when its first request
  was scheduled.
- A request is in each step from its scheduling to its first token. A long prompt is read in parts,
  of which the engine says nothing: steps whose requests have not all had an output are kept until
  they have, and each part but the last is taken for as large as the engine allows.
"""

from __future__ import annotations

import time
from collections import deque
from typing import Any, Final, NamedTuple

from infertrace.integrations.record_rows import record_rows
from infertrace.integrations.switch import Switch
from infertrace.integrations.token_times import NANOS_PER_SECOND
from infertrace.integrations.vllm_clock import EngineClock
from infertrace.integrations.vllm_requests import (
    FRAMEWORK,
    KIND,
    REQUEST,
    Iteration,
    LiveRequest,
    iteration_of,
    record_ended,
    row_of,
    said_s,
)

_STEP: Final = "step"
MAX_KEPT_STEPS: Final = 256
"""Of them, none is kept for longer."""
# Steps are recorded together, since a call for each costs more than all else that is done for it:
# this many, or those of this time by the engine's clock, or all where the engine rests.
STEPS_TOGETHER: Final = 32
TOGETHER_S: Final = 0.5
_UNFINISHED: Final = {"abort": "CANCELLED", "error": "ERROR"}


class EngineLimits(NamedTuple):
    """Of one step: how many requests and tokens; and how many steps are under way at once."""

    max_requests: int
    max_tokens: int
    concurrent_steps: int


class _Step:
    """One that has ended; `start_s` is None where it is not known yet, but not before `after_s`."""

    def __init__(self, index: int, after_s: float, is_idle: bool, end_s: float) -> None:
        self.index = index
        self.after_s = after_s
        self.start_s = None if is_idle else after_s
        self.end_s = end_s
        self.size = self.prefill_tokens = self.decode_tokens = 0
        self.is_said = False
        """Whether the engine has said its size and tokens itself."""
        self.queue_depth: int | None = None
        self.kv_cache_usage: float | None = None


class EngineSteps:
    """Records the steps of one engine, and the requests that end in them."""

    def __init__(self, switch: Switch, model_name: str, engine: str, limits: EngineLimits) -> None:
        self._switch = switch
        self._model_name = model_name
        self._engine = engine
        self._limits = limits
        self._clock = EngineClock()
        self._index = 0
        self._kept: deque[_Step] = deque()
        """What they read of prompts is not known yet."""
        self._known: list[_Step] = []
        """Those before, which wait to be recorded."""
        self._last_s = 0.0
        self._running = 0
        self._is_idle = True

    def take(self, scheduler_stats: Any, iteration_stats: Any) -> None:
        """One output of the engine: vLLM's SchedulerStats and IterationStats, either or none."""
        iteration = iteration_of(iteration_stats)
        engine_s = _end_s(scheduler_stats, iteration)
        self._clock.take(engine_s)
        if scheduler_stats is not None:
            self._running = int(scheduler_stats.num_running_reqs)
        silent = self._running
        if iteration is not None:
            silent -= iteration.size - len(iteration.finished)
        # Who runs and got nothing is still prefilling; the engine also says that it rests.
        if iteration is not None or silent > 0:
            step = self._next_step(engine_s)
            _describe(step, scheduler_stats, iteration, iteration_stats)
            if iteration is not None:
                self._take_outputs(step, iteration, iteration_stats)
        self._last_s = engine_s
        self._is_idle = not self._running and not _waiting(scheduler_stats)
        if silent <= 0:
            self._known += self._kept
            self._kept.clear()
        while len(self._kept) > MAX_KEPT_STEPS:
            self._known.append(self._kept.popleft())
        known = self._known
        if known and (
            self._is_idle or len(known) >= STEPS_TOGETHER or engine_s - known[0].end_s >= TOGETHER_S
        ):
            self._record_known()

    def flush(self) -> None:
        """Record the steps that wait for others, or for a prompt."""
        self._known += self._kept
        self._kept.clear()
        self._record_known()

    def _record_known(self) -> None:
        steps, self._known = self._known, []
        if steps:
            self._switch.count_use()
            rows = [self._row(step) for step in steps]
            record_rows(self._switch.tracer, self._model_name, _STEP, rows)

    def _next_step(self, end_s: float) -> _Step:
        self._index += 1
        step = _Step(self._index, self._last_s, self._is_idle, end_s)
        self._kept.append(step)
        return step

    def _take_outputs(self, step: _Step, iteration: Iteration, iteration_stats: Any) -> None:
        iteration.step_index = step.index
        for request in iteration.begun:
            self._place(request, step)
        iteration.begun.clear()
        if iteration.finished:
            self._record_finished(iteration, iteration_stats)

    def _place(self, request: LiveRequest, last: _Step) -> None:
        """Find the steps in which it was, up to its first output, and what they read of it."""
        scheduled_s = request.state.stats.scheduled_ts
        steps = [step for step in self._kept if scheduled_s and step.end_s > scheduled_s]
        steps = steps or [last]
        # With several under way, it came into a later one than those that had begun.
        for _ in range(self._limits.concurrent_steps - 1):
            start_s = steps[0].start_s
            if len(steps) > 1 and start_s is not None and start_s < scheduled_s:
                steps.pop(0)
        first = steps[0]
        if scheduled_s and (first.start_s is None or scheduled_s < first.start_s):
            first.start_s = max(scheduled_s, first.after_s)
        request.clock, request.engine, request.first_step = self._clock, self._engine, first.index
        request.prefill_only_steps = len(steps) - 1
        left = request.computed_tokens
        for step in steps:
            room = self._limits.max_tokens - step.decode_tokens - step.prefill_tokens
            part = left if step is last else max(0, min(room, left - 1))
            left -= part
            if not step.is_said:
                step.prefill_tokens += part
                step.size += step is not last

    def _record_finished(self, iteration: Iteration, iteration_stats: Any) -> None:
        end_ns = round(iteration_stats.iteration_timestamp * NANOS_PER_SECOND)
        rows = []
        for request, finished in zip(
            iteration.finished, iteration_stats.finished_requests, strict=True
        ):
            reason = str(finished.finish_reason)
            if reason in _UNFINISHED:
                record_ended(self._switch, request, _UNFINISHED[reason], reason, end_ns=end_ns)
            else:
                rows.append(row_of(request, end_ns, reason))
        record_rows(self._switch.tracer, self._model_name, REQUEST, rows, kind=KIND)

    def _row(self, step: _Step) -> dict[str, Any]:
        start_s = step.end_s if step.start_s is None else min(step.start_s, step.end_s)
        start_ns = self._clock.unix_ns(start_s)
        return {
            "start_ns": start_ns,
            "duration_ns": self._clock.unix_ns(step.end_s) - start_ns,
            "engine": self._engine,
            "framework": FRAMEWORK,
            "step_index": step.index,
            "batch_size": step.size,
            "batch_fill_ratio": min(1.0, step.size / self._limits.max_requests),
            "prefill_tokens": step.prefill_tokens,
            "decode_tokens": step.decode_tokens,
            "queue_depth": step.queue_depth,
            "kv_cache_usage": step.kv_cache_usage,
        }


def _describe(
    step: _Step, scheduler_stats: Any, iteration: Iteration | None, iteration_stats: Any
) -> None:
    """Set what the engine says of a step."""
    if iteration is not None:
        step.size = iteration.size
        step.decode_tokens = iteration_stats.num_generation_tokens - iteration.first_tokens
    if scheduler_stats is None:
        return
    step.queue_depth = _waiting(scheduler_stats)
    step.kv_cache_usage = float(scheduler_stats.kv_cache_usage)
    details = getattr(scheduler_stats, "iteration_details", None)  # of a flag of vLLM's
    if details is not None and not details.is_dummy:
        step.is_said = True
        step.size = details.num_ctx_requests + details.num_generation_requests
        step.prefill_tokens = details.num_ctx_tokens


def _end_s(scheduler_stats: Any, iteration: Iteration | None) -> float:
    """When the step ended, by the engine's clock."""
    if iteration is not None:
        return iteration.engine_s
    return said_s(scheduler_stats) or time.monotonic()


def _waiting(scheduler_stats: Any) -> int:
    if scheduler_stats is None:
        return 0
    skipped = getattr(scheduler_stats, "num_skipped_waiting_reqs", 0)
    return int(scheduler_stats.num_waiting_reqs + skipped)
