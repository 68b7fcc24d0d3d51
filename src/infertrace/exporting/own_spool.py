"""The exporter's part in a spool: its own, and those that dead processes left beside it."""

from __future__ import annotations

from infertrace.log import logger

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path

    from infertrace.backend import Recorder
    from infertrace.buffering.spool_file import SpoolFile
    from infertrace.configuration import Settings
    from infertrace.exporting.spool_drain import Leftovers, Send


class OwnSpool:
    """The spool of one tracer in this process: opened where one is wanted, closed, replaced."""

    def __init__(self, recorder: Recorder, settings: Settings, producer_id: bytes) -> None:
        self._recorder = recorder
        self._directory = None if settings.spool_dir is None else settings.spool_dir
        self._max_buffer_bytes = settings.max_buffer_bytes
        self._max_batch_bytes = settings.max_batch_bytes
        self._file: SpoolFile | None = None
        self.start_anew(producer_id)

    def start_anew(self, producer_id: bytes) -> None:
        """Leave the file, if there is one, to the parent of this forked child, and want another."""
        if self._file is not None:
            self._file.after_fork_in_child()
            self._file = None
        self._producer_id = producer_id
        self._leftovers: Leftovers | None = None
        self._is_wanted = True

    @property
    def is_open(self) -> bool:
        return self._file is not None

    @property
    def has_neighbours(self) -> bool:
        """Whether there is a directory in which dead processes may have left theirs."""
        return self._leftovers is not None

    def open_if_wanted(self, resource: bytes) -> None:
        """Where there is none; without room for it spans are held in memory only."""
        if not self._is_wanted:
            return
        self._is_wanted = False
        if self._directory is None:
            return
        from pathlib import Path

        from infertrace.buffering.spool_file import SpoolFile
        from infertrace.exporting.spool_drain import Leftovers

        directory = Path(self._directory)
        try:
            file = SpoolFile(
                directory,
                producer_id=self._producer_id,
                resource=resource,
                max_buffer_bytes=self._max_buffer_bytes,
            )
            try:
                self._recorder.attach_spool(file)
            except OSError:
                file.close(keep=False)
                raise
        except OSError as error:
            logger.warning("no spool in %s (%s): spans are held in memory", self._directory, error)
            return
        self._file = file
        self._leftovers = Leftovers(directory, self._max_batch_bytes)

    def set_resource(self, resource: bytes) -> None:
        if (file := self._file) is not None:
            file.set_resource(resource)

    def set_batch_sequence(self, number: int) -> None:
        if (file := self._file) is not None:
            file.set_batch_sequence(number)

    def find_damaged(self) -> Path | None:
        """The path of a file that somebody cut short or removed: it keeps nothing any more."""
        file = self._file
        return None if file is None or file.is_whole() else file.path

    def detach(self) -> SpoolFile | None:
        """Keep nothing from now on; the file, if there is one, is the caller's to close."""
        file, self._file = self._file, None
        if file is not None:
            self._recorder.detach_spool()
        return file

    def want(self) -> None:
        """Let the next `open_if_wanted` open one."""
        self._is_wanted = True

    def close(self, endpoint: str, pending: int) -> None:
        """Keep the file if spans are pending, and say so; remove it otherwise."""
        file = self.detach()
        if file is None:
            return
        file.close(keep=pending > 0)
        if pending:
            logger.warning(
                "%s: %d spans were not delivered before the shutdown; they are left in %s",
                endpoint,
                pending,
                file.path,
            )

    def deliver_leftovers(self, send: Send) -> None:
        """Deliver what dead processes left, in their name."""
        if self._leftovers is not None:
            self._leftovers.deliver(send)
