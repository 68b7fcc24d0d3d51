"""A simulated inference engine that schedules as real ones do: continuous batching.

Requests arrive and wait in a queue of bounded length. Each step decodes one token of every running
request and, with what is left of its budget of tokens, prefills prompts in chunks. Where the KV
cache is full, the request that was scheduled last is preempted: it waits at the head of the queue
and is computed again. Nothing here sleeps or reads a clock, so a test can run hours in no time, and
the demo can wait for each step in earnest.
"""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from infertrace.commands.simulated_gpu import GpuState

NANOS_PER_SECOND: Final = 1_000_000_000
_STEP_NOISE: Final = 0.03  # standard deviation of a step's duration, as a share


class Model(NamedTuple):
    """How a simulated model and its engine behave. Without output tokens, it embeds."""

    name: str
    version: str
    framework: str
    max_batch: int
    max_step_tokens: int
    """Prefill and decode tokens of one step, together at most."""
    queue_capacity: int
    kv_capacity_tokens: int
    arrivals_per_s: float
    step_s: float
    """Duration of a step without tokens."""
    prefill_token_s: float
    decode_token_s: float
    input_tokens: tuple[int, int]
    """Fewest and most of a usual prompt."""
    output_tokens: tuple[int, int]
    cached_share: float = 0.0
    """Of a usual prompt, how much the KV cache has from others with the same beginning."""


@dataclass(eq=False)
class Request:
    """One request, and what became of it. Times are nanoseconds of the caller's clock."""

    request_id: str
    arrival_ns: int
    input_tokens: int
    output_limit: int
    cached_input_tokens: int = 0
    scheduled_ns: int | None = None
    token_times_ns: list[int] = field(default_factory=list)
    first_step: int | None = None
    last_step: int | None = None
    step_count: int = 0
    preemption_count: int = 0
    computed_tokens: int = 0
    """Tokens of it that the KV cache holds now."""
    finish_reason: str = ""
    """"stop" or "length"; "rejected" by a full queue; "error". Empty while it is not finished."""
    error: str = ""
    end_ns: int | None = None

    @property
    def tokens_to_compute(self) -> int:
        """Those that have to be in the KV cache before the next token comes."""
        return self.input_tokens + len(self.token_times_ns)

    @property
    def is_prefilling(self) -> bool:
        return self.computed_tokens < self.tokens_to_compute - bool(self.token_times_ns)


@dataclass(frozen=True, eq=False)
class Step:
    """One forward pass: what it computes, and how long that takes."""

    index: int
    """1, 2, 3, ..."""
    start_ns: int
    duration_ns: int
    prefill: Sequence[tuple[Request, int]]
    decode: Sequence[Request]
    preempted: Sequence[Request]
    batch_fill_ratio: float
    queue_depth: int
    kv_cache_usage: float
    gpu: GpuState
    failure: str = ""
    """The error that ends the step and all of its requests; empty where none does."""

    @property
    def prefill_tokens(self) -> int:
        return sum(tokens for _, tokens in self.prefill)

    @property
    def batch_size(self) -> int:
        return len(self.prefill) + len(self.decode)


class Engine:
    """The queue, the running batch and the KV cache of one model.

    `begin_step` and `end_step` are called in turn. The attributes without an underscore are faults
    to plant: of the next step only (`stall_s`, `failure`), or until they are reset.
    """

    def __init__(self, model: Model, draw: random.Random) -> None:
        self.model = model
        self.stall_s = 0.0
        """By how much longer the next step takes than its tokens need."""
        self.failure = ""
        """How the next step fails."""
        self.kv_reserved_tokens = 0
        """Of the KV cache, what requests may not use."""
        self.gpu = GpuState()
        self._draw = draw
        self._waiting: deque[Request] = deque()
        self._running: list[Request] = []
        self._steps = 0

    @property
    def queue_depth(self) -> int:
        return len(self._waiting)

    @property
    def running(self) -> Sequence[Request]:
        return self._running

    def submit(self, request: Request) -> bool:
        """Queue a request; False where the queue is full, which finishes it."""
        if len(self._waiting) < self.model.queue_capacity:
            self._waiting.append(request)
            return True
        request.finish_reason = "rejected"
        request.error = f"the queue is full ({self.model.queue_capacity} requests wait)"
        request.end_ns = request.arrival_ns
        return False

    def begin_step(self, now_ns: int) -> Step | None:
        """Choose what the next step computes; None where there is nothing to do."""
        preempted: list[Request] = []
        decode = self._decoding(preempted)
        budget = self.model.max_step_tokens - len(decode)
        prefill: list[tuple[Request, int]] = []
        for request in self._running:
            if request.is_prefilling and budget > 0:
                tokens = min(request.tokens_to_compute - request.computed_tokens, budget)
                prefill.append((request, tokens))
                budget -= tokens
        if not preempted:
            self._admit(prefill, budget, now_ns)
        if not prefill and not decode:
            return None
        self._steps += 1
        for request in (*decode, *(request for request, _ in prefill)):
            if request.first_step is None:
                request.first_step = self._steps
            request.last_step = self._steps
            request.step_count += 1
        for request, tokens in prefill:
            request.computed_tokens += tokens
        for request in decode:
            request.computed_tokens += 1
        duration_s = self._duration_s(sum(tokens for _, tokens in prefill), len(decode))
        step = Step(
            index=self._steps,
            start_ns=now_ns,
            duration_ns=round(duration_s * NANOS_PER_SECOND),
            prefill=prefill,
            decode=decode,
            preempted=preempted,
            batch_fill_ratio=(len(prefill) + len(decode)) / self.model.max_batch,
            queue_depth=len(self._waiting),
            kv_cache_usage=min(1.0, self._used_tokens() / self.model.kv_capacity_tokens),
            gpu=self.gpu,
            failure=self.failure,
        )
        self.stall_s, self.failure = 0.0, ""
        return step

    def end_step(self, step: Step, now_ns: int) -> list[Request]:
        """Give each member of the step its token; returns those that are finished."""
        members = [*(request for request, _ in step.prefill), *step.decode]
        finished = []
        for request in members:
            if step.failure:
                request.finish_reason, request.error = "error", step.failure
            elif not request.is_prefilling or request in step.decode:
                if self.model.output_tokens[1]:
                    request.token_times_ns.append(now_ns)
                if len(request.token_times_ns) >= request.output_limit:
                    is_cut = request.output_limit >= self.model.output_tokens[1] > 0
                    request.finish_reason = "length" if is_cut else "stop"
            if request.finish_reason:
                request.end_ns = now_ns
                self._running.remove(request)
                finished.append(request)
        return finished

    def _decoding(self, preempted: list[Request]) -> list[Request]:
        """The requests that get a token, after the KV cache has room for each of these."""
        decode: list[Request] = []
        capacity = self.model.kv_capacity_tokens - self.kv_reserved_tokens
        used = self._used_tokens()
        for request in list(self._running):
            if request in preempted or request.is_prefilling:
                continue
            while used + len(decode) + 1 > capacity and self._running:
                last = self._running.pop()
                used -= last.computed_tokens
                last.computed_tokens = 0
                last.preemption_count += 1
                preempted.append(last)
                self._waiting.appendleft(last)
                if last in decode:
                    decode.remove(last)
                if last is request:
                    break
            if request not in preempted:
                decode.append(request)
        return decode

    def _admit(self, prefill: list[tuple[Request, int]], budget: int, now_ns: int) -> None:
        capacity = self.model.kv_capacity_tokens - self.kv_reserved_tokens
        while self._waiting and budget > 0 and len(self._running) < self.model.max_batch:
            request = self._waiting[0]
            # Room for the whole prompt of everyone: one that is half computed would hold up others.
            promised = sum(running.tokens_to_compute for running in self._running)
            if promised + request.tokens_to_compute + 1 > capacity and self._running:
                return
            self._waiting.popleft()
            self._running.append(request)
            # At least one token is computed: the next one comes from it.
            request.computed_tokens = min(
                request.cached_input_tokens, request.tokens_to_compute - 1
            )
            if request.scheduled_ns is None:
                request.scheduled_ns = now_ns
            tokens = min(request.tokens_to_compute - request.computed_tokens, budget)
            prefill.append((request, tokens))
            budget -= tokens

    def _used_tokens(self) -> int:
        return sum(request.computed_tokens for request in self._running)

    def _duration_s(self, prefill_tokens: int, decode_tokens: int) -> float:
        model = self.model
        computing_s = (
            model.step_s
            + prefill_tokens * model.prefill_token_s
            + decode_tokens * model.decode_token_s
        )
        noise = max(0.5, self._draw.gauss(1.0, _STEP_NOISE))
        return computing_s * noise / self.gpu.speed + self.stall_s


class Arrivals:
    """Usual requests of a model, at random times: one after another, without an end."""

    def __init__(
        self, model: Model, draw: random.Random, start_ns: int, prefix: str = "request"
    ) -> None:
        self._model = model
        self._draw = draw
        self._prefix = prefix
        self._count = 0
        self.next_ns = start_ns
        """When the next one comes."""

    def take(self) -> Request:
        """The next one."""
        model, draw = self._model, self._draw
        self._count += 1
        input_tokens = draw.randint(*model.input_tokens)
        cached_share = min(1.0, max(0.0, draw.gauss(model.cached_share, model.cached_share / 8)))
        request = Request(
            f"{self._prefix}-{self._count}",
            self.next_ns,
            input_tokens,
            draw.randint(*model.output_tokens),
            round(input_tokens * cached_share),
        )
        self.next_ns += round(draw.expovariate(model.arrivals_per_s) * NANOS_PER_SECOND)
        return request


@dataclass(frozen=True)
class Simulated:
    """What an engine did: its requests by their arrival, and its steps."""

    requests: Sequence[Request]
    steps: Sequence[Step]


def simulate(
    engine: Engine,
    arrivals: Arrivals,
    until_ns: int,
    planted: Iterable[Request] = (),
    before_step: Callable[[Engine, int], None] = lambda engine, now_ns: None,
) -> Simulated:
    """Let requests arrive until a time, and run the engine until it is idle, without waiting.

    `planted` are further requests, in the order of their arrival. `before_step` is called with the
    time before each step, and may plant faults.
    """
    further = deque(planted)
    now_ns = arrivals.next_ns
    requests: list[Request] = []
    steps: list[Step] = []
    while True:
        while True:
            usual_ns = arrivals.next_ns if arrivals.next_ns < until_ns else math.inf
            planted_ns = further[0].arrival_ns if further else math.inf
            if min(usual_ns, planted_ns) > now_ns:
                break
            request = further.popleft() if planted_ns <= usual_ns else arrivals.take()
            requests.append(request)
            engine.submit(request)
        before_step(engine, now_ns)
        step = engine.begin_step(now_ns)
        if step is not None:
            steps.append(step)
            now_ns += step.duration_ns
            engine.end_step(step, now_ns)
            continue
        next_ns = min(usual_ns, planted_ns)
        if next_ns == math.inf:
            return Simulated(requests, steps)
        now_ns = int(next_ns)
