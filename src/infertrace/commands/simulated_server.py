"""A simulated model server: a small continuous-batching engine, run in real time and traced.

It waits in place of computing, and records what a real server would: a span for each request, from
its arrival to its last token, and one for each step of the engine.
"""

from __future__ import annotations

import random
import threading
import time
from collections import deque
from typing import Final

from infertrace.commands.simulated_engine import (
    NANOS_PER_SECOND,
    Arrivals,
    Engine,
    Model,
    Request,
    Step,
)
from infertrace.span import Span
from infertrace.tracer import Tracer

_IDLE_S: Final = 0.001
_FAILURE_SHARE: Final = 0.01
_LONG_PROMPT_SHARE: Final = 0.01
_LONG_PROMPT_TOKENS: Final = (3_000, 7_000)
_MS: Final = 1e-3

MODELS: Final = (
    Model(
        "gpt-4",
        "0613",
        "pytorch",
        max_batch=24,
        max_step_tokens=2_048,
        queue_capacity=200,
        kv_capacity_tokens=24_000,
        arrivals_per_s=24.0,
        step_s=8 * _MS,
        prefill_token_s=0.05 * _MS,
        decode_token_s=0.15 * _MS,
        input_tokens=(20, 600),
        output_tokens=(4, 60),
        cached_share=0.3,
    ),
    Model(
        "bge-small-en",
        "1.5",
        "onnx",
        max_batch=32,
        max_step_tokens=4_096,
        queue_capacity=500,
        kv_capacity_tokens=100_000,
        arrivals_per_s=80.0,
        step_s=4 * _MS,
        prefill_token_s=0.004 * _MS,
        decode_token_s=0.0,
        input_tokens=(5, 400),
        output_tokens=(0, 0),
    ),
)


class SimulatedServer:
    """The engine of one model: a thread that takes requests, and one that runs the steps."""

    def __init__(self, tracer: Tracer, model: Model, seed: int) -> None:
        self._tracer = tracer
        self._model = model
        self._draw = random.Random(seed)
        self._engine = Engine(model, random.Random(seed + 1))
        self._spans: dict[Request, Span] = {}
        self._arrived: deque[Request] = deque()
        self._stopped = threading.Event()
        self._threads = [
            threading.Thread(target=run, name=f"{model.name} {name}", daemon=True)
            for name, run in (("arrivals", self._receive), ("engine", self._run))
        ]
        self.steps = 0
        self.slowest_tracing_s = 0.0
        """The longest time that tracing added to one step."""

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Take no more requests, finish those there are, and end."""
        self._stopped.set()
        for thread in self._threads:
            thread.join()

    def _receive(self) -> None:
        arrivals = Arrivals(self._model, self._draw, time.monotonic_ns(), self._model.name)
        while True:
            wait_s = (arrivals.next_ns - time.monotonic_ns()) / NANOS_PER_SECOND
            if self._stopped.wait(max(0.0, wait_s)):
                return
            request = arrivals.take()
            request.arrival_ns = time.monotonic_ns()
            if self._model.output_tokens[1] and self._draw.random() < _LONG_PROMPT_SHARE:
                request.input_tokens = self._draw.randint(*_LONG_PROMPT_TOKENS)
            span = self._tracer.start_span(
                self._model.name,
                model_version=self._model.version,
                framework=self._model.framework,
                engine=self._model.name,
                request_id=request.request_id,
                input_tokens=request.input_tokens,
                cached_input_tokens=request.cached_input_tokens,
            )
            self._stage(span, "tokenize", "preprocessing")
            self._spans[request] = span
            self._arrived.append(request)

    def _run(self) -> None:
        while not self._stopped.is_set() or self._spans:
            while self._arrived:
                request = self._arrived.popleft()
                if not self._engine.submit(request):
                    self._end(request)
            step = self._engine.begin_step(time.monotonic_ns())
            if step is None:
                time.sleep(_IDLE_S)
            else:
                self._take(step)

    def _take(self, step: Step) -> None:
        began = time.perf_counter()
        for request in step.preempted:
            self._spans[request].set_request(preemption_count=request.preemption_count)
        for request, _ in step.prefill:
            self._spans[request].scheduled()
        generates = self._model.output_tokens[1] > 0
        with self._tracer.start_step(
            self._model.name,
            "forward",
            prefill=[
                (self._spans[request], tokens, generates and not request.is_prefilling)
                for request, tokens in step.prefill
            ],
            decode=[self._spans[request] for request in step.decode],
            capacity=self._model.max_batch,
            engine=self._model.name,
            model_version=self._model.version,
            framework=self._model.framework,
            pipeline_stage="inference",
            queue_depth=step.queue_depth,
            kv_cache_usage=step.kv_cache_usage,
        ):
            slept = time.perf_counter()
            time.sleep(step.duration_ns / NANOS_PER_SECOND)
            worked_s = time.perf_counter() - slept
        for request in self._engine.end_step(step, time.monotonic_ns()):
            self._end(request)
        self.steps += 1
        tracing_s = time.perf_counter() - began - worked_s
        self.slowest_tracing_s = max(self.slowest_tracing_s, tracing_s)

    def _end(self, request: Request) -> None:
        span = self._spans.pop(request)
        if request.error:
            span.set_status("ERROR", request.error)
        elif self._draw.random() < _FAILURE_SHARE:
            span.record_exception(SimulatedFailure("the client went away (simulated)"))
            span.set_status("ERROR", "SimulatedFailure: the client went away (simulated)")
        else:
            self._stage(span, "detokenize", "postprocessing")
        span.set_finish_reason(request.finish_reason)
        span.end()

    def _stage(self, span: Span, operation: str, stage: str) -> None:
        child = self._tracer.start_span(operation_name=operation, pipeline_stage=stage, parent=span)
        child.end()


class SimulatedFailure(Exception):
    """An error as a model server meets it now and then."""
