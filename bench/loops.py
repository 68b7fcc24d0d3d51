"""Loops around the timed code. Imports little, since a memory measurement includes this module."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from time import perf_counter
from typing import Any

Loop = Callable[[Any, int], float]
"""Takes a tracer and how often to do the work; returns how many seconds that took."""


def loop_of(
    body: str, *, setup: str = "pass", head: str = "for _ in range(count):", **names: Any
) -> Loop:
    """A loop around `body`, compiled inline as `timeit` does, so that it adds no call."""
    source = (
        f"def loop(tracer, count):\n{_indented(setup, 1)}\n    began = perf_counter()\n"
        f"    {head}\n{_indented(body, 2)}\n    return perf_counter() - began\n"
    )
    return _compiled(source, names)


def async_loop_of(body: str, *, setup: str, head: str = "for _ in range(count):") -> Loop:
    """The same inside a coroutine, on an event loop that has nothing else to do."""
    source = (
        f"def loop(tracer, count):\n{_indented(setup, 1)}\n    async def drive():\n"
        f"        began = perf_counter()\n        {head}\n{_indented(body, 3)}\n"
        "        return perf_counter() - began\n    return asyncio.run(drive())\n"
    )
    import asyncio

    return _compiled(source, {"asyncio": asyncio})


def _indented(text: str, levels: int) -> str:
    return textwrap.indent(text, "    " * levels)


def _compiled(source: str, names: dict[str, Any]) -> Loop:
    namespace = {"perf_counter": perf_counter, **names}
    exec(source, namespace)
    loop: Loop = namespace["loop"]
    return loop
