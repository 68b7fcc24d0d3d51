"""What waits for one target, bounded by bytes; a delivery takes batches of it."""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING, Final

from infertrace.buffering.batch import Batch
from infertrace.buffering.ledger import DROP_REASONS
from infertrace.collector.forwarding.forward_account import ForwardAccount, ForwardDropReason
from infertrace.collector.forwarding.request_parts import Part, parts_of
from infertrace.collector.ingest.sent_spans import SentSpans
from infertrace.exporting.delivery import BatchSource

if TYPE_CHECKING:
    from infertrace.buffering.ledger import DropReason

# Far below what a receiver of gRPC takes by default, 4 MiB: spans grow as they become OTLP, up to
# five times.
MAX_BATCH_BYTES: Final = 512 * 1024
_ITEM_BYTES: Final = 1_024  # of the objects for one request


class _Run:
    """Numbered spans of one resource that are on their way."""

    def __init__(self, first: int, count: int, resource: bytes) -> None:
        self.first = first
        self.end = first + count
        self.resource = resource
        self.unsettled = count


class ForwardQueue(BatchSource):
    """Requests as they came; split only by the thread that delivers them.

    `offer` is for any thread, and takes only a lock that nobody holds for long. Spans get numbers
    as they are taken.
    """

    def __init__(self, account: ForwardAccount, share: float, max_bytes: int) -> None:
        self._account = account
        self._share = share
        self._max_bytes = max_bytes
        self._changed = threading.Condition()
        self._requests: deque[SentSpans] = deque()
        self._byte_count = 0
        self._is_closed = False
        self._parts: deque[Part] = deque()  # of the request that was taken last
        self._runs: list[_Run] = []
        self._numbered_count = 0
        self._unnumbered_dropped = 0

    def offer(self, sent: SentSpans) -> None:
        """Queue the valid spans of a request, or drop them."""
        count = sent.valid_count
        size = sent.byte_count + _ITEM_BYTES
        with self._changed:
            reason: ForwardDropReason | None = None
            if self._is_closed:
                reason = "shutdown"
            elif self._byte_count + size > self._max_bytes:
                reason = "buffer_full"
            self._account.receive(count, reason)
            if reason is not None:
                self._unnumbered_dropped += count
                return
            self._requests.append(sent)
            self._byte_count += size
            self._changed.notify_all()

    def wait(self, timeout_s: float) -> None:
        """Until there is something to take, or `wake` is called."""
        with self._changed:
            if not self._requests and not self._is_closed:
                self._changed.wait(timeout_s)

    def pause(self, timeout_s: float) -> None:
        """For that time, or until `wake` is called; also returns when something comes."""
        with self._changed:
            self._changed.wait(timeout_s)

    @property
    def has_requests(self) -> bool:
        """Whether there is something to take."""
        with self._changed:
            return bool(self._requests)

    def close(self) -> None:
        """Take nothing more."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    def discard(self) -> None:
        """Drop what was not taken; not while another thread takes."""
        with self._changed:
            self._is_closed = True
            count = sum(sent.valid_count for sent in self._requests)
            count += sum(part.span_count for part in self._parts)
            self._requests.clear()
            self._parts.clear()
            self._byte_count = 0
            self._unnumbered_dropped += count
            self._account.settle(0, count, "shutdown")
            self._changed.notify_all()

    def resource_of(self, span_sequence: int) -> bytes:
        """The field `resource` of the span with that number, while it is on its way."""
        with self._changed:
            for run in self._runs:
                if run.first <= span_sequence < run.end:
                    return run.resource
        return b""

    def take(self, partial: bool = True) -> Batch | None:
        """The next batch, of one resource."""
        if not self._find_parts():
            return None
        resource, spans, count = self._parts.popleft()
        taken, size = [spans], len(spans)
        while self._find_parts():
            following = self._parts[0]
            if following.resource != resource or size + len(following.spans) > MAX_BATCH_BYTES:
                break
            self._parts.popleft()
            taken.append(following.spans)
            size += len(following.spans)
            count += following.span_count
        with self._changed:
            first = self._numbered_count + 1
            self._numbered_count += count
            self._runs.append(_Run(first, count, resource))
        return Batch(b"".join(taken), count, first)

    def _find_parts(self) -> bool:
        """Whether there are parts, of the next request that has any."""
        while not self._parts:
            with self._changed:
                if not self._requests:
                    return False
                sent = self._requests.popleft()
                self._byte_count -= sent.byte_count + _ITEM_BYTES
            try:
                parts, left_out = parts_of(sent, self._share, MAX_BATCH_BYTES)
            except BaseException:  # the thread's successor goes on with the next
                self._account.settle(0, sent.valid_count, "rejected")
                raise
            self._account.settle(0, left_out, "not_in_share")
            self._parts.extend(parts)
        return True

    def encode_some(self) -> bool:
        return False

    def settle(self, batch: Batch, delivered: int, reason: DropReason) -> None:
        """Count a batch, or a half of one, that is done."""
        known: ForwardDropReason = "shutdown" if reason == "shutdown" else "rejected"
        self._account.settle(delivered, batch.span_count - delivered, known)
        with self._changed:
            for run in self._runs:
                if run.first <= batch.first_span_sequence < run.end:
                    run.unsettled -= batch.span_count
                    if run.unsettled <= 0:
                        self._runs.remove(run)
                    break

    def counts(self) -> tuple[int, int, int, tuple[int, ...], int]:
        """As a recorder's; what is not in the share is none of the target's business."""
        with self._changed:
            produced = self._numbered_count + self._unnumbered_dropped
        found = self._account.counts()
        dropped = {str(reason): count for reason, count in found.dropped.items()}
        by_reason = tuple(dropped.get(reason, 0) for reason in DROP_REASONS)
        return produced, found.delivered, found.pending, by_reason, 0
