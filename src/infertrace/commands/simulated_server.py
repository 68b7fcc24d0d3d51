"""A simulated model server: requests arrive, wait in a queue, and run in batches.

It sleeps in place of computing, and records what a real server would.
"""

from __future__ import annotations

import random
import threading
import time
from collections import deque
from typing import Final, NamedTuple

from infertrace.current import current_span
from infertrace.tracer import Tracer

_IDLE_S: Final = 0.001
_FAILURE_SHARE: Final = 0.01
_MS: Final = 1e-3


class Model(NamedTuple):
    """How a simulated model behaves."""

    name: str
    version: str
    framework: str
    max_batch: int
    arrivals_per_s: float
    base_s: float
    """Duration of a step without tokens."""
    per_token_s: float
    max_output_tokens: int


MODELS: Final = (
    Model("gpt-4", "0613", "pytorch", 8, 240.0, 8 * _MS, 0.02 * _MS, 120),
    Model("bge-small-en", "1.5", "onnx", 32, 400.0, 2 * _MS, 0.002 * _MS, 0),
)


class SimulatedServer:
    """One queue and one worker thread for one model, traced."""

    def __init__(self, tracer: Tracer, model: Model, seed: int) -> None:
        self._tracer = tracer
        self._model = model
        self._random = random.Random(seed)
        self._queue: deque[tuple[float, int]] = deque()
        self._next_arrival = time.monotonic()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name=model.name, daemon=True)
        self.steps = 0
        self.slowest_tracing_s = 0.0
        """The longest time that tracing added to one step."""

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopped.is_set():
            self._receive()
            if self._queue:
                self._step()
            else:
                self._stopped.wait(_IDLE_S)

    def _receive(self) -> None:
        now = time.monotonic()
        while self._next_arrival <= now:
            self._queue.append((self._next_arrival, self._random.randint(5, 60)))
            self._next_arrival += self._random.expovariate(self._model.arrivals_per_s)

    def _step(self) -> None:
        model = self._model
        batch = [self._queue.popleft() for _ in range(min(len(self._queue), model.max_batch))]
        waited_s = time.monotonic() - batch[0][0]
        began = time.perf_counter()
        worked_s = 0.0
        try:
            with self._tracer.start_span(
                model.name,
                model_version=model.version,
                framework=model.framework,
                batch_size=len(batch),
                input_tokens=sum(tokens for _, tokens in batch),
                queue_depth=len(self._queue),
                queue_wait_time_ms=waited_s * 1e3,
                batch_fill_ratio=len(batch) / model.max_batch,
            ):
                worked_s = self._compute(batch)
        except SimulatedFailure:
            worked_s = time.perf_counter() - began
        self.steps += 1
        self.slowest_tracing_s = max(self.slowest_tracing_s, time.perf_counter() - began - worked_s)

    def _compute(self, batch: list[tuple[float, int]]) -> float:
        """Run the stages of one step; returns how long they slept, in seconds."""
        model = self._model
        prompt_tokens = sum(tokens for _, tokens in batch)
        output_tokens = sum(
            self._random.randint(1, model.max_output_tokens) if model.max_output_tokens else 0
            for _ in batch
        )
        inference_s = model.base_s + (prompt_tokens + output_tokens) * model.per_token_s
        slept_s = 0.0
        for operation, stage, duration_s in (
            ("tokenize", "preprocessing", 0.05 * model.base_s),
            ("forward", "inference", self._random.gauss(inference_s, 0.1 * inference_s)),
            ("detokenize", "postprocessing", 0.05 * model.base_s),
        ):
            with self._tracer.start_span(operation_name=operation, pipeline_stage=stage):
                began = time.perf_counter()
                time.sleep(max(duration_s, 0.0))
                slept_s += time.perf_counter() - began
            if stage == "inference" and self._random.random() < _FAILURE_SHARE:
                raise SimulatedFailure("CUDA out of memory (simulated)")
        if output_tokens:
            current_span().set_tokens(output=output_tokens)
            current_span().set_streaming(time_to_first_token_ms=model.base_s * 1e3)
        return slept_s


class SimulatedFailure(Exception):
    """An error as a model server meets it now and then."""
