"""Requests, their tokens, and the steps that they share; the twin of csrc/recorder/steps.pxi.

The state of a request is changed by one thread at a time as a rule, the one that runs its step. No
lock guards it: two threads that give one request tokens at the same moment may lose one.
"""

from __future__ import annotations

import os
from itertools import count
from time import monotonic_ns

from infertrace.limits import INT32_MAX
from infertrace.recording import invalid_values, serving_defaults, values
from infertrace.recording import stream as streams
from infertrace.wire import token_intervals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any, Final

NS_PER_MS: Final = 1e6

# By engine, the indices of its next steps in this process.
_step_counters: dict[str, Iterator[int]] = {}
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_step_counters.clear)


def next_step(engine: str) -> int:
    """The index of an engine's next step: 1, 2, 3, ...; 0 where there are too many engines."""
    counter = _step_counters.get(engine)
    if counter is None:
        if len(_step_counters) >= serving_defaults.MAX_ENGINES:
            return 0
        counter = _step_counters.setdefault(engine, count(1))
    return next(counter)


class Serving:
    """What a request and a step have, and other spans do not. Times by the spans' clock."""

    __slots__ = (
        "buckets",
        "decode",
        "first_token_ns",
        "last_token_ns",
        "longest_ns",
        "prefill",
        "prefilled",
        "tokens",
    )

    def __init__(self) -> None:
        self.tokens = self.prefilled = 0
        self.first_token_ns = self.last_token_ns = self.longest_ns = 0
        self.buckets: dict[int, int] = {}
        self.prefill: tuple[Any, ...] | None = None
        self.decode: tuple[Any, ...] | None = None

    def add_tokens(self, now_ns: int, tokens: int) -> None:
        """Tokens that came together: one interval, since nobody waits between them."""
        if not tokens:
            return
        if not self.tokens:
            self.first_token_ns = self.last_token_ns = now_ns
        self.tokens += tokens
        interval_ns = now_ns - self.last_token_ns
        if interval_ns <= 0:
            return
        self.last_token_ns = now_ns
        self.longest_ns = max(self.longest_ns, interval_ns)
        bucket = token_intervals.bucket_of(interval_ns)
        self.buckets[bucket] = self.buckets.get(bucket, 0) + 1

    def keep_members(self, prefill: Any, decode: Any) -> int:
        """Remember who is in a step; returns how many of the two cannot be gone through."""
        self.prefill, invalid = _members(prefill)
        self.decode, more = _members(decode)
        return invalid + more

    def end_step(self, now_ns: int, engine: str, index: int, worked: bool) -> tuple[int, int, int]:
        """Each member gets its step and, if that `worked`, its tokens.

        Returns the tokens read and generated, and how many members are invalid.
        """
        prefill, decode = self.prefill, self.decode
        self.prefill = self.decode = None
        read = generated = invalid = 0
        for item in prefill or ():
            member, tokens = _prefill(item)
            read += tokens
            invalid += member is None
            if member is not None and not member._ended:
                is_last = item[2] is True if len(item) == 3 else None
                member._read_input(now_ns, engine, index, worked, tokens, is_last)
        for item in decode or ():
            member, tokens = _decode(item)
            generated += tokens
            invalid += member is None
            if member is not None and not member._ended:
                member._generate(now_ns, engine, index, worked, tokens)
        return read, generated, invalid


def _members(given: Any) -> tuple[tuple[Any, ...] | None, int]:
    """What was given, at this moment, and whether it is no iterable, which counts as invalid."""
    if given is None:
        return None, 0
    try:
        return tuple(given), 0
    except Exception:
        return None, 1


def _is_member(value: object) -> bool:
    return issubclass(type(value), (TimesTokens, TimesNothing))


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value <= INT32_MAX


def _prefill(item: Any) -> tuple[Any, int]:
    """The request and the tokens of (request, tokens) or (request, tokens, are these the last)."""
    if type(item) is tuple and len(item) in (2, 3) and _is_member(item[0]) and _is_count(item[1]):
        return item[0], item[1]
    return None, 0


def _decode(item: Any) -> tuple[Any, int]:
    """The request and the tokens of a request, or of (request, tokens)."""
    if _is_member(item):
        return item, 1
    if type(item) is tuple and len(item) == 2 and _is_member(item[0]) and _is_count(item[1]):
        return item[0], item[1]
    return None, 0


class TimesTokens:
    """The part of a span that is about requests and steps."""

    __slots__ = ()

    _serving: Serving | None
    if TYPE_CHECKING:
        _ended: int
        _start: int
        _status: str
        _fields: dict[str, Any]
        _recorder: Any

        def _more(self) -> Serving:
            """The state, made if there is none yet."""

        def _add_invalid(self, fields: int) -> None: ...

        def _refuse(self, field: str, value: object, allowed: str, key: object = None) -> None: ...

    def scheduled(self) -> None:
        now_ns = monotonic_ns()
        if self._ended:
            self._refuse("scheduled", None, invalid_values.BEFORE_THE_END)
        elif "scheduled_after_ms" not in self._fields:
            self._fields["scheduled_after_ms"] = (now_ns - self._start) / NS_PER_MS

    def token(self, count: int = 1) -> None:
        given: Any = count
        if self._ended or not _is_count(given):
            kept, as_given = values.count(given)
            if not as_given or self._ended:
                allowed = invalid_values.BEFORE_THE_END if as_given else invalid_values.COUNT
                self._refuse("token", given, allowed)
            if kept is None or self._ended:
                return
            given = kept
        self._more().add_tokens(monotonic_ns(), given)

    def stream(self, iterable: Any) -> Any:
        if streams.is_async(iterable):
            return streams.AsyncStream(type(iterable).__aiter__(iterable), self.token)
        return streams.Stream(iter(iterable), self.token)

    @property
    def token_count(self) -> int:
        return 0 if self._serving is None else self._serving.tokens

    def _add_step(self, engine: str, index: int) -> None:
        fields = self._fields
        if "step_count" not in fields or fields.get("engine") != engine:
            fields.update(engine=engine, first_step=index, step_count=0)
        fields["last_step"] = index
        fields["step_count"] += 1

    def _read_input(
        self, now_ns: int, engine: str, index: int, worked: bool, tokens: int, is_last: bool | None
    ) -> None:
        own = self._more()
        if index:
            self._add_step(engine, index)
        if not worked:
            return
        own.prefilled += tokens
        if self._unread(own) <= 0 if is_last is None else is_last:
            own.prefilled = 0
            own.add_tokens(now_ns, 1)

    def _unread(self, own: Serving) -> int:
        """Tokens of input that its steps have yet to read; 0 or less where none is left."""
        given: int | None = self._fields.get("input_tokens")
        if given is None:
            return 0
        if own.tokens:  # it lost its place, so that what it had generated is read again
            return given + own.tokens - own.prefilled
        return given - int(self._fields.get("cached_input_tokens", 0)) - own.prefilled

    def _generate(self, now_ns: int, engine: str, index: int, worked: bool, tokens: int) -> None:
        own = self._more()
        if index:
            self._add_step(engine, index)
        if worked:
            own.prefilled = 0
            own.add_tokens(now_ns, tokens)

    def _begin_step(self, prefill: Any, decode: Any, capacity: Any) -> None:
        """Give a step that has just begun its members, its index and what follows from these."""
        fields, step = self._fields, self._more()
        engine = fields["engine"] = fields.get("engine") or serving_defaults.DEFAULT_ENGINE
        if "step_index" not in fields:
            index = next_step(engine)
            if index:
                fields["step_index"] = index
            else:
                self._refuse("engine", engine, serving_defaults.ENGINES)
        if prefill is not None or decode is not None:
            self._refuse_members(step.keep_members(prefill, decode))
            size = len(step.prefill or ()) + len(step.decode or ())
            fields.setdefault("batch_size", min(size, INT32_MAX))
        if capacity is None:
            return
        if not _is_count(capacity) or not capacity:
            self._refuse("capacity", capacity, serving_defaults.CAPACITY)
        elif "batch_size" in fields and "batch_fill_ratio" not in fields:
            if fields["batch_size"] > capacity:
                self._refuse("capacity", capacity, serving_defaults.CAPACITY)
            fields["batch_fill_ratio"] = min(fields["batch_size"] / capacity, 1.0)

    def _refuse_members(self, count: int) -> None:
        # Not _refuse(): a step that ends has its fields yet.
        if count:
            self._add_invalid(count)
            wake = self._recorder._wake
            invalid_values.notice("step", None, serving_defaults.MEMBERS, wake)

    def _settle(self, own: Serving) -> None:
        """At the end: a step's members get it, a request what its tokens amount to."""
        fields = self._fields
        if own.prefill is not None or own.decode is not None:
            index, worked = fields.get("step_index", 0), self._status == "OK"
            sums = own.end_step(self._ended, fields["engine"], index, worked)
            fields.setdefault("prefill_tokens", min(sums[0], INT32_MAX))
            fields.setdefault("decode_tokens", min(sums[1], INT32_MAX))
            self._refuse_members(sums[2])
        if not own.tokens:
            return
        fields.setdefault("output_tokens", min(own.tokens, INT32_MAX))
        waited_ns = max(own.first_token_ns - self._start, 0)
        fields.setdefault("time_to_first_token_ms", waited_ns / NS_PER_MS)
        lasted_ns = own.last_token_ns - own.first_token_ns
        if not lasted_ns:
            return
        mean_ms = lasted_ns / NS_PER_MS / (own.tokens - 1)
        fields.setdefault("inter_token_latency_ms", mean_ms)
        fields.setdefault("max_inter_token_latency_ms", own.longest_ns / NS_PER_MS)
        if "token_intervals" not in fields:
            first, last = min(own.buckets), max(own.buckets)
            counts = [own.buckets.get(bucket, 0) for bucket in range(first, last + 1)]
            first, counts = token_intervals.narrowed(first, counts)
            fields["token_intervals"] = [first, *counts]


class TimesNothing:
    """The same part of a span that records nothing."""

    __slots__ = ()

    token_count: Final = 0

    def scheduled(self) -> None: ...
    def token(self, count: int = 1) -> None: ...
    def stream(self, iterable: Any) -> Any:
        return streams.untimed(iterable)

    def _read_input(self, *_: object) -> None: ...
    def _generate(self, *_: object) -> None: ...
