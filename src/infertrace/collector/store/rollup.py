"""Sums of whole hours, minutes and seconds of requests, kept in memory: a long time in an instant.

A question is answered from the largest whole slots that are known, and from the spans themselves
in between and at both ends of its time. A thread fills the slots that questions lacked; spans that
are stored or deleted empty the slots in which they start, however late that is. So an answer is
what the spans themselves would say, and where nobody asks, nothing is added up.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import pairwise

import pyarrow as pa
import pyarrow.compute as pc

from infertrace.collector.background_thread import BackgroundThread, lower_priority
from infertrace.collector.store.grouping import (
    ColumnKey,
    GroupedQuery,
    TimeKey,
    TooManyGroupsError,
)
from infertrace.collector.store.model_sums import Grouped, ModelSums, model_sums
from infertrace.collector.store.span_filter import SpanFilter
from infertrace.collector.store.store import StoreError
from infertrace.collector.store.timestamps import NANOS_PER_SECOND
from infertrace.collector.store.value_counts import Counts, ValueCounts, value_counts

WIDTHS_NS = (NANOS_PER_SECOND, 60 * NANOS_PER_SECOND, 3_600 * NANOS_PER_SECOND)
"""How long the slots of each level are."""
PARTS = 60
"""How many slots of the level below are in one."""
SECOND, MINUTE, HOUR = range(3)
GRAINS_NS = {WIDTHS_NS[SECOND]: MINUTE, WIDTHS_NS[MINUTE]: HOUR}
"""The grains that questions may have, and the highest level that knows parts so fine."""
MAX_SUMS = 16_384  # of a model in a slot, about 5 KiB each
MAX_GAPS = 8  # that one question reads one by one
MAX_UNKNOWN_NS = 90 * NANOS_PER_SECOND  # of a time, for its values to be told
SETTLING_NS = 2 * NANOS_PER_SECOND  # in a slot younger than that, spans are still arriving
WARMED_HOURS = 24  # when the store is opened
FILLED_HOURS = 31 * 24  # at most, for one question
HOURS_TOGETHER = 4  # by one query: a shutdown waits for it
RETRY_S = 30.0  # after a query that failed

_log = logging.getLogger(__name__)

Sums = Mapping[str, ModelSums]
"""By the name of the model."""


Range = tuple[int, int]
"""Nanoseconds since 1970; the first is included, the last is not."""


@dataclass
class _Slot:
    """A whole hour, minute or second since 1970.

    `sums` are None while they are not known; `counts` are of the same spans.
    """

    level: int
    number: int
    sums: Sums | None = None
    counts: Counts = field(default_factory=dict)
    parts: dict[int, _Slot] = field(default_factory=dict)

    @property
    def first_ns(self) -> int:
        return self.number * WIDTHS_NS[self.level]

    @property
    def end_ns(self) -> int:
        return self.first_ns + WIDTHS_NS[self.level]

    @property
    def size(self) -> int:
        """How many slots and sums it holds, itself and its parts included."""
        return 1 + len(self.sums or ()) + sum(part.size for part in self.parts.values())

    def known(self, time_range: Range, top: int) -> Iterator[_Slot]:
        """Copies of the largest known slots in a time, up to a level, in order."""
        since_ns, until_ns = time_range
        if self.end_ns <= since_ns or self.first_ns >= until_ns:
            return
        is_inside = since_ns <= self.first_ns and self.end_ns <= until_ns
        if self.sums is not None and self.level <= top and is_inside:
            yield _Slot(self.level, self.number, self.sums, self.counts)
            return
        for number in sorted(self.parts):
            yield from self.parts[number].known(time_range, top)


class Rollup:
    """Sums of the requests of one store, which no other process may write to.

    `touch` and `forget_before` are called after spans have become visible to queries or have
    ceased to be: a question that is asked once such a call has returned counts them rightly.
    """

    def __init__(self, grouped: Grouped) -> None:
        self._grouped = grouped
        self.thread = BackgroundThread("rollup", self._run)
        self._making = threading.Lock()  # held while sums are made
        # Guards what follows; never held during a query or an addition.
        self._changed = threading.Condition()
        self._hours: OrderedDict[int, _Slot] = OrderedDict()  # the one that was used last is last
        self._size = 0
        self._touched: set[int] | None = None  # seconds, since a fill began; None: there is none
        self._forgotten_ns = 0  # by deletions, since a fill began
        self._filled_hours = range(0)
        self._wanted: tuple[Range, int] | None = None
        self._is_stopping = False

    @property
    def size(self) -> int:
        """How many slots and sums it holds."""
        return self._size

    def start(self) -> None:
        """Start the thread, which fills the last hours."""
        until_ns = time.time_ns()
        since_ns = max(0, until_ns - WARMED_HOURS * WIDTHS_NS[HOUR])
        self._want((since_ns, until_ns), HOUR)
        self.thread.start()

    def stop(self) -> None:
        """End the thread, after a query in progress."""
        with self._changed:
            self._is_stopping = True
            self._changed.notify_all()
        self.thread.stop()

    @contextmanager
    def pause(self) -> Iterator[None]:
        """Within it, the thread asks the store nothing."""
        with self._making:
            yield

    def sums(self, where: SpanFilter, parts: TimeKey) -> Sums:
        """What `model_sums` says of the spans that a filter lets pass, with these parts."""
        since_ns, until_ns = where.since_ns, where.until_ns
        assert since_ns is not None
        assert until_ns is not None
        top = GRAINS_NS.get(parts.grain_ns)
        if top is None or where != _plain(where) or parts.of != "start":
            return model_sums(self._grouped, where, parts).get(0, {})
        known, gaps = self._known_and_gaps((since_ns, until_ns), top)
        found: dict[str, ModelSums] = {}
        for slot in known:
            places = _places(slot, parts)
            for model, told in (slot.sums or {}).items():
                if where.model in (None, model):
                    _add(found, model, told, places)
        for first_ns, end_ns in gaps:
            inside = replace(where, since_ns=first_ns, until_ns=end_ns)
            for model, told in model_sums(self._grouped, inside, parts).get(0, {}).items():
                _add(found, model, told)
        return found

    def value_counts(self, where: SpanFilter) -> tuple[Range, ValueCounts] | None:
        """The longest time whose counts are known, in that of a filter, and these counts.

        None where they are not known of nearly all of it, or never are of such a filter.
        """
        since_ns, until_ns = where.since_ns, where.until_ns
        assert since_ns is not None
        assert until_ns is not None
        if where != _plain(where):
            return None
        known, gaps = self._known_and_gaps((since_ns, until_ns), HOUR)
        between = [(since_ns, since_ns), *gaps, (until_ns, until_ns)]
        stretches = [(one[1], other[0]) for one, other in pairwise(between)]
        first_ns, end_ns = max(stretches, key=lambda stretch: stretch[1] - stretch[0])
        if until_ns - since_ns - (end_ns - first_ns) > MAX_UNKNOWN_NS or first_ns == end_ns:
            return None
        total = ValueCounts()
        for slot in known:
            if first_ns <= slot.first_ns < end_ns:
                for model, told in slot.counts.items():
                    if where.model in (None, model):
                        total.add(told)
        return (first_ns, end_ns), total

    def _known_and_gaps(self, time_range: Range, top: int) -> tuple[list[_Slot], list[Range]]:
        """The known slots to answer from, and what they leave, which will be filled."""
        known = self._known(time_range, top)
        gaps = _gaps(known, time_range)
        if gaps:
            self._want(time_range, top)
        if len(gaps) > MAX_GAPS:
            gaps = [(gaps[0][0], gaps[-1][1])]
            known = [slot for slot in known if not gaps[0][0] <= slot.first_ns < gaps[0][1]]
        return known, gaps

    def touch(self, batches: Sequence[pa.RecordBatch]) -> None:
        """Empty the slots in which these spans start."""
        with self._changed:
            if not self._hours and self._touched is None:
                return
        seconds = {second for rows in batches if len(rows) for second in _seconds(rows)}
        with self._changed:
            if self._touched is not None:
                self._touched |= seconds
            for second in seconds:
                self._empty(second)

    def forget_before(self, start_ns: int) -> None:
        """Empty the slots of spans that started before a time, which are deleted."""
        with self._changed:
            self._forgotten_ns = max(self._forgotten_ns, start_ns)
            older = [hour.number for hour in self._hours.values() if hour.first_ns < start_ns]
            for number in older:
                self._size -= self._hours.pop(number).size

    def _empty(self, second: int) -> None:
        minute = second // 60
        hour = self._hours.get(minute // 60)
        if hour is None:
            return
        slots = [hour]
        if (slot := hour.parts.get(minute)) is not None:
            slots.append(slot)
            if (removed := slot.parts.pop(second, None)) is not None:
                self._size -= removed.size
        for slot in slots:
            self._size -= len(slot.sums or ())
            slot.sums, slot.counts = None, {}

    def _known(self, time_range: Range, top: int) -> list[_Slot]:
        """The largest known slots in a time, in order."""
        inside = _hours_of(time_range)
        known: list[_Slot] = []
        with self._changed:
            for number in sorted(number for number in self._hours if number in inside):
                self._hours.move_to_end(number)
                known += self._hours[number].known(time_range, top)
        return known

    def _want(self, time_range: Range, top: int) -> None:
        with self._changed:
            self._wanted = time_range, top
            self._changed.notify_all()

    def _run(self, thread: BackgroundThread) -> None:
        lower_priority()
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._wanted or self._is_stopping)
                if self._is_stopping or self._wanted is None:
                    return
                time_range, top = self._wanted
                self._wanted = None
            try:
                self.fill(time_range, top)
            except StoreError as error:
                _log.info("sums of spans could not be made: %s", error)
                with self._changed:
                    self._changed.wait_for(lambda: self._is_stopping, RETRY_S)
            thread.does_well()

    def fill(self, time_range: Range, top: int) -> None:
        """Make the sums of the whole slots in a time, up to a level, the newest first.

        Those of hours longer ago than FILLED_HOURS before its end are left out. Raises StoreError.
        One thread at a time may call it. It ends early where there is no room, or to stop.
        """
        until_ns = min(time_range[1], time.time_ns() - SETTLING_NS)
        settled = max(time_range[0], until_ns - FILLED_HOURS * WIDTHS_NS[HOUR]), until_ns
        self._filled_hours = _hours_of(settled)
        for level in range(top, SECOND - 1, -1):
            width_ns = WIDTHS_NS[level]
            together = HOURS_TOGETHER if level == HOUR else PARTS
            for first_ns, end_ns in reversed(_gaps(self._known(settled, top), settled)):
                numbers = range(-(-first_ns // width_ns), end_ns // width_ns)
                for end in range(len(numbers), 0, -together):
                    chosen = numbers[max(0, end - together) : end]
                    if self._is_stopping or not self._fill(level, chosen):
                        return
        for level in range(MINUTE, top + 1):
            self._fill_from_parts(level)

    def _fill(self, level: int, numbers: Sequence[int]) -> bool:
        """Make sums from the spans; False where there is no room for them."""
        width_ns = WIDTHS_NS[level]
        where = SpanFilter(
            since_ns=numbers[0] * width_ns, until_ns=(numbers[-1] + 1) * width_ns, is_request=True
        )
        parts, slots = TimeKey(0, WIDTHS_NS[max(SECOND, level - 1)]), TimeKey(0, width_ns)
        with self._filling() as keep:
            # Too many models to be kept would take minutes and gigabytes to add up.
            models = GroupedQuery(where, [[slots, ColumnKey("model_name")]], limit=MAX_SUMS + 1)
            if len(self._grouped(models)[0]) > MAX_SUMS:
                return False
            try:
                found = model_sums(self._grouped, where, parts, slots)
            except TooManyGroupsError:
                return False
            counts = value_counts(self._grouped, where, slots)
            return keep(
                [_Slot(level, each, found.get(each, {}), counts.get(each, {})) for each in numbers]
            )

    def _fill_from_parts(self, level: int) -> None:
        """Make the sums of slots all of whose parts are known."""
        with self._filling() as keep:
            with self._changed:
                whole = [
                    (slot.number, [replace(part) for part in slot.parts.values()])
                    for hour in self._hours.values()
                    if hour.number in self._filled_hours
                    for slot in ([hour] if level == HOUR else hour.parts.values())
                    if slot.sums is None and len(slot.parts) == PARTS
                ]
            for number, parts in whole:
                if all(part.sums is not None for part in parts):
                    keep([_Slot(level, number, _added(level, parts), _added_counts(parts))])

    @contextmanager
    def _filling(self) -> Iterator[Callable[[Sequence[_Slot]], bool]]:
        """Within it, slots can be kept that are made of what was stored since it began.

        Those that were touched meanwhile are not.
        """
        with self._making:
            with self._changed:
                self._touched, self._forgotten_ns = set(), 0
            try:
                yield self._keep
            finally:
                with self._changed:
                    self._touched = None

    def _keep(self, slots: Sequence[_Slot]) -> bool:
        """Whether there is room for them, beside the others of what is being filled."""
        added = sum(slot.size for slot in slots)
        with self._changed:
            while self._size + added > MAX_SUMS:
                number = next(iter(self._hours), None)
                if number is None or number in self._filled_hours:
                    return False
                self._size -= self._hours.pop(number).size
            touched = self._touched or set()
            for slot in slots:
                is_touched = slot.number in {second // PARTS**slot.level for second in touched}
                if not is_touched and slot.first_ns >= self._forgotten_ns:
                    self._place(slot)
            return True

    def _place(self, slot: _Slot) -> None:
        number = slot.first_ns // WIDTHS_NS[HOUR]
        if number not in self._hours:
            self._hours[number] = _Slot(HOUR, number)
            self._size += 1
        place = self._hours[number]
        if slot.level == HOUR:
            for minute in place.parts.values():  # what they are for is known now
                self._size -= sum(second.size for second in minute.parts.values())
                minute.parts.clear()
        for level in range(MINUTE, slot.level - 1, -1):
            number = slot.first_ns // WIDTHS_NS[level]
            if number not in place.parts:
                place.parts[number] = _Slot(level, number)
                self._size += 1
            place = place.parts[number]
        self._size += len(slot.sums or ()) - len(place.sums or ())
        place.sums, place.counts = slot.sums, slot.counts


def _add(
    found: dict[str, ModelSums],
    model: str,
    told: ModelSums,
    places: int | Mapping[int, int] | None = None,
) -> None:
    """Add to the sums of a model; `places` say which part a part becomes, or one for all."""
    total = found.setdefault(model, ModelSums())
    total.add(told)
    if isinstance(places, int):
        total.add_part(places, told.count, told.error_count)
    else:
        for part, count, error_count in told.told_parts():
            total.add_part(part if places is None else places[part], count, error_count)


def _plain(where: SpanFilter) -> SpanFilter:
    """What can be answered from sums, in the time of a filter."""
    return SpanFilter(
        since_ns=where.since_ns, until_ns=where.until_ns, model=where.model, is_request=True
    )


def _places(slot: _Slot, parts: TimeKey) -> int | Mapping[int, int]:
    first, last = parts.part(slot.first_ns), parts.part(slot.end_ns - 1)
    if first == last:
        return first
    width_ns = WIDTHS_NS[max(SECOND, slot.level - 1)]
    numbers = range(slot.first_ns // width_ns, slot.end_ns // width_ns)
    return {number: parts.part(number * width_ns) for number in numbers}


def _hours_of(time_range: Range) -> range:
    first_ns, end_ns = time_range
    return range(first_ns // WIDTHS_NS[HOUR], -(-end_ns // WIDTHS_NS[HOUR]))


def _gaps(known: Sequence[_Slot], time_range: Range) -> list[Range]:
    """What slots in order leave of a time."""
    at, until_ns = time_range
    gaps = []
    for slot in known:
        if slot.first_ns > at:
            gaps.append((at, slot.first_ns))
        at = slot.end_ns
    return [*gaps, (at, until_ns)] if at < until_ns else gaps


def _added(level: int, parts: Iterable[_Slot]) -> Sums:
    """The sums of a slot from those of its parts."""
    found: dict[str, ModelSums] = {}
    width_ns = WIDTHS_NS[level - 1]
    for slot in parts:
        for model, told in (slot.sums or {}).items():
            _add(found, model, told, slot.first_ns // width_ns)
    for told in found.values():
        told.compact()
    return found


def _added_counts(parts: Iterable[_Slot]) -> Counts:
    """The counts of a slot from those of its parts."""
    found: dict[str, ValueCounts] = {}
    for slot in parts:
        for model, told in slot.counts.items():
            found.setdefault(model, ValueCounts()).add(told)
    for told in found.values():
        told.compact()
    return found


def _seconds(rows: pa.RecordBatch) -> list[int]:
    """In which seconds these spans start."""
    start = rows.column("start_time")
    bounds = pc.min_max(start).as_py()
    first, last = (bounds[name] // NANOS_PER_SECOND for name in ("min", "max"))
    if first == last:
        return [first]
    seconds: list[int] = pc.unique(pc.divide(start, NANOS_PER_SECOND)).to_pylist()
    return seconds
