"""Whether the other process has ended, also where no descriptor was free to tell by."""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from infertrace.exporting.process_end import ProcessEnd
from traced_program import wait_until

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="elsewhere nobody can tell that a process has ended"
)
CONNECT = """
import socket, sys
connection = socket.socket(socket.AF_UNIX)
connection.connect(sys.argv[1])
sys.stdin.read()
"""


class Other:
    """A process that has connected, and lives until it is told to end."""

    def __init__(self, path: Path) -> None:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
            listener.listen()
            self._process = subprocess.Popen(
                [sys.executable, "-c", CONNECT, str(path)], stdin=subprocess.PIPE
            )
            self.connection, _ = listener.accept()

    def end(self) -> None:
        self._process.communicate()
        self.connection.close()


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Other]:
    started = Other(tmp_path / "s")
    yield started
    started.end()


@contextlib.contextmanager
def no_descriptors() -> Iterator[None]:
    """None is free, within the block."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken: list[int] = []
    try:
        used = max(int(name) for name in os.listdir("/proc/self/fd"))  # noqa: PTH208
        resource.setrlimit(resource.RLIMIT_NOFILE, (used + 8, limits[1]))
        with contextlib.suppress(OSError):
            while True:
                taken.append(os.open(os.devnull, os.O_RDONLY))
        yield
    finally:
        for descriptor in taken:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_it_tells_when_the_process_ends(other: Other) -> None:
    end = ProcessEnd(other.connection)
    other.connection.close()
    assert not end.has_come()
    other.end()
    assert end.has_come(60)
    end.close()


def test_one_that_lives_is_not_taken_for_ended_once_a_descriptor_is_free(other: Other) -> None:
    with no_descriptors():
        end = ProcessEnd(other.connection)
        assert end.has_come()  # nobody can tell
        waiting = threading.Thread(target=end.ensure)
        waiting.start()
        waiting.join(0.2)
        assert waiting.is_alive()
    waiting.join(60)
    assert not waiting.is_alive()
    assert not end.has_come()
    other.end()
    wait_until(end.has_come)
    end.close()
