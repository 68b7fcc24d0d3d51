"""`infertrace agent` in its own process."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx

READY = re.compile(r"infertrace agent: listening at unix://(\S+?)(,.*)?\n")


class AgentProcess:
    """One that listens; `log` gets what it says."""

    def __init__(
        self, socket: Path, *options: str, log: Path, wrapper: Sequence[str] = (), **more: Any
    ) -> None:
        """wrapper: the command that runs the agent's, if not this process. more: for Popen."""
        self.url = f"unix://{socket}"
        with log.open("a") as file:
            self._popen = subprocess.Popen(
                [
                    *(*wrapper, sys.executable, "-m", "infertrace", "agent"),
                    *("--socket", self.url, *options),
                ],
                stdout=subprocess.PIPE,
                stderr=file,
                text=True,
                **more,
            )
        assert self._popen.stdout is not None
        line = self._popen.stdout.readline()
        if not READY.fullmatch(line):
            self.kill()
            raise AssertionError(line, log.read_text())
        self.said = line
        http = re.search(r"HTTP on (\S+)", line)
        self.http = f"http://{http[1]}" if http else ""

    @property
    def pid(self) -> int:
        return self._popen.pid

    def get(self, path: str, **headers: str) -> httpx.Response:
        return httpx.get(self.http + path, headers=headers, trust_env=False, timeout=60)

    def metrics(self) -> dict[str, float]:
        """By name, with the labels."""
        answer = self.get("/metrics")
        assert answer.status_code == 200
        lines = [line for line in answer.text.splitlines() if not line.startswith("#")]
        return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}

    def terminate(self) -> int:
        """SIGTERM; its exit status."""
        self._popen.terminate()
        status = self._popen.wait(60)
        self.kill()
        return status

    def kill(self) -> None:
        """Once or again."""
        self._popen.send_signal(signal.SIGKILL)
        self._popen.wait()
        if self._popen.stdout is not None:
            self._popen.stdout.close()
