"""A collector in its own process, for the demo."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from typing import Final

from infertrace.collector.options import PREFIX

_STOP_TIMEOUT_S: Final = 20.0
_READY: Final = re.compile(r"gRPC on (\S+), HTTP on (\S+), store")


class CollectorProcess:
    """Starts, stops and restarts `infertrace collector` on the same addresses."""

    def __init__(self, grpc: str, http: str, store: str, otlp_http: str = "off") -> None:
        self.grpc = grpc
        self.http = http
        self._store = store
        self.otlp_http = otlp_http
        self._process: subprocess.Popen[str] | None = None
        self._restart_at = 0.0

    @property
    def pid(self) -> int:
        return 0 if self._process is None else self._process.pid

    def start(self) -> bool:
        """Start it and read its ports; False if it could not start (it prints the reason)."""
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-m", "infertrace", "collector"),
                *("--grpc", self.grpc, "--http", self.http, "--store", self._store),
                *("--otlp-http", self.otlp_http),
            ],
            # These variables configure the machine's own collector, not this one.
            env={k: v for k, v in os.environ.items() if not k.startswith(PREFIX)},
            stdout=subprocess.PIPE,
            text=True,
            # Ctrl-C then reaches only the parent, which shuts the collector down cleanly.
            start_new_session=True,
        )
        assert self._process.stdout is not None
        ready = _READY.search(self._process.stdout.readline())
        if ready is None:
            self.stop()
            return False
        self.grpc, self.http = ready.groups()
        return True

    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def stop(self) -> None:
        """Shut it down cleanly; kill it after twenty seconds."""
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()

    def restart_after(self, delay_s: float) -> None:
        """Stop it, and have `keep_up` start it again after that many seconds."""
        self.stop()
        self._restart_at = time.monotonic() + delay_s

    def keep_up(self, restart_after_s: float) -> None:
        """Start it again when it is due, or some time after it died by itself."""
        if self.is_running():
            return
        if self._process is not None:
            self.restart_after(restart_after_s)
        elif time.monotonic() >= self._restart_at and not self.start():
            self._restart_at = time.monotonic() + restart_after_s
