import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

GO_MODULE = Path(__file__).parent / "go"
RECEIVER_DEADLINE_S = 60


@pytest.fixture(scope="session")
def go() -> Callable[..., str]:
    """Runs the go command in the module of the test programs and returns what it prints."""
    if shutil.which("go") is None:
        stop = pytest.fail if os.environ.get("CI") else pytest.skip
        stop("go is not on PATH: install Go 1.24 or newer to test with Go programs")

    def run(*arguments: str | Path) -> str:
        done = subprocess.run(
            ["go", *arguments],
            cwd=GO_MODULE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    return run


@pytest.fixture(scope="session")
def go_programs(go: Callable[..., str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("go")
    go("build", "-o", f"{directory}{os.sep}", "./receiver", "./client")
    return directory


class Receiver:
    """The Go collector; `stop()` returns everything that it received."""

    def __init__(self, program: Path) -> None:
        self._process = subprocess.Popen(
            [program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8"
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._stdin, self._stdout = self._process.stdin, self._process.stdout
        self._watchdog = threading.Timer(RECEIVER_DEADLINE_S, self._process.kill)
        self._watchdog.start()
        self.address = self._stdout.readline().strip()
        self._lines: list[str] = []
        # A full pipe would block the receiver, and so its clients.
        self._reader = threading.Thread(target=self._lines.extend, args=(self._stdout,))
        self._reader.start()

    def stop(self) -> list[tuple[str, str]]:
        """Stops it and returns (method, request as JSON) for each call."""
        self._stdin.close()
        self._reader.join()
        self._process.wait()
        self._stdout.close()
        self._watchdog.cancel()
        parted = (line.partition(" ") for line in self._lines)
        return [(method, request) for method, _, request in parted]


@pytest.fixture
def receiver(go_programs: Path) -> Iterator[Receiver]:
    receiver = Receiver(go_programs / "receiver")
    yield receiver
    receiver.stop()


@pytest.fixture
def send_with_go(go_programs: Path) -> Callable[[str, str, str], str]:
    """Sends (address, method, request as JSON) from Go and returns the response as JSON."""

    def send(address: str, method: str, request: str) -> str:
        done = subprocess.run(
            [go_programs / "client", "-address", address, "-method", method],
            input=request,
            capture_output=True,
            text=True,
            encoding="utf-8",
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return send
