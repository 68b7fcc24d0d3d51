"""The accounts of the producers: how a group of batches changes them, and which are kept."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import pyarrow as pa

from infertrace.collector.store import ledger
from infertrace.collector.store.ledger import Producer
from infertrace.collector.store.store import Batch


def updated_accounts(
    batches: Sequence[Batch], repeated: Sequence[Sequence[int]], known: Mapping[bytes, Producer]
) -> dict[bytes, Producer]:
    """The accounts that these batches change, as of after them, by producer id.

    `repeated` has, for each batch, the positions of those of its rows that were stored before.
    """
    now_ns = time.time_ns()
    changed: dict[bytes, Producer] = {}

    def account(producer_id: bytes) -> Producer:
        found = changed.get(producer_id) or known.get(producer_id)
        return found or Producer(producer_id, now_ns, now_ns)

    for batch, positions in zip(batches, repeated, strict=True):
        if (report := batch.producer) is not None:
            changed[report.producer_id] = account(report.producer_id).after(
                report,
                span_count=batch.span_count,
                rejected_positions=batch.rejected_positions,
                duplicates=len(positions),
                now_ns=now_ns,
            )
        duplicates = _by_sender(batch, positions)
        for sender in batch.senders:
            changed[sender.sender_id] = account(sender.sender_id).after_unnumbered(
                sender, duplicates=duplicates.pop(sender.sender_id, 0), now_ns=now_ns
            )
    return changed


def _by_sender(batch: Batch, positions: Sequence[int]) -> Counter[bytes]:
    """How many of these rows each sender has."""
    if not positions or not batch.senders:
        return Counter()
    ids = batch.rows.column("producer_id").storage.take(pa.array(positions, pa.int64()))
    return Counter(ids.to_pylist())


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
