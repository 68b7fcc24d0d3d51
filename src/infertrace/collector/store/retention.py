"""Keeps a store within an age and a size: a thread that has the oldest spans deleted."""

from __future__ import annotations

import logging
import threading

from infertrace.collector.background_thread import BackgroundThread
from infertrace.collector.store.store import Maintenance, Retention, StoreError

INTERVAL_S = 30.0

_log = logging.getLogger(__name__)


class RetentionWorker:
    """Looks at the store at once, and then every so often."""

    def __init__(self, store: Maintenance, retention: Retention) -> None:
        self._store = store
        self._retention = retention
        self._stopping = threading.Event()
        self.thread = BackgroundThread("retention", self._run)

    def start(self) -> None:
        """Begin."""
        self.thread.start()

    def stop(self) -> None:
        """End; a deletion in progress comes to its end."""
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
            # Even then once: a store may have kept what it was told before.
            if self._retention == Retention() or self._stopping.wait(INTERVAL_S):
                return
