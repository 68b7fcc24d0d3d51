"""Queries a collector in its own process."""

from __future__ import annotations

from typing import Any

import httpx


class Collector:
    """A running collector's HTTP API."""

    def __init__(self, grpc_address: str, http_address: str) -> None:
        self.grpc_address = grpc_address
        self._http = httpx.Client(base_url=f"http://{http_address}", trust_env=False, timeout=60)

    def get(self, path: str, **parameters: str | int) -> Any:
        answer = self._http.get(path, params=parameters or None)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def assert_complete(self, stats: dict[str, Any]) -> None:
        """Assert that the only producer so far lost nothing, and that both sides say so."""
        (producer,) = self.get("/ledger")["producers"]
        assert producer["complete"], producer
        assert producer["state"] == "finished"
        assert producer["dropped"] == {}
        assert producer["stored"] == producer["produced"] == stats["produced"] > 0
        assert stats["delivered"] == stats["produced"]
        assert stats["pending"] == stats["invalid_fields"] == 0
        assert stats["dropped"] == {}

    def close(self) -> None:
        self._http.close()
