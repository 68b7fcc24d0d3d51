"""What vLLM tells each step of an engine to, by its interface of loggers of statistics."""

from __future__ import annotations

import atexit
from typing import Any

from vllm.v1.metrics.loggers import StatLoggerBase

from infertrace.integrations.switch import Switch
from infertrace.integrations.vllm_requests import served_name
from infertrace.integrations.vllm_steps import EngineLimits, EngineSteps


class EngineLogger(StatLoggerBase):  # type: ignore[misc]  # vLLM is not installed here
    """Records the steps of one engine, and the requests that end in them."""

    def __init__(self, switch: Switch, vllm_config: Any, engine_index: int = 0) -> None:
        self._switch = switch
        self._steps: EngineSteps | None = None
        with switch.guarded():
            if switch.is_on:
                _ = switch.tracer  # made now, it ends after what is registered below
            limits = EngineLimits(
                vllm_config.scheduler_config.max_num_seqs,
                vllm_config.scheduler_config.max_num_batched_tokens,
                vllm_config.max_concurrent_batches,
            )
            self._steps = EngineSteps(switch, served_name(vllm_config), str(engine_index), limits)
            atexit.register(self._steps.flush)

    def record(
        self,
        scheduler_stats: Any,
        iteration_stats: Any,
        mm_cache_stats: Any = None,
        engine_idx: int = 0,
        **_: Any,
    ) -> None:
        if self._switch.is_on and self._steps is not None:
            with self._switch.guarded():
                self._steps.take(scheduler_stats, iteration_stats)

    def log_engine_initialized(self) -> None: ...
