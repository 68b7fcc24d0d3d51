"""Whether the other process has ended, also where no descriptor was free to tell by."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from infertrace.exporting.process_end import ProcessEnd

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="elsewhere nobody can tell that a process has ended"
)
CONNECT = """
import socket, sys
connection = socket.socket(socket.AF_UNIX)
connection.connect(sys.argv[1])
sys.stdin.read()
"""
# It counts descriptors, so it runs in a process where no other thread opens or closes any.
WITHOUT_DESCRIPTORS = """
import contextlib, os, resource, socket, sys, threading
from infertrace.exporting.process_end import ProcessEnd

connection = socket.socket(fileno=int(sys.argv[1]))
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
taken = []
with contextlib.suppress(OSError):
    while True:
        taken.append(os.open(os.devnull, os.O_RDONLY))
end = ProcessEnd(connection)
assert end.has_come()  # nobody can tell
waiting = threading.Thread(target=end.ensure)
waiting.start()
waiting.join(0.2)
assert waiting.is_alive()
for descriptor in taken:
    os.close(descriptor)
waiting.join()
assert not end.has_come()
print("lives", flush=True)
while not end.has_come(1):
    pass
print("has ended")
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


def test_it_tells_when_the_process_ends(other: Other) -> None:
    end = ProcessEnd(other.connection)
    other.connection.close()
    assert not end.has_come()
    other.end()
    assert end.has_come(60)
    end.close()


def test_one_that_lives_is_not_taken_for_ended_once_a_descriptor_is_free(other: Other) -> None:
    number = other.connection.fileno()
    command = [sys.executable, "-c", WITHOUT_DESCRIPTORS, str(number)]
    with subprocess.Popen(command, pass_fds=[number], stdout=subprocess.PIPE, text=True) as looking:
        assert looking.stdout is not None
        assert looking.stdout.readline() == "lives\n"
        other.end()
        assert looking.communicate(timeout=60)[0] == "has ended\n"
    assert looking.returncode == 0
