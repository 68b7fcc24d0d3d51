"""What an agent holds for processes that have gone, in a directory: it outlives the agent."""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import threading
from typing import TYPE_CHECKING, Final

from infertrace.buffering.kept_spool import KeptSpool, write_kept_spool
from infertrace.buffering.left_spans import DamagedSpansError
from infertrace.buffering.spool_file import SUFFIX
from infertrace.buffering.spool_reader import left_in, remove_unfinished
from infertrace.exporting.answer import Answer, Retryable
from infertrace.exporting.directory_lock import DirectoryLock
from infertrace.exporting.held_spans import Held, HeldMemory
from infertrace.exporting.introduction import Introduction
from infertrace.exporting.log_text import one_line
from infertrace.exporting.spool_drain import NOTHING, Drain, Settled

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from infertrace.exporting.envelope import Request
    from infertrace.exporting.sent_batches import SentBatches
    from infertrace.exporting.spool_drain import Send

logger = logging.getLogger("infertrace")

_DAMAGED_SUFFIX: Final = ".damaged"
_LOCK: Final = "agent.lock"


class AgentSpool:
    """The directory, bounded; for any number of threads."""

    def __init__(self, directory: Path, max_bytes: int) -> None:
        """Raises OSError where it cannot be written to."""
        self._directory = directory
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)
        self._has_told = False
        self._is_idle = threading.Condition(self._lock)
        self._delivering = 0
        self._is_stopping = False
        self.used_bytes = 0
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not os.access(directory, os.W_OK | os.X_OK):
            raise PermissionError(f"{directory}: cannot be written to")

    @property
    def max_bytes(self) -> int:
        return self._max_bytes

    @property
    def is_stopping(self) -> bool:
        """Whether the next agent goes on with what lies here."""
        return self._is_stopping

    def lock(self) -> DirectoryLock:
        """Entered for as long as this agent uses the directory; see there for what it raises."""
        return DirectoryLock(self._directory / _LOCK, 0.0)

    def keep(self, memory: HeldMemory, introduction: Introduction) -> HeldSpool | None:
        """Write it down; None where there is no room for it, or no disk."""
        size_bytes = memory.size_bytes
        with self._lock:
            if self.used_bytes + size_bytes > self._max_bytes:
                return None
            self.used_bytes += size_bytes  # until it is known exactly
            name = f"{memory.left.producer_id.hex()}-{os.getpid()}-{next(self._numbers)}{SUFFIX}"
        path = self._directory / name
        written = 0
        try:
            written = write_kept_spool(path, memory.left, introduction.encode())
        except OSError as error:
            self._tell_once(f"nothing can be written to {self._directory}: {error}")
            return None
        finally:
            with self._lock:
                self.used_bytes += written - size_bytes
        return HeldSpool(
            self, path, written, memory.span_count, introduction.max_batch_bytes, memory.sent
        )

    def restore(self, sent: SentBatches) -> Iterator[tuple[HeldSpool, Introduction]]:
        """What an agent before this one has kept, the oldest first."""
        remove_unfinished(self._directory)
        for path in left_in(self._directory):
            try:
                spool = KeptSpool(path)
                try:
                    introduction = Introduction.decode(spool.text)
                    size_bytes = path.stat().st_size
                finally:
                    spool.close()
            except (DamagedSpansError, ValueError, TypeError, KeyError) as error:
                self.set_aside(path, error)
                continue
            except OSError as error:
                logger.warning("cannot deliver the spool %s: %s", path, one_line(str(error)))
                continue
            with self._lock:
                self.used_bytes += size_bytes
            # Its process may not have heard that it is held.
            sent.mark_ended(spool.producer_id)
            held = HeldSpool(
                self, path, size_bytes, spool.span_count, introduction.max_batch_bytes, sent
            )
            yield held, introduction

    def set_aside(self, path: Path, error: Exception) -> None:
        """Keep a file that cannot be read, where nobody looks for one."""
        kept = path.with_name(path.name + _DAMAGED_SUFFIX)
        try:
            path.replace(kept)
        except OSError as failure:
            logger.warning("%s; it cannot be moved out of the way: %s", error, failure)
            return
        logger.warning("%s; it was kept as %s", one_line(str(error)), kept)

    def let_go(self, size_bytes: int) -> None:
        """A file of that size is no more."""
        with self._lock:
            self.used_bytes -= size_bytes

    @contextlib.contextmanager
    def delivering(self) -> Iterator[None]:
        """Something that lies here is sent, and its file says how far."""
        with self._lock:
            self._delivering += 1
        try:
            yield
        finally:
            with self._lock:
                self._delivering -= 1
                self._is_idle.notify_all()

    def stop(self, timeout_s: float) -> None:
        """Begin no more batches, and wait for those on their way."""
        self._is_stopping = True
        with self._lock:
            self._is_idle.wait_for(lambda: not self._delivering, timeout_s)

    def _tell_once(self, message: str) -> None:
        if not self._has_told:
            self._has_told = True
            logger.warning("%s; what comes is held in memory (said once)", one_line(message))


class HeldSpool(Held):
    """One file. It is open only while it is its turn, so that there may be any number."""

    is_on_disk = True

    def __init__(
        self,
        spool: AgentSpool,
        path: Path,
        size_bytes: int,
        span_count: int,
        max_batch_bytes: int,
        sent: SentBatches,
    ) -> None:
        self._spool = spool
        self._path = path
        self.size_bytes = size_bytes
        self.span_count = span_count
        self._max_batch_bytes = max_batch_bytes
        self._sent = sent
        self._delivered = self._rejected = 0

    def deliver(self, send: Send) -> tuple[int, int]:
        def send_unless_stopping(request: Request, span_count: int) -> Answer:
            if self._spool.is_stopping:
                raise Retryable("the agent stops")
            return send(request, span_count)

        with self._spool.delivering():
            return self._deliver(send_unless_stopping)

    def _deliver(self, send: Send) -> tuple[int, int]:
        try:
            kept = KeptSpool(self._path)
        except DamagedSpansError as error:
            self._spool.set_aside(self._path, error)
            raise
        except BlockingIOError:
            raise Retryable(f"{self._path}: another process delivers it") from None
        except FileNotFoundError:  # one has delivered it
            return 0, 0
        try:
            drain = Drain(kept, self._max_batch_bytes, self._settled(kept), counts_gaps=False)
            settled_before = kept.settled_sequence
            try:
                drain.run(send)
            except Retryable:
                # The next one begins behind what this one has settled, if it has anything.
                if kept.settled_sequence > settled_before:
                    self._count(drain)
                raise
            self._count(drain)
        finally:
            kept.close()
        return self._delivered, self._rejected

    def _count(self, drain: Drain) -> None:
        self._delivered += drain.delivered
        self._rejected += drain.rejected

    def _settled(self, kept: KeptSpool) -> Settled:
        """What its own process has sent, as far as this agent, or the one before it, knows."""
        settled = self._sent.last_of(kept.producer_id)
        if settled is NOTHING:
            return Settled(kept.settled_elsewhere, kept.accepted)
        kept.set_settled_elsewhere(settled.spans, settled.accepted)
        return settled

    def close(self) -> None:
        self._spool.let_go(self.size_bytes)

    def discard(self) -> None:
        self._path.unlink(missing_ok=True)
        self.close()
