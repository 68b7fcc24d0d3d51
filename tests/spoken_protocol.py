"""The protocols that a tracer and a collector of ours can speak with each other."""

from __future__ import annotations

from typing import Any

from collector_process import CollectorProcess
from lasting_address import lasting_address

PROTOCOLS = ("infertrace", "otlp/grpc", "otlp/http")


class Spoken:
    """One of them: how a collector is started for it, and where a tracer sends.

    `options` are the same for each start, so that a collector comes back where it was.
    """

    def __init__(self, protocol: str) -> None:
        self.protocol = protocol
        self.options: dict[str, Any] = (
            {"otlp_http": lasting_address()} if protocol == "otlp/http" else {}
        )

    def endpoint(self, collector: CollectorProcess) -> str:
        if self.protocol == "otlp/http":
            return f"http://{collector.otlp_http}"
        return collector.endpoint
