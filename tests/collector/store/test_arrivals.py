"""What arrived last, within its bounds."""

from __future__ import annotations

import pytest

from infertrace.collector.store import arrivals
from infertrace.collector.store.arrivals import Arrivals, arrival
from infertrace.collector.store.span_filter import SpanFilter
from store_batches import batch_of, new_span


def test_what_is_forgotten_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrivals, "KEPT_ROWS", 10)
    kept = Arrivals()
    start = kept.after(None).next_place
    for _ in range(5):
        kept.add([batch_of([new_span() for _ in range(4)]).rows])
    found = arrival(kept.after(start), SpanFilter(), 3, None)
    assert (found.matching_count, found.forgotten_count) == (8, 12)
    assert len(found.rows) == 3
    assert found.next_place == start + 20
    assert kept.after(start + 18).forgotten_count == 0
    assert arrival(kept.after(start + 18), SpanFilter(), 5, None).matching_count == 2
    # A place of an earlier process, or one that is not reached yet.
    assert kept.after(5).forgotten_count == 12
    assert not kept.after(2**62).batches
