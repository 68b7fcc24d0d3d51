"""What is known of a request, a step and a GPU: plain rows, in which None is "not recorded"."""

from __future__ import annotations

from dataclasses import dataclass

NANOS_PER_MS = 1_000_000


@dataclass(frozen=True)
class GpuFacts:
    """One reading of a GPU, as a span carries it."""

    clock_mhz: float | None = None
    temperature_celsius: float | None = None
    power_watts: float | None = None
    utilization_percent: float | None = None
    memory_used_bytes: int | None = None
    memory_total_bytes: int | None = None

    @property
    def memory_share(self) -> float | None:
        """Of the memory, how much was in use, 0 to 1."""
        if self.memory_used_bytes is None or not self.memory_total_bytes:
            return None
        return self.memory_used_bytes / self.memory_total_bytes


@dataclass(frozen=True)
class RequestFacts:
    """One request: a span from its arrival to its last token.

    Offsets are milliseconds from the start. `queue_wait_time_ms` is what the server says it waited,
    and may lie before the start; `scheduled_after_ms` does not. `membership` is "inferred" where
    its steps follow from times alone.
    """

    trace_id: str
    span_id: str
    start_ns: int
    duration_ns: int
    model_name: str
    status: str = "OK"
    status_message: str | None = None
    request_id: str | None = None
    input_tokens: int | None = None
    cached_input_tokens: int | None = None
    output_tokens: int | None = None
    preemption_count: int | None = None
    scheduled_after_ms: float | None = None
    queue_wait_time_ms: float | None = None
    time_to_first_token_ms: float | None = None
    inter_token_latency_ms: float | None = None
    max_inter_token_latency_ms: float | None = None
    first_step: int | None = None
    last_step: int | None = None
    step_count: int | None = None
    membership: str | None = None
    engine: str | None = None
    gpu: GpuFacts = GpuFacts()

    @property
    def end_ns(self) -> int:
        return self.start_ns + self.duration_ns

    @property
    def duration_ms(self) -> float:
        return self.duration_ns / NANOS_PER_MS

    @property
    def queue_ms(self) -> float | None:
        """How long it waited before work on it began, within the span as far as is known.

        Where only the server's own word is there, it counts if the first token came later: the
        wait is then taken for a part of the time to the first token.
        """
        if self.scheduled_after_ms is not None:
            return self.scheduled_after_ms
        waited_ms, first_ms = self.queue_wait_time_ms, self.time_to_first_token_ms
        if waited_ms is not None and first_ms is not None and waited_ms <= first_ms:
            return waited_ms
        return None

    @property
    def prefill_ms(self) -> float | None:
        """From the begin of the work to the first token; to the end, where no token comes."""
        if self.queue_ms is None:
            return None
        if self.time_to_first_token_ms is not None:
            return max(0.0, self.time_to_first_token_ms - self.queue_ms)
        return None if self.output_tokens else max(0.0, self.duration_ms - self.queue_ms)

    @property
    def decode_ms(self) -> float | None:
        """From the first token to the end."""
        if self.time_to_first_token_ms is None or not self.output_tokens:
            return None
        return max(0.0, self.duration_ms - self.time_to_first_token_ms)

    @property
    def interval_ms(self) -> float | None:
        """The mean time between two tokens."""
        if self.inter_token_latency_ms is not None:
            return self.inter_token_latency_ms
        if self.decode_ms is None or not self.output_tokens or self.output_tokens < 2:
            return None
        return self.decode_ms / (self.output_tokens - 1)

    @property
    def uncached_tokens(self) -> int | None:
        """Of the prompt, the tokens that had to be computed."""
        if self.input_tokens is None:
            return None
        return max(0, self.input_tokens - (self.cached_input_tokens or 0))

    @property
    def cached_share(self) -> float | None:
        if not self.input_tokens or self.cached_input_tokens is None:
            return None
        return self.cached_input_tokens / self.input_tokens


@dataclass(frozen=True)
class StepFacts:
    """One step of an engine: a forward pass over a batch."""

    trace_id: str
    span_id: str
    index: int
    start_ns: int
    duration_ns: int
    batch_size: int | None = None
    batch_fill_ratio: float | None = None
    prefill_tokens: int | None = None
    decode_tokens: int | None = None
    queue_depth: int | None = None
    kv_cache_usage: float | None = None
    gpu: GpuFacts = GpuFacts()

    @property
    def end_ns(self) -> int:
        return self.start_ns + self.duration_ns

    @property
    def duration_ms(self) -> float:
        return self.duration_ns / NANOS_PER_MS

    @property
    def prefilled(self) -> int:
        """Its prefill tokens; 0 where they are not recorded."""
        return self.prefill_tokens or 0

    @property
    def decoded(self) -> int:
        """Its decode tokens; the size of its batch where they are not recorded."""
        if self.decode_tokens is not None:
            return self.decode_tokens
        return self.batch_size or 0
