"""An iterator that times each of its chunks as a token, and is otherwise what it goes through.

The compiled backend has a faster twin of `Stream`, csrc/recorder/stream.pxi.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import Any


def is_async(iterable: object) -> bool:
    """Whether it is for `async for` only."""
    kind = type(iterable)
    return hasattr(kind, "__aiter__") and not hasattr(kind, "__iter__")


def untimed(iterable: Any) -> Any:
    """The iterator of an iterable, for a span that records nothing."""
    return type(iterable).__aiter__(iterable) if is_async(iterable) else iter(iterable)


class Stream:
    """Of an iterator or a generator, whose other methods and attributes it has as well."""

    __slots__ = ("_iterator", "_token")

    def __init__(self, iterator: Any, token: Callable[[], None]) -> None:
        self._iterator = iterator
        self._token = token

    def __iter__(self) -> Stream:
        return self

    def __next__(self) -> Any:
        chunk = next(self._iterator)
        self._token()
        return chunk

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._iterator, name)
        return timed(found, self._token) if name in ("send", "throw") else found


class AsyncStream:
    """The same of an asynchronous iterator or generator."""

    __slots__ = ("_iterator", "_token")

    def __init__(self, iterator: Any, token: Callable[[], None]) -> None:
        self._iterator = iterator
        self._token = token

    def __aiter__(self) -> AsyncStream:
        return self

    def __anext__(self) -> Awaitable[Any]:
        return _awaited(self._iterator.__anext__(), self._token)

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._iterator, name)
        if name not in ("asend", "athrow"):
            return found
        return lambda *arguments: _awaited(found(*arguments), self._token)


def timed(method: Callable[..., Any], token: Callable[[], None]) -> Callable[..., Any]:
    """A method that gives a chunk, timed."""

    def call(*arguments: Any) -> Any:
        chunk = method(*arguments)
        token()
        return chunk

    return call


async def _awaited(chunk: Awaitable[Any], token: Callable[[], None]) -> Any:
    found = await chunk
    token()
    return found
