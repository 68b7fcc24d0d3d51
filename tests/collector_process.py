"""`infertrace collector` in its own process, and what it has stored."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from typing import Any

import httpx

from lasting_address import lasting_address

READY = re.compile(r"infertrace collector: gRPC on (\S+), HTTP on (\S+), store \S+\n")


class CollectorProcess:
    def __init__(self, store: str, grpc_address: str | None = None, otlp_http: str = "off") -> None:
        self._popen = subprocess.Popen(
            [
                *(sys.executable, "-m", "infertrace", "collector", "--store", store),
                *("--grpc", grpc_address or lasting_address(), "--http", "127.0.0.1:0"),
                *("--otlp-http", otlp_http),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self._popen.stdout is not None
        line = self._popen.stdout.readline()
        match = READY.fullmatch(line)
        assert match, (line, self._popen.communicate()[1])
        self.endpoint, self.http = match[1], match[2]
        self._popen.stdout.readline()  # about OTLP over HTTP
        self.otlp_http = otlp_http

    @property
    def port(self) -> int:
        return int(self.endpoint.rpartition(":")[2])

    def send_signal(self, number: int) -> None:
        self._popen.send_signal(number)

    def kill(self) -> None:
        self._popen.send_signal(signal.SIGKILL)
        self._popen.communicate()

    def spans(self, **parameters: str | int) -> list[dict[str, Any]]:
        """All of its spans, read page by page."""
        found: list[dict[str, Any]] = []
        url = "/spans"
        query: dict[str, str | int] = {"limit": 10_000, **parameters}
        with httpx.Client(base_url=f"http://{self.http}", trust_env=False, timeout=60) as client:
            while url:
                answer = client.get(url, params=query or None)
                assert answer.status_code == 200, answer.text
                found += answer.json()
                url, query = answer.links.get("next", {}).get("url", ""), {}
        return found

    def count(self) -> int:
        """How many spans it has stored, of all producers."""
        return sum(producer["stored"] for producer in self.producers())

    def producers(self) -> list[dict[str, Any]]:
        """`GET /ledger`"""
        answer = httpx.get(f"http://{self.http}/ledger", trust_env=False, timeout=60)
        assert answer.status_code == 200, answer.text
        producers: list[dict[str, Any]] = answer.json()["producers"]
        return producers
