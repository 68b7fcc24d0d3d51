"""The current span in threads and pools: `Thread`, `pool.submit`, `loop.run_in_executor`.

`instrument()` does it for all of them. `executor(pool)` does it for one pool.
"""

from __future__ import annotations

import contextvars
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any, Final, TypeVar

from infertrace.current import current_span
from infertrace.integrations.switch import Switch

Result = TypeVar("Result")


class ContextExecutor(Executor):
    """Another executor, whose functions run in the context of whoever submits them.

    For threads: a context does not go to another process.
    """

    def __init__(self, executor: Executor) -> None:
        self._executor = executor

    def submit(
        self, function: Callable[..., Result], /, *arguments: Any, **keywords: Any
    ) -> Future[Result]:
        run = contextvars.copy_context().run
        return self._executor.submit(run, function, *arguments, **keywords)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        self._executor.shutdown(wait, cancel_futures=cancel_futures)


def executor(pool: Executor) -> ContextExecutor:
    """The pool, for functions that start spans: these are children of the span that submits."""
    return ContextExecutor(pool)


def _install(switch: Switch, module: str) -> None:
    if module == "threading":
        _install_threads(switch)
    else:
        _install_pools(switch)


def _install_pools(switch: Switch) -> None:
    from concurrent.futures.thread import ThreadPoolExecutor

    def submitting(original: Callable[..., Any]) -> Callable[..., Any]:
        def submit(self: Any, function: Any, /, *arguments: Any, **keywords: Any) -> Any:
            if not switch.is_on or not current_span().propagates:
                return original(self, function, *arguments, **keywords)
            switch.count_use()
            run = contextvars.copy_context().run
            return original(self, run, function, *arguments, **keywords)

        return submit

    switch.patches.wrap(ThreadPoolExecutor, "submit", submitting)


def _install_threads(switch: Switch) -> None:
    from threading import Thread

    def starting(original: Callable[..., None]) -> Callable[..., None]:
        def start(self: Any) -> None:
            if switch.is_on and current_span().propagates and not _serves_others(self):
                switch.count_use()
                context, run = contextvars.copy_context(), self.run

                def run_in_context() -> None:
                    self.__dict__.pop("run")  # it would hold the thread, and the span
                    context.run(run)

                self.run = run_in_context
            original(self)

        return start

    switch.patches.wrap(Thread, "start", starting)


def _serves_others(thread: Any) -> bool:
    """Whether it belongs to a pool: the work of its first request must not own all the others'."""
    target = getattr(thread, "_target", None)
    return (
        getattr(target, "__module__", "") == "concurrent.futures.thread"
        or type(thread).__module__.startswith("anyio.")
        or thread.name.startswith("infertrace")
    )


_SWITCH: Final = Switch("threads", _install)
instrument: Final = _SWITCH.on
uninstrument: Final = _SWITCH.off
