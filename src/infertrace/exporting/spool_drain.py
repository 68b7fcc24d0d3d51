"""Delivers the spans that dead processes left in their spools, on behalf of these processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

from infertrace.buffering.batch import Batch, halves
from infertrace.buffering.left_spans import DamagedSpansError, LeftSpans, Record
from infertrace.buffering.spool_reader import LeftSpool, left_in, remove_unfinished
from infertrace.exporting import envelope
from infertrace.exporting.answer import Answer, Refused, Retryable, TooLarge
from infertrace.exporting.envelope import Producer, Request
from infertrace.exporting.log_text import one_line
from infertrace.log import logger

Send = Callable[[Request, int], Answer]
"""Sends an envelope with that many spans, as `Transport.send` does."""

_DAMAGED_SUFFIX: Final = ".damaged"


class Settled(NamedTuple):
    """A batch that its own producer has sent, of which the memory that it left does not know."""

    spans: range
    """Their numbers."""
    accepted: int


NOTHING: Final = Settled(range(0), 0)


class Drained(NamedTuple):
    """What became of the spans of one spool."""

    delivered: int
    rejected: int
    damaged: int
    """Ended spans of which no whole record was found."""


class Leftovers:
    """The spools of a directory whose owners are gone."""

    def __init__(self, directory: Path, max_batch_bytes: int) -> None:
        self._directory = directory
        self._max_batch_bytes = max_batch_bytes
        self._told_of: set[Path] = set()
        self.stopped_by: Retryable | None = None
        """Why the last delivery ended before it was done, if it did."""

    def deliver(self, send: Send) -> list[tuple[Path, Drained]]:
        """Deliver every spool that nobody has locked; stop early if the collector takes nothing.

        A file that cannot be read, moved or removed is logged once, and tried again next time.
        """
        done = []
        self.stopped_by = None
        remove_unfinished(self._directory)
        for path in left_in(self._directory):
            try:
                drained = self._deliver_one(path, send)
            except Retryable as error:
                self.stopped_by = error
                break
            except (BlockingIOError, FileNotFoundError):  # its owner lives, or another drained it
                continue
            except OSError as error:
                self._tell_once(path, f"cannot deliver the spool {path}: {error}")
                continue
            except DamagedSpansError as error:
                self._set_aside(path, error)
                continue
            done.append((path, drained))
            logger.info(
                "%d spans that a process had left in %s were delivered, %d rejected, %d damaged",
                drained.delivered,
                path,
                drained.rejected,
                drained.damaged,
            )
        return done

    def _deliver_one(self, path: Path, send: Send) -> Drained:
        spool = LeftSpool(path)
        try:
            return Drain(spool, self._max_batch_bytes).run(send)
        finally:
            spool.close()

    def _set_aside(self, path: Path, error: DamagedSpansError) -> None:
        kept = path.with_name(path.name + _DAMAGED_SUFFIX)
        try:
            path.replace(kept)
        except OSError as failure:
            self._tell_once(path, f"{error}; it cannot be moved out of the way: {failure}")
            return
        logger.warning("%s; it was kept as %s", error, kept)

    def _tell_once(self, path: Path, message: str) -> None:
        if path not in self._told_of:
            self._told_of.add(path)
            logger.warning("%s (said once)", one_line(message))


class Drain:
    """Delivers what was left, and removes it."""

    def __init__(
        self,
        left: LeftSpans,
        max_batch_bytes: int,
        settled: Settled = NOTHING,
        *,
        counts_gaps: bool = True,
    ) -> None:
        """settled: what need not be sent again. counts_gaps: whether a number without a span
        stands for one that was damaged."""
        self._left = left
        self._max_batch_bytes = max_batch_bytes
        self._counts_gaps = counts_gaps and left.numbers_follow
        first = max(settled.spans.start, left.settled_sequence + 1)
        self._settled_since = range(first, max(settled.spans.stop, first))
        self.delivered = min(settled.accepted, len(self._settled_since))
        self.rejected = len(self._settled_since) - self.delivered
        self._damaged = left.damaged

    def run(self, send: Send) -> Drained:
        """Raises Retryable if the collector takes nothing now; called again, it goes on."""
        left = self._left
        records = (r for r in left.records() if r.sequence not in self._settled_since)
        for batch in _batches(records, self._max_batch_bytes):
            left.batch_sequence += 1
            parts = [batch]
            while parts:
                part = parts[0]
                damaged = self._damaged + self._gap_before(part.first_span_sequence)
                producer = self._producer(damaged)
                try:
                    request = envelope.encode(part.payload, part.first_span_sequence, producer)
                    answer = send(request, part.span_count)
                except TooLarge:
                    if part.span_count > 1:
                        parts[:1] = halves(part)
                        continue
                    accepted = 0
                except Refused as error:
                    logger.warning("%s: spans are refused: %s", left.name, one_line(str(error)))
                    accepted = 0
                else:
                    accepted = max(0, min(answer.accepted_count, part.span_count))
                self._damaged = damaged
                self.delivered += accepted
                self.rejected += part.span_count - accepted
                last = part.first_span_sequence + part.span_count - 1
                left.settle(last, left.batch_sequence, self.rejected)
                del parts[0]
        damaged = self._damaged + self._gap_before(left.last_sequence + 1)
        left.batch_sequence += 1
        try:
            send(envelope.goodbye(self._producer(damaged)), 0)
        except (Refused, TooLarge) as error:
            logger.warning("%s: its ledger is refused: %s", left.name, one_line(str(error)))
        left.remove()
        return Drained(self.delivered, self.rejected, damaged)

    def _producer(self, damaged: int) -> Producer:
        left = self._left
        dropped: dict[str, int] = {why: count for why, count in left.dropped.items() if count}
        if self.rejected:
            dropped["rejected"] = dropped.get("rejected", 0) + self.rejected
        if damaged:
            dropped["damaged"] = damaged
        return Producer(
            left.producer_id, left.batch_sequence, left.produced, dropped, left.resource
        )

    def _gap_before(self, stop: int) -> int:
        """How many spans before this number are neither settled nor here."""
        start, known = self._left.settled_sequence + 1, self._settled_since
        if not self._counts_gaps or start >= stop:
            return 0
        return stop - start - len(range(max(start, known.start), min(stop, known.stop)))


def _batches(records: Iterator[Record], max_batch_bytes: int) -> Iterator[Batch]:
    """Batches of records whose numbers follow one another without a gap."""
    run: list[Record] = []
    size = 0
    for record in records:
        follows = not run or record.sequence == run[-1].sequence + 1
        if run and (not follows or size + len(record.span) > max_batch_bytes):
            yield _batch(run)
            run, size = [], 0
        run.append(record)
        size += len(record.span)
    if run:
        yield _batch(run)


def _batch(run: list[Record]) -> Batch:
    return Batch(b"".join(record.span for record in run), len(run), run[0].sequence)
