"""Bounds how many request bodies are read at once, and so the memory that they take.

gRPC does not tell whether a body that is missing is on its way or held back. So one peer, which is
one connection, gets at most a share of the places; while others wait, a call keeps its place for a
short turn only; and the newest call enters first: a sender that really sends needs milliseconds,
and calls that are held open pile up behind it.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

Body = TypeVar("Body")


class NoPlaceError(Exception):
    """No place became free in time, or another call needed it; the sender should retry."""


class SlowBodyError(Exception):
    """The call had a place, and its body did not arrive in time."""


@dataclass(frozen=True)
class PlaceLimits:
    """At most `max_waiting` calls wait for one of `count` places; beyond that the oldest fails.

    The body of a call has to arrive within `timeout_s` seconds. Once it has a place, the call
    keeps it for at least `turn_s` of them.
    """

    count: int
    count_per_peer: int
    max_waiting: int
    turn_s: float
    timeout_s: float


@dataclass(eq=False)
class _Call:
    peer: str
    let_in: asyncio.Future[bool]
    """False: the call fails, as too many wait."""
    evicted: asyncio.Future[None]
    turn_ends_s: float = 0.0


class ReadingPlaces:
    """Admits calls to the places; all methods run on one event loop."""

    def __init__(self, limits: PlaceLimits) -> None:
        self._limits = limits
        self._free = limits.count
        self._taken: Counter[str] = Counter()  # places, by peer
        # Both with the oldest first.
        self._waiting: dict[_Call, None] = {}
        self._reading: dict[_Call, None] = {}
        self._next_look: asyncio.TimerHandle | None = None

    @asynccontextmanager
    async def read(
        self, peer: str, receive: Callable[[], Awaitable[Body]], timeout_s: float | None = None
    ) -> AsyncIterator[Body]:
        """The body that `receive` returns; the place is free again after the block.

        `timeout_s` shortens that of the limits. Raises NoPlaceError and SlowBodyError.
        """
        loop = asyncio.get_running_loop()
        timeout_s = min(timeout_s or self._limits.timeout_s, self._limits.timeout_s)
        deadline_s = loop.time() + timeout_s
        call = _Call(peer, loop.create_future(), loop.create_future())
        try:
            await self._enter(call, timeout_s)
            yield await self._received(call, receive, deadline_s)
        finally:
            if call.let_in.done() and call.let_in.result():
                self._free += 1
                self._taken[peer] -= 1
                if not self._taken[peer]:
                    del self._taken[peer]
            self._look()

    async def _enter(self, call: _Call, timeout_s: float) -> None:
        self._waiting[call] = None
        if len(self._waiting) > self._limits.max_waiting:
            oldest = next(iter(self._waiting))
            del self._waiting[oldest]
            oldest.let_in.set_result(False)
        self._look()
        try:
            await asyncio.wait({call.let_in}, timeout=timeout_s)
        finally:
            self._waiting.pop(call, None)
        if not call.let_in.done() or not call.let_in.result():
            raise NoPlaceError("too many requests at once")

    async def _received(
        self, call: _Call, receive: Callable[[], Awaitable[Body]], deadline_s: float
    ) -> Body:
        loop = asyncio.get_running_loop()
        # Not cancelled where the call ends first: that would free memory that gRPC still writes to.
        receiving = asyncio.ensure_future(receive())
        receiving.add_done_callback(_heed)
        call.turn_ends_s = loop.time() + self._limits.turn_s
        self._reading[call] = None
        try:
            self._look()
            ends: set[asyncio.Future[Any]] = {receiving, call.evicted}
            await asyncio.wait(
                ends,
                timeout=deadline_s - loop.time(),
                return_when=asyncio.FIRST_COMPLETED,
            )
        finally:
            del self._reading[call]
        if receiving.done():
            return receiving.result()
        if call.evicted.done():
            raise NoPlaceError("others needed the place of a request that did not come to its end")
        raise SlowBodyError("the request did not come to its end")

    def _look(self) -> None:
        """Admit calls while places are free; for those left, end the oldest turns that are over."""
        if self._next_look is not None:
            self._next_look.cancel()
            self._next_look = None
        for call in list(reversed(self._waiting)) if self._free else ():
            if self._free and self._taken[call.peer] < self._limits.count_per_peer:
                del self._waiting[call]
                self._free -= 1
                self._taken[call.peer] += 1
                call.let_in.set_result(True)
        if not self._waiting:
            return
        peers = None if not self._free else {call.peer for call in self._waiting}
        in_the_way = [call for call in self._reading if peers is None or call.peer in peers]
        loop = asyncio.get_running_loop()
        now = loop.time()
        for call in in_the_way[: len(self._waiting)]:
            if call.evicted.done():
                continue
            if call.turn_ends_s > now:
                self._next_look = loop.call_later(call.turn_ends_s - now, self._look)
                return
            call.evicted.set_result(None)


def _heed(receiving: asyncio.Future[Body]) -> None:
    """Retrieve the outcome of an ended call: asyncio logs exceptions that nothing retrieves."""
    if not receiving.cancelled():
        receiving.exception()
