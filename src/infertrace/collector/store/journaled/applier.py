"""Moves journal entries into the database, from a thread, in large transactions.

A large transaction costs a fraction of small ones with the same rows. Until the thread gets to
them, entries stay in memory, within a bound.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence

from infertrace.collector.background_thread import BackgroundThread, lower_priority
from infertrace.collector.store.accounts import RecentAccounts
from infertrace.collector.store.journaled.journal import Entry
from infertrace.collector.store.journaled.span_database import SpanDatabase
from infertrace.collector.store.store import StoreBusyError, StoreError

APPLY_INTERVAL_S = 0.5  # how long rows may wait to share a transaction
# DuckDB writes a transaction of more rows than a row group (122,880) to its place in the file at
# once, compressed, instead of to the log first.
APPLY_ROWS = 200_000
MAX_UNAPPLIED_BYTES = 128 * 1024 * 1024  # of rows in memory that wait for the database
ROOM_TIMEOUT_S = 5.0  # for a batch to wait until there are fewer
RETRY_DELAY_S = 0.5  # after a write that failed

_log = logging.getLogger(__name__)


class Applier:
    """Owns the entries that the database does not have yet.

    `applied` is the number of the last entry that it has. `accounts` says which accounts to
    delete.
    """

    def __init__(self, database: SpanDatabase, accounts: RecentAccounts, applied: int) -> None:
        self._database = database
        self._accounts = accounts
        self.thread = BackgroundThread("apply", self._run)
        # Guards what follows; never held during I/O.
        self._changed = threading.Condition()
        self._unapplied: list[Entry] = []
        self._unapplied_bytes = 0
        self._oldest_s = 0.0  # when the first of them came, on the monotonic clock
        self._applied = applied
        self._failure: str | None = None
        self._is_draining = False
        self._is_stopping = False

    @property
    def failure(self) -> str | None:
        """Why the last write failed; None while writes succeed."""
        return self._failure

    def wait_for_room(self) -> None:
        """Wait until more entries fit into memory.

        Raises StoreBusyError where that takes too long, and StoreError where writes fail.
        """
        self.thread.ensure()
        with self._changed:
            if not self._changed.wait_for(
                lambda: self._unapplied_bytes < MAX_UNAPPLIED_BYTES, ROOM_TIMEOUT_S
            ):
                if self._failure is not None:
                    raise StoreError(f"too much waits for the database: {self._failure}")
                raise StoreBusyError(f"{self._unapplied_bytes} bytes wait for the database")

    def add(self, entry: Entry) -> int:
        """Queue an entry; returns the number of the last one that the database has."""
        with self._changed:
            if not self._unapplied:
                self._oldest_s = time.monotonic()
            self._unapplied.append(entry)
            self._unapplied_bytes += entry.byte_count
            self._changed.notify_all()
            return self._applied

    def unapplied(self) -> list[Entry]:
        """The entries that wait; the database may get some of them at any moment."""
        with self._changed:
            return list(self._unapplied)

    def drain(self) -> None:
        """Wait until the database holds everything; raises StoreError where it takes too long."""
        with self._changed:
            self._is_draining = bool(self._unapplied)
            self._changed.notify_all()
            if not self._changed.wait_for(lambda: not self._unapplied, ROOM_TIMEOUT_S):
                raise StoreError(self._failure or "the database took too long")

    def stop(self) -> bool:
        """Write what waits and end the thread; False where a write failed and entries are left."""
        with self._changed:
            self._is_stopping = True
            self._changed.notify_all()
        self.thread.stop()
        return not self._unapplied

    def _run(self, thread: BackgroundThread) -> None:
        lower_priority()
        try:
            self._apply_until_stopped(thread)
        except BaseException as error:
            with self._changed:
                self._failure = type(error).__name__
            raise

    def _apply_until_stopped(self, thread: BackgroundThread) -> None:
        has_failed = thread.state.restarts > 0
        while entries := self._due_entries():
            try:
                self._apply(entries, has_failed)
                has_failed = False
            except StoreError as error:
                has_failed = True
                if self._failure is None:
                    _log.error("acknowledged spans wait in the journal: %s", error)
                with self._changed:
                    self._failure = str(error)
                    if self._is_stopping:
                        return
                time.sleep(RETRY_DELAY_S)
                continue
            with self._changed:
                self._failure = None
                self._applied = entries[-1].number
                del self._unapplied[: len(entries)]
                self._unapplied_bytes -= sum(entry.byte_count for entry in entries)
                self._oldest_s = time.monotonic()
                if not self._unapplied:
                    self._is_draining = False
                self._changed.notify_all()
            thread.does_well()

    def _due_entries(self) -> list[Entry]:
        """Wait for entries and until they are due; none where the thread has to end."""
        with self._changed:
            self._changed.wait_for(lambda: self._unapplied or self._is_stopping)
            due_s = self._oldest_s + APPLY_INTERVAL_S - time.monotonic()
            if self._unapplied:
                self._changed.wait_for(self._is_due, max(0.0, due_s))
            entries: list[Entry] = []
            count = 0
            for entry in self._unapplied:
                entries.append(entry)
                count += entry.row_count
                if count >= APPLY_ROWS:
                    break
            return entries

    def _is_due(self) -> bool:
        return (
            self._is_draining
            or self._is_stopping
            or sum(entry.row_count for entry in self._unapplied) >= APPLY_ROWS
        )

    def _apply(self, entries: Sequence[Entry], has_failed: bool) -> None:
        if has_failed:
            # What failed last may have been committed all the same.
            applied = self._database.recover()
            entries = [entry for entry in entries if entry.number > applied]
        if entries:
            self._database.apply(entries, self._accounts.forgotten_before_ns)
