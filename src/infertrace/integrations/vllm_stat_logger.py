"""The class that vLLM makes for each of its engines, by the entry point `vllm.stat_logger_plugins`.

vLLM calls `record` with what each step of the engine did. Imported by vLLM alone.
"""

from __future__ import annotations

import atexit
from typing import Any

from vllm.v1.metrics.loggers import StatLoggerBase

from infertrace.integrations.vllm import served_name, switch_on_by_plugin
from infertrace.integrations.vllm_steps import EngineLimits, EngineSteps

_switch = switch_on_by_plugin()


class InfertraceStatLogger(StatLoggerBase):  # type: ignore[misc]  # vLLM is not installed here
    """Records the steps of one engine, and the requests that end in them."""

    def __init__(self, vllm_config: Any, engine_index: int = 0) -> None:
        self._steps: EngineSteps | None = None
        with _switch.guarded():
            if _switch.is_on:
                _ = _switch.tracer  # made now, it ends after what is registered below
            limits = EngineLimits(
                vllm_config.scheduler_config.max_num_seqs,
                vllm_config.scheduler_config.max_num_batched_tokens,
                vllm_config.max_concurrent_batches,
            )
            self._steps = EngineSteps(_switch, served_name(vllm_config), str(engine_index), limits)
            atexit.register(self._steps.flush)

    def record(
        self,
        scheduler_stats: Any,
        iteration_stats: Any,
        mm_cache_stats: Any = None,
        engine_idx: int = 0,
        **_: Any,
    ) -> None:
        if _switch.is_on and self._steps is not None:
            with _switch.guarded():
                self._steps.take(scheduler_stats, iteration_stats)

    def log_engine_initialized(self) -> None: ...
