"""Stands for vLLM where the ordinary tests run: it takes eight gigabytes and minutes to install.

Only what the integration looks at, in the shape that vLLM 0.30 to 0.33 have it, and its own
arithmetic of times: `vllm/v1/metrics/stats.py`, `vllm/v1/engine/output_processor.py` and
`vllm/v1/engine/async_llm.py` there. test_real_vllm.py has the real one, every night.
"""

from __future__ import annotations

import asyncio
import enum
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from infertrace.integrations import vllm_clock, vllm_requests, vllm_steps

ARRIVAL_S = 1_800_000_000.0
"""When the first request of a test comes, since 1970; the engine's clock says 0 then."""


class Clock:
    """In place of `time`, where the integration reads it."""

    engine_s = 0.0

    def time_ns(self) -> int:
        return round((ARRIVAL_S + self.engine_s) * 1e9)

    def monotonic(self) -> float:
        return self.engine_s


CLOCK = Clock()


class FinishReason(enum.IntEnum):
    STOP = 0
    LENGTH = 1
    ABORT = 2
    ERROR = 3

    def __str__(self) -> str:
        return self.name.lower()


@dataclass
class IterationDetails:
    num_ctx_requests: int
    num_ctx_tokens: int
    num_generation_requests: int
    num_generation_tokens: int
    is_dummy: bool = False


@dataclass
class SchedulerStats:
    num_running_reqs: int = 0
    num_waiting_reqs: int = 0
    num_skipped_waiting_reqs: int = 0
    kv_cache_usage: float = 0.0
    iteration_details: IterationDetails | None = None


@dataclass
class RequestStateStats:
    arrival_time: float
    num_generation_tokens: int = 0
    num_preemptions: int = 0
    queued_ts: float = 0.0
    scheduled_ts: float = 0.0
    first_token_ts: float = 0.0
    last_token_ts: float = 0.0


@dataclass
class RequestState:
    request_id: str
    external_req_id: str
    prompt_len: int
    stats: RequestStateStats
    lora_name: str | None = None
    num_cached_tokens: int = 0
    is_prefilling: bool = True


@dataclass
class FinishedRequestStats:
    finish_reason: FinishReason
    request_id: str


@dataclass
class PrefillStats:
    num_prompt_tokens: int
    num_computed_tokens: int
    num_cached_tokens: int


@dataclass
class Output:
    """vLLM's EngineCoreOutput; its events as times, which are 0 where nothing happened."""

    request_id: str
    new_token_ids: Sequence[int] = (1,)
    finish_reason: FinishReason | None = None
    queued_s: float = 0.0
    scheduled_s: float = 0.0
    cached_tokens: int = 0
    has_been_preempted: bool = False
    prefill_stats: PrefillStats | None = None


class IterationStats:
    def __init__(self, iteration_timestamp: float) -> None:
        self.iteration_timestamp = iteration_timestamp
        self.num_generation_tokens = 0
        self.finished_requests: list[FinishedRequestStats] = []

    def update_from_output(self, state: RequestState, output: Output, engine_s: float) -> None:
        stats = state.stats
        self.num_generation_tokens += len(output.new_token_ids)
        stats.num_generation_tokens += len(output.new_token_ids)
        stats.queued_ts = output.queued_s or stats.queued_ts
        stats.scheduled_ts = stats.scheduled_ts or output.scheduled_s
        stats.num_preemptions += output.has_been_preempted
        if state.is_prefilling:
            stats.first_token_ts = engine_s
        stats.last_token_ts = engine_s


class OutputProcessor:
    def __init__(self) -> None:
        self.request_states: dict[str, RequestState] = {}

    def add_request(self, request: Any, prompt: str | None) -> None:
        if request.request_id not in self.request_states:
            self.request_states[request.request_id] = RequestState(
                request.request_id,
                request.external_req_id,
                request.prompt_len,
                RequestStateStats(request.arrival_time),
                request.lora_name,
            )

    def process_outputs(
        self,
        engine_core_outputs: Sequence[Output],
        engine_core_timestamp: float | None = None,
        iteration_stats: IterationStats | None = None,
        weight_version: str | None = None,
    ) -> None:
        for output in engine_core_outputs:
            state = self.request_states.get(output.request_id)
            if state is None or iteration_stats is None or engine_core_timestamp is None:
                continue
            iteration_stats.update_from_output(state, output, engine_core_timestamp)
            if state.is_prefilling:
                state.num_cached_tokens = output.cached_tokens
                state.is_prefilling = False
            if output.finish_reason is not None:
                del self.request_states[output.request_id]
                iteration_stats.finished_requests.append(
                    FinishedRequestStats(output.finish_reason, state.external_req_id)
                )

    def abort_requests(self, request_ids: Iterable[str], internal: bool) -> list[str]:
        return [name for name in request_ids if self.request_states.pop(name, None) is not None]

    def propagate_error(self, e: Exception) -> None: ...


class AsyncMPClient:
    def __init__(self) -> None:
        self.outputs = SimpleNamespace()

    async def get_output_async(self) -> Any:
        return self.outputs


def configuration(concurrent_steps: int = 1) -> Any:
    """A VllmConfig: at most 4 requests and 100 tokens in a step."""
    return SimpleNamespace(
        model_config=SimpleNamespace(model="/models/llama", served_model_name="llama"),
        scheduler_config=SimpleNamespace(max_num_seqs=4, max_num_batched_tokens=100),
        max_concurrent_batches=concurrent_steps,
    )


class AsyncLLM:
    """The frontend of an engine that the test plays; loggers are what the plugin makes."""

    def __init__(self, vllm_config: Any, logger_class: Any) -> None:
        self.vllm_config = vllm_config
        self.output_processor = OutputProcessor()
        self.engine_core = AsyncMPClient()
        self.logger = logger_class(vllm_config, 0)
        self.logger.log_engine_initialized()

    async def add_request(
        self,
        request_id: str,
        prompt: str = "",
        trace_headers: Mapping[str, str] | None = None,
        **request: Any,
    ) -> None:
        given = {"prompt_len": 10, "lora_name": None, "arrival_time": ARRIVAL_S, **request}
        external = given.pop("external_req_id", f"cmpl-{request_id}")
        self.output_processor.add_request(
            SimpleNamespace(request_id=request_id, external_req_id=external, **given), prompt
        )

    def add(self, request_id: str, **request: Any) -> None:
        asyncio.run(self.add_request(request_id, **request))

    def step(self, engine_s: float, *outputs: Output, chunk: int = 128, **stats: Any) -> None:
        """What the engine says at this time, as the output handler of vLLM takes it."""
        CLOCK.engine_s = engine_s
        scheduler_stats = SchedulerStats(**stats)
        self.engine_core.outputs = SimpleNamespace(
            outputs=outputs, timestamp=engine_s, scheduler_stats=scheduler_stats
        )
        received = asyncio.run(self.engine_core.get_output_async())
        iteration_stats = IterationStats(ARRIVAL_S + engine_s) if outputs else None
        for start in range(0, len(outputs), chunk):
            self.output_processor.process_outputs(
                received.outputs[start : start + chunk], received.timestamp, iteration_stats
            )
        self.logger.record(
            engine_idx=0,
            scheduler_stats=scheduler_stats,
            iteration_stats=iteration_stats,
            mm_cache_stats=None,
        )


class StatLoggerBase:
    """vLLM takes a subclass of this only."""


def install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have vLLM imported, and its clock, until the end of the test."""
    for module in (vllm_clock, vllm_requests, vllm_steps):
        monkeypatch.setattr(module, "time", CLOCK)
    monkeypatch.setattr(CLOCK, "engine_s", 0.0)
    contents: dict[str, dict[str, Any]] = {
        "vllm": {},
        "vllm.v1": {},
        "vllm.v1.engine": {},
        "vllm.v1.engine.async_llm": {"AsyncLLM": AsyncLLM},
        "vllm.v1.engine.core_client": {"AsyncMPClient": AsyncMPClient},
        "vllm.v1.engine.output_processor": {"OutputProcessor": OutputProcessor},
        "vllm.v1.metrics": {},
        "vllm.v1.metrics.loggers": {"StatLoggerBase": StatLoggerBase},
    }
    for name, content in contents.items():
        module = ModuleType(name)
        module.__spec__ = ModuleSpec(name, None)
        module.__dict__.update(content, __path__=[])
        monkeypatch.setitem(sys.modules, name, module)
