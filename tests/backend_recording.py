"""A recorder of one backend, read back by the protobuf runtime."""

from __future__ import annotations

from typing import Any

from infertrace import backend as backends
from infertrace.generated import span_pb2

KIB = 1024
MIB = 1024 * KIB


def available_backends() -> list[str]:
    try:
        backends.select("native")
    except ImportError:
        return ["pure"]  # test_backend.py fails where the compiled one is required
    return ["native", "pure"]


class Recording:
    """A recorder of one backend, from which only the test exports."""

    def __init__(self, backend: Any, **sizes: int) -> None:
        self.wakes = 0
        sizes = {"max_buffer_bytes": 8 * MIB, "max_batch_bytes": 256 * KIB, **sizes}
        self.recorder = backend.Recorder(wake=self._wake, **sizes)
        self.recorder.service_name = "tests"
        self.start_span = self.recorder.start_span

    def _wake(self) -> None:
        self.wakes += 1

    def take_all(self) -> list[span_pb2.Span]:
        """The finished spans, as the protobuf runtime reads them; counted as delivered."""
        spans: list[span_pb2.Span] = []
        while (batch := self.recorder.take()) is not None:
            request = span_pb2.SendSpanBatchRequest.FromString(batch.payload)
            assert len(request.spans) == batch.span_count
            spans += request.spans
            self.recorder.settle(batch, batch.span_count, "rejected")
        return spans

    def take_one(self) -> span_pb2.Span:
        (span,) = self.take_all()
        return span


def assert_closed(stats: Any) -> None:
    """The identity of the ledger."""
    assert stats["produced"] == stats["delivered"] + stats["pending"] + sum(
        stats["dropped"].values()
    ), stats
