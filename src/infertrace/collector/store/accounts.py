"""The accounts of the producers: how a group of batches changes them, and which are kept."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence

from infertrace.collector.store import ledger
from infertrace.collector.store.ledger import Producer
from infertrace.collector.store.store import Batch


def updated_accounts(
    batches: Sequence[Batch], duplicates: Sequence[int], known: Mapping[bytes, Producer]
) -> dict[bytes, Producer]:
    """The accounts that these batches change, as of after them, by producer id.

    `duplicates` says how many valid spans of each batch were stored before.
    """
    now_ns = time.time_ns()
    changed: dict[bytes, Producer] = {}
    for batch, duplicate_count in zip(batches, duplicates, strict=True):
        report = batch.producer
        if report is None:
            continue
        producer_id = report.producer_id
        producer = changed.get(producer_id) or known.get(producer_id)
        changed[producer_id] = (producer or Producer(producer_id, now_ns, now_ns)).after(
            report,
            span_count=batch.span_count,
            rejected_positions=batch.rejected_positions,
            duplicates=duplicate_count,
            now_ns=now_ns,
        )
    return changed


class RecentAccounts:
    """The accounts of the producers that were seen last, `ledger.MAX_PRODUCERS` at most."""

    def __init__(self) -> None:
        self.by_id: dict[bytes, Producer] = {}
        self.forgotten_before_ns = 0
        """Producers that were last seen before this time have no account any more."""

    def replace(self, producers: Iterable[Producer]) -> None:
        """Have these accounts and no others."""
        self.by_id = {producer.producer_id: producer for producer in producers}

    def update(self, changed: Mapping[bytes, Producer]) -> None:
        """Take over changed accounts; where there are too many, forget the oldest."""
        self.by_id.update(changed)
        if len(self.by_id) <= ledger.MAX_PRODUCERS:
            return
        # A tenth at a time, so that a new producer rarely costs a sort of all.
        kept = sorted(self.by_id.values(), key=lambda p: p.last_seen_ns, reverse=True)
        kept = kept[: ledger.MAX_PRODUCERS - ledger.MAX_PRODUCERS // 10]
        self.replace(kept)
        self.forgotten_before_ns = kept[-1].last_seen_ns

    def newest(self, limit: int) -> list[Producer]:
        """At most `limit` accounts, the last seen first."""
        known = list(self.by_id.values())
        return sorted(known, key=lambda p: (-p.last_seen_ns, p.producer_id))[:limit]
