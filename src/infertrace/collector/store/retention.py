"""A thread that keeps a store within an age and a size."""

from __future__ import annotations

import logging
import threading

from infertrace.collector.background_thread import BackgroundThread
from infertrace.collector.store.store import Maintenance, Retention, StoreError

INTERVAL_S = 30.0

_log = logging.getLogger(__name__)


class RetentionWorker:
    """Applies the retention at its start, and then every `INTERVAL_S` seconds."""

    def __init__(self, store: Maintenance, retention: Retention) -> None:
        self._store = store
        self._retention = retention
        self._stopping = threading.Event()
        self.thread = BackgroundThread("retention", self._run)

    def start(self) -> None:
        """Start the thread."""
        self.thread.start()

    def stop(self) -> None:
        """End the thread, after a deletion in progress."""
        self._stopping.set()
        self.thread.stop()

    def _run(self, thread: BackgroundThread) -> None:
        while True:
            try:
                deleted = self._store.retain(self._retention)
                if deleted:
                    _log.info("%d spans were too old or too many, and are deleted", deleted)
            except StoreError as error:
                _log.warning("old spans could not be deleted: %s", error)
            thread.does_well()
            # Run once even without limits: a TimescaleDB policy of an earlier run must be removed.
            if self._retention == Retention() or self._stopping.wait(INTERVAL_S):
                return
