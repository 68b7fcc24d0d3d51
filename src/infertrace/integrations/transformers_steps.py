"""The steps of transformers' continuous batching: a span for each pass over a batch.

transformers says who is in a batch, and how much of its prompt that reads, as it begins; what it
gave is asked for when it has ended. So the members of a step are known, not inferred. On a GPU the
next step is begun before: it counts from the end of the one before.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final
from weakref import WeakKeyDictionary

from infertrace.external_span import exchange_current
from infertrace.integrations.switch import Switch
from infertrace.integrations.token_times import NANOS_PER_SECOND

STEP: Final = "step"
# Where we keep ours: on transformers' RequestState, and on the inputs of a batch.
REQUEST_ATTRIBUTE: Final = "_infertrace_request"
_STEP_ATTRIBUTE: Final = "_infertrace_step"


class Membership:
    """In which steps a request was."""

    def __init__(self) -> None:
        self.engine = ""
        self.first = self.last = self.count = 0

    def fields(self) -> dict[str, Any]:
        """Nothing for one that was in none."""
        if not self.count:
            return {}
        return {
            "engine": self.engine,
            "first_step": self.first,
            "last_step": self.last,
            "step_count": self.count,
        }


class _Engine:
    """What counts the steps of one processor of batches; of those that live, each has a name."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.last_end_s = 0.0
        # Once, so that its steps follow each other as they did.
        self._zero_ns = time.time_ns() - time.perf_counter_ns()

    def unix_ns(self, moment_s: float) -> int:
        """A moment of `time.perf_counter()`."""
        return self._zero_ns + round(moment_s * NANOS_PER_SECOND)


class _Step:
    """One that has begun."""

    def __init__(self, engine: _Engine, processor: Any, model_name: str | None) -> None:
        self.engine = engine
        self.model_name = model_name
        self.start_s = time.perf_counter()
        self.queue_depth = len(processor.scheduler.waiting_requests)
        self.batch_size = self.prefill_tokens = self.decode_tokens = 0

    def read(self, members: Any) -> None:
        """transformers has moved the position of each by what the step reads."""
        for member in members:
            state = member.state
            self.batch_size += 1
            if state.position_offset - member.query_length < len(state.initial_tokens):
                self.prefill_tokens += member.query_length
            else:
                self.decode_tokens += 1


_engines: WeakKeyDictionary[Any, _Engine] = WeakKeyDictionary()
# By the name of an engine, which another has after it.
_step_counts: dict[str, int] = {}


def install_steps(switch: Switch, name_of: Callable[[Any], str | None]) -> None:
    """Have each step recorded; `name_of` names its model."""
    from transformers.generation.continuous_batching.continuous_api import (
        ContinuousBatchProcessor,
    )
    from transformers.generation.continuous_batching.input_outputs import ContinuousBatchingIOs

    def beginning(original: Callable[..., Any]) -> Callable[..., Any]:
        def generation_step(self: Any, model: Any) -> Any:
            if switch.is_on:
                with switch.guarded():
                    batch = self.inputs_and_outputs
                    pairs = getattr(batch, "io_pairs", None)
                    if pairs is not None:
                        batch = pairs[batch.current_pair].host_io
                    step = _Step(_engine_of(self), self, name_of(model))
                    step.read(batch.requests_in_batch)
                    setattr(batch, _STEP_ATTRIBUTE, step)
            return original(self, model)

        return generation_step

    def ending(original: Callable[..., Any]) -> Callable[..., Any]:
        def prepare_batch_update(self: Any) -> Any:
            result = original(self)
            step = self.__dict__.pop(_STEP_ATTRIBUTE, None)
            if step is not None and switch.is_on:
                with switch.guarded():
                    _end(switch, step, result[0])
            return result

        return prepare_batch_update

    switch.patches.wrap(ContinuousBatchProcessor, "_generation_step", beginning)
    switch.patches.wrap(ContinuousBatchingIOs, "prepare_batch_update", ending)


def _engine_of(processor: Any) -> _Engine:
    engine = _engines.get(processor)
    if engine is None:
        taken = {other.name for other in _engines.values()}
        names = (f"transformers-{number}" for number in range(len(taken) + 1))
        engine = _engines[processor] = _Engine(next(name for name in names if name not in taken))
    return engine


def _end(switch: Switch, step: _Step, members: Any) -> None:
    engine, end_s = step.engine, time.perf_counter()
    start_s = max(step.start_s, engine.last_end_s)
    engine.last_end_s = end_s
    index = _step_counts[engine.name] = _step_counts.get(engine.name, 0) + 1
    for member in members:
        request = getattr(member.state, REQUEST_ATTRIBUTE, None)
        # One that ended while the step had begun is given nothing by it.
        if request is not None and member.state.status.name in ("PREFILLING", "DECODING"):
            membership = request.membership
            membership.engine = engine.name
            membership.first = membership.first or index
            membership.last = index
            membership.count += 1
    switch.count_use()
    # A step is nobody's part, whichever span is current where the thread was started.
    current = exchange_current(None)
    try:
        switch.tracer.record(
            step.model_name,
            STEP,
            start_ns=engine.unix_ns(start_s),
            duration_ns=engine.unix_ns(end_s) - engine.unix_ns(start_s),
            framework="pytorch",
            engine=engine.name,
            step_index=index,
            batch_size=step.batch_size,
            prefill_tokens=step.prefill_tokens,
            decode_tokens=step.decode_tokens,
            queue_depth=step.queue_depth,
        )
    finally:
        exchange_current(current)
