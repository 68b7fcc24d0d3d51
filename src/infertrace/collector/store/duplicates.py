"""Which spans may be stored already: what is looked for, how far back, and how many there are.

A store remembers the ids of the newest spans (`id_filters.py`), also those from before it was
opened: whatever it does not remember is new, unless it starts so early that it may be forgotten.
Such a span is found by the sequence numbers of its producer, or, where a batch has none that prove
it new, by a look at the stored spans that start within `LOOK_BACK_NS` of it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate

import pyarrow as pa
import pyarrow.compute as pc

from infertrace.collector.store.ledger import Producer
from infertrace.collector.store.store import Batch
from infertrace.collector.store.timestamps import MAX_UNIX_NANOS

REMEMBERED_SPANS = 2**24  # whose ids a store keeps in memory, at least: 8 to 10 bytes each
LOOK_BACK_NS = 3_600_000_000_000


def may_repeat(batches: Sequence[Batch], accounts: Mapping[bytes, Producer]) -> set[int]:
    """The indices of the batches whose sequence numbers do not prove that all spans are new."""
    suspects = set()
    earlier: dict[bytes, list[tuple[int, int]]] = {}
    for index, batch in enumerate(batches):
        report = batch.producer
        account = accounts.get(report.producer_id) if report else None
        if report is None or account is None or not report.first_span_sequence:
            suspects.add(index)
            continue
        first = report.first_span_sequence
        last = first + batch.span_count - 1
        ranges = earlier.setdefault(report.producer_id, [])
        if account.has_received(first, batch.span_count) or any(
            first <= other_last and other_first <= last for other_first, other_last in ranges
        ):
            suspects.add(index)
        ranges.append((first, last))
    return suspects


def look_back(start_times: pa.Array) -> tuple[int, int]:
    """The first and the last start time, in nanoseconds since 1970, to look at for duplicates."""
    found = pc.min_max(start_times).as_py()
    return found["min"] - LOOK_BACK_NS, min(found["max"] + LOOK_BACK_NS, MAX_UNIX_NANOS)


def positions_by_batch(
    batches: Sequence[pa.RecordBatch], positions: Iterable[int]
) -> list[list[int]]:
    """The positions of duplicates in each batch, from theirs among the rows of all batches."""
    found: list[list[int]] = [[] for _ in batches]
    starts = [0, *accumulate(map(len, batches))]
    for position in positions:
        index = bisect_right(starts, position) - 1
        found[index].append(position - starts[index])
    return found
