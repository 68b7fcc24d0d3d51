"""What is usual for a model: the requests and steps that one request is compared with."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import mean, median

from infertrace.collector.diagnosis.facts import GpuFacts, RequestFacts, StepFacts
from infertrace.collector.diagnosis.step_cost import StepCost, step_cost

MAX_BASELINE_ROWS = 500  # requests, and steps: chosen evenly of all in the hour
MIN_REQUESTS = 10  # with fewer, nothing is usual


@dataclass(frozen=True)
class Spread:
    """The median and the 95th percentile of something, over `count` values."""

    count: int
    p50: float
    p95: float

    def stands_out(self, value: float) -> bool:
        """Whether a value is twice as far above the median as 19 of 20 values are.

        Of values that spread normally 1 of 2,000 is so, of exponential ones 1 of 200.
        """
        return value > self.p95 + (self.p95 - self.p50)

    def is_far_below(self, value: float, least: float) -> bool:
        """Whether a value stands out, and by at least so much."""
        return self.stands_out(value) and value > self.p95 + least


def spread(values: Iterable[float | None]) -> Spread | None:
    """The spread of the values that are there; None of fewer than MIN_REQUESTS."""
    present = sorted(value for value in values if value is not None)
    if len(present) < MIN_REQUESTS:
        return None
    return Spread(len(present), _quantile(present, 0.5), _quantile(present, 0.95))


def _quantile(ordered: Sequence[float], fraction: float) -> float:
    place = fraction * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


@dataclass(frozen=True)
class Usual:
    """The baseline: requests of a model that started in a time, and steps of it.

    A spread is None where too few of them say that. Times are nanoseconds since 1970.
    """

    since_ns: int
    until_ns: int
    request_count: int
    step_count: int
    duration_ms: Spread | None = None
    queue_ms: Spread | None = None
    first_token_ms: Spread | None = None
    prefill_ms: Spread | None = None
    prefill_token_ms: float | None = None
    """Milliseconds of prefill for each token of the prompt that is not cached; the median."""
    input_tokens: Spread | None = None
    uncached_tokens: Spread | None = None
    cached_share: Spread | None = None
    output_tokens: Spread | None = None
    interval_ms: Spread | None = None
    longest_interval_ms: Spread | None = None
    step_ms: Spread | None = None
    step_prefill_tokens: float = 0.0
    """The mean of all steps."""
    step_stall_tokens: float = 0.0
    """The prefill tokens beyond that mean in steps whose duration stands out, by all steps."""
    step_decode_tokens: Spread | None = None
    step_cost: StepCost | None = None
    clock_mhz: Spread | None = None
    temperature_celsius: Spread | None = None
    power_watts: Spread | None = None
    utilization_percent: Spread | None = None
    memory_share: Spread | None = None


def usual_of(
    since_ns: int, until_ns: int, requests: Sequence[RequestFacts], steps: Sequence[StepFacts]
) -> Usual:
    """The baseline of these requests, of which only those without an error count.

    Their order does not matter, not even in the last digit.
    """
    steps = sorted(steps, key=lambda step: (step.start_ns, step.span_id))
    good = [request for request in requests if request.status == "OK"]
    rates = [
        request.prefill_ms / request.uncached_tokens
        for request in good
        if request.prefill_ms is not None and request.uncached_tokens
    ]
    # A step has a fresher reading than a request, which has that of its end.
    readings = [step.gpu for step in steps] if steps else [request.gpu for request in good]

    def of_requests(value: Callable[[RequestFacts], float | None]) -> Spread | None:
        return spread(map(value, good))

    def of_gpu(value: Callable[[GpuFacts], float | None]) -> Spread | None:
        return spread(map(value, readings))

    step_ms = spread(step.duration_ms for step in steps)
    prefill_tokens = mean(step.prefilled for step in steps) if steps else 0.0
    stall_tokens = sum(
        step.prefilled - prefill_tokens
        for step in steps
        if step.prefilled and step_ms is not None and step_ms.stands_out(step.duration_ms)
    )
    return Usual(
        since_ns,
        until_ns,
        len(good),
        len(steps),
        duration_ms=of_requests(lambda request: request.duration_ms),
        queue_ms=of_requests(lambda request: request.queue_ms),
        first_token_ms=of_requests(lambda request: request.time_to_first_token_ms),
        prefill_ms=of_requests(lambda request: request.prefill_ms),
        prefill_token_ms=median(rates) if len(rates) >= MIN_REQUESTS else None,
        input_tokens=of_requests(lambda request: request.input_tokens),
        uncached_tokens=of_requests(lambda request: request.uncached_tokens),
        cached_share=of_requests(lambda request: request.cached_share),
        output_tokens=of_requests(lambda request: request.output_tokens),
        interval_ms=of_requests(lambda request: request.interval_ms),
        longest_interval_ms=of_requests(lambda request: request.max_inter_token_latency_ms),
        step_ms=step_ms,
        step_prefill_tokens=prefill_tokens,
        step_stall_tokens=max(0.0, stall_tokens) / max(1, len(steps)),
        step_decode_tokens=spread(step.decoded for step in steps if step.decoded),
        step_cost=step_cost(steps),
        clock_mhz=of_gpu(lambda gpu: gpu.clock_mhz),
        temperature_celsius=of_gpu(lambda gpu: gpu.temperature_celsius),
        power_watts=of_gpu(lambda gpu: gpu.power_watts),
        utilization_percent=of_gpu(lambda gpu: gpu.utilization_percent),
        memory_share=of_gpu(lambda gpu: gpu.memory_share),
    )
