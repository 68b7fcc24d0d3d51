"""The class that vLLM makes for each of its engines, by the entry point `vllm.stat_logger_plugins`.

vLLM calls `record` with what each step of the engine did. Imported by vLLM alone.
"""

from __future__ import annotations

from typing import Any

from infertrace.integrations.vllm import switch_on_by_plugin
from infertrace.integrations.vllm_engine_logger import EngineLogger

_switch = switch_on_by_plugin()


class InfertraceStatLogger(EngineLogger):
    """Records the steps of one engine, unless the environment objects."""

    def __init__(self, vllm_config: Any, engine_index: int = 0) -> None:
        super().__init__(_switch, vllm_config, engine_index)
