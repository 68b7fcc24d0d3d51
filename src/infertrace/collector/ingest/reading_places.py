"""Whose request is read: a bounded number of them, so that their bytes are bounded too.

gRPC does not say whether a body that has not come is on its way or held back. So one peer, which
is one connection, gets a share of the places at most; where others wait, a call has its place for
a short turn; and the one that came last is let in first: a sender that sends needs milliseconds,
and what is held open piles up behind it.
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
    """There was none in time, or others needed it; the sender should come again."""


class SlowBodyError(Exception):
    """The body had its place, and did not come in time."""


@dataclass(frozen=True)
class PlaceLimits:
    """At most `max_waiting` calls wait for one of `count` places; beyond that the oldest goes.

    A call has `timeout_s` seconds until its body is there, of which `turn_s` seconds with a place
    are its own.
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
    """false: it has to go"""
    evicted: asyncio.Future[None]
    turn_ends: float = 0.0


class ReadingPlaces:
    """All on one event loop."""

    def __init__(self, limits: PlaceLimits) -> None:
        self._limits = limits
        self._free = limits.count
        self._taken: Counter[str] = Counter()  # places, by peer
        # Both in the order of time.
        self._waiting: dict[_Call, None] = {}
        self._reading: dict[_Call, None] = {}
        self._next_look: asyncio.TimerHandle | None = None

    @asynccontextmanager
    async def read(self, peer: str, receive: Callable[[], Awaitable[Body]]) -> AsyncIterator[Body]:
        """What `receive` brings; the place is given back after the block.

        Raises NoPlaceError and SlowBodyError.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._limits.timeout_s
        call = _Call(peer, loop.create_future(), loop.create_future())
        try:
            await self._enter(call)
            yield await self._received(call, receive, deadline)
        finally:
            if call.let_in.done() and call.let_in.result():
                self._free += 1
                self._taken[peer] -= 1
                if not self._taken[peer]:
                    del self._taken[peer]
            self._look()

    async def _enter(self, call: _Call) -> None:
        self._waiting[call] = None
        if len(self._waiting) > self._limits.max_waiting:
            oldest = next(iter(self._waiting))
            del self._waiting[oldest]
            oldest.let_in.set_result(False)
        self._look()
        try:
            await asyncio.wait({call.let_in}, timeout=self._limits.timeout_s)
        finally:
            self._waiting.pop(call, None)
        if not call.let_in.done() or not call.let_in.result():
            raise NoPlaceError("too many requests at once")

    async def _received(
        self, call: _Call, receive: Callable[[], Awaitable[Body]], deadline: float
    ) -> Body:
        loop = asyncio.get_running_loop()
        # Left to itself where the call ends first: cancelled, it would free the memory that gRPC
        # still writes to.
        receiving = asyncio.ensure_future(receive())
        receiving.add_done_callback(_heed)
        call.turn_ends = loop.time() + self._limits.turn_s
        self._reading[call] = None
        try:
            self._look()
            ends: set[asyncio.Future[Any]] = {receiving, call.evicted}
            await asyncio.wait(
                ends,
                timeout=deadline - loop.time(),
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
        """Let in whoever can be; where somebody cannot, end the oldest turn that is in the way."""
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
            if call.turn_ends > now:
                self._next_look = loop.call_later(call.turn_ends - now, self._look)
                return
            call.evicted.set_result(None)


def _heed(receiving: asyncio.Future[Body]) -> None:
    """Of an ended call nobody asks for the outcome, and asyncio would log that."""
    if not receiving.cancelled():
        receiving.exception()
