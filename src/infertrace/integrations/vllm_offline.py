"""vLLM's synchronous engine, of the class `LLM`: it loads no plugins, so it is given ours.

Its statistics are off unless the program says otherwise. Ours needs them: they go to it alone then,
and vLLM says and counts nothing more than before.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

from infertrace.integrations.switch import Switch
from infertrace.integrations.vllm_requests import note_time


def install_offline(switch: Switch, arriving_under: Callable[[Any, Any], None]) -> None:
    """Have each engine that is made from now on recorded."""
    from vllm.v1.engine import core_client
    from vllm.v1.engine.llm_engine import LLMEngine

    def making(original: Callable[..., None]) -> Callable[..., None]:
        def init(self: Any, *arguments: Any, **keywords: Any) -> None:
            given, had_statistics = (self, *arguments), True
            if switch.is_on:
                with switch.guarded():
                    given, keywords, had_statistics = _with_ours(switch, original, given, keywords)
            original(*given, **keywords)
            if not had_statistics:
                with switch.guarded():
                    _leave_ours_alone(self.logger_manager)

        return init

    def arriving(original: Callable[..., Any]) -> Callable[..., Any]:
        def add_request(self: Any, *arguments: Any, **keywords: Any) -> Any:
            if switch.is_on:
                with switch.guarded():
                    arriving_under(self.vllm_config, keywords.get("trace_headers"))
            return original(self, *arguments, **keywords)

        return add_request

    def received(original: Callable[..., Any]) -> Callable[..., Any]:
        def get_output(self: Any) -> Any:
            outputs = original(self)
            with switch.guarded():
                note_time(outputs)
            return outputs

        return get_output

    switch.patches.wrap(LLMEngine, "__init__", making)
    switch.patches.wrap(LLMEngine, "add_request", arriving)
    for name in ("SyncMPClient", "InprocClient"):
        client = getattr(core_client, name, None)
        if client is not None:
            switch.patches.wrap_if_there(client, "get_output", received)


def _with_ours(
    switch: Switch, original: Callable[..., None], given: tuple[Any, ...], keywords: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any], bool]:
    """The arguments with statistics, and a logger of ours; and whether they had these before."""
    from infertrace.integrations.vllm_engine_logger import EngineLogger

    bound = inspect.signature(original).bind(*given, **keywords)
    had_statistics = bool(bound.arguments["log_stats"])
    before = bound.arguments.get("stat_loggers") or ()
    bound.arguments["stat_loggers"] = [*before, functools.partial(EngineLogger, switch)]
    bound.arguments["log_stats"] = True
    return bound.args, bound.kwargs, had_statistics


def _leave_ours_alone(loggers: Any) -> None:
    from infertrace.integrations.vllm_engine_logger import EngineLogger

    def is_ours(logger: Any) -> bool:
        each = getattr(logger, "per_engine_stat_loggers", {})
        return any(isinstance(one, EngineLogger) for one in each.values())

    loggers.stat_loggers = [logger for logger in loggers.stat_loggers if is_ours(logger)]
