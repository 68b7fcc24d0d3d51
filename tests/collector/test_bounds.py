"""Memory is bounded under any load: bombs, unlimited distinct names, slow readers."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import grpc
import pytest

from collector_client import NewSpan, OpenClient
from infertrace.collector.ingest import grpc_server
from infertrace.collector.query import http_server
from infertrace.collector.server import Collector

MIB = 1024 * 1024
SPANS, BATCH = 1_000_000, 20_000
MAX_METRICS_BYTES = 20_000
# What the names take in rows that wait for the database; an object kept for each of them would take
# several times as much.
MORE_FOR_NAMES_MIB = 250

COLLECT = (
    "import sys\n"
    "from infertrace.collector.server import Collector\n"
    "with Collector('127.0.0.1:0', '127.0.0.1:0', sys.argv[1]) as collector:\n"
    "    print(collector.grpc_address, collector.http_address, flush=True)\n"
    "    sys.stdin.read()\n"
)


@contextmanager
def running(store_url: str) -> Iterator[tuple[int, list[str]]]:
    """The process id and addresses of a collector whose memory can be measured by itself."""
    popen = subprocess.Popen(
        [sys.executable, "-c", COLLECT, store_url],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert popen.stdout is not None
    try:
        yield popen.pid, popen.stdout.readline().split()
    finally:
        popen.communicate(timeout=120)


def peak_mib(pid: int) -> float:
    status = Path(f"/proc/{pid}/status")
    if not status.exists():
        pytest.skip("the memory of another process is read from /proc")
    (line,) = [line for line in status.read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) / 1024


def test_a_gzip_bomb(file_url: str, open_client: OpenClient, new_span: NewSpan) -> None:
    with running(file_url) as (pid, addresses):
        client = open_client(*addresses)
        client.send(new_span())
        before = peak_mib(pid)
        call: Any = client.channel.unary_unary("/infertrace.v1.CollectorService/SendSpanBatch")
        with pytest.raises(grpc.RpcError) as failure:
            call(bytes(512 * MIB), timeout=120, compression=grpc.Compression.Gzip)
        assert failure.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert peak_mib(pid) - before < 4 * grpc_server.MAX_MESSAGE_BYTES / MIB
        assert client.send(new_span()).accepted_count == 1


def batches(template: bytes, marks: Sequence[bytes]) -> Iterator[bytes]:
    """Requests with a million spans of this content, each mark made a number of its own."""
    head = bytes([0x0A, len(template) & 0x7F | 0x80, len(template) >> 7])
    for first in range(0, SPANS, BATCH):
        ids = os.urandom(24 * BATCH)
        spans = []
        for number in range(BATCH):
            place = 24 * number
            span = template.replace(b"T" * 16, ids[place : place + 16])
            span = span.replace(b"S" * 8, ids[place + 16 : place + 24])
            for mark in marks:
                span = span.replace(mark, b"%c%07d" % (mark[0], first + number))
            spans.append(head + span)
        yield b"".join(spans)


def test_names_without_number(tmp_path: Path, open_client: OpenClient, new_span: NewSpan) -> None:
    """A million models, services, operations, tags and versions cost what their rows cost."""
    template = new_span(
        model="m0000000",
        service_name="s0000000",
        operation_name="o0000000",
        tags={"t0000000": "t0000000"},
        trace_id=b"T" * 16,
        span_id=b"S" * 8,
    )
    template.inference.model_version = "v0000000"
    peaks = []
    for marks in ((), (b"m0000000", b"s0000000", b"o0000000", b"t0000000", b"v0000000")):
        with running(f"duckdb:///{tmp_path / str(len(marks))}") as (pid, addresses):
            client = open_client(*addresses)
            for request in batches(template.SerializeToString(), marks):
                assert client.send_bytes(request).accepted_count == BATCH
            peaks.append(peak_mib(pid))
            assert len(client.http.get("/metrics").text) < MAX_METRICS_BYTES
            assert len(client.get("/models", limit=10)) == (10 if marks else 1)
            assert client.http.get("/overview").status_code == (422 if marks else 200)
    assert peaks[1] - peaks[0] < MORE_FOR_NAMES_MIB, peaks


def test_a_reader_that_does_not_read(
    new_span: NewSpan, open_client: OpenClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_server, "ANSWER_TIMEOUT_S", 0.2)
    lost = threading.Event()
    connection_lost = http_server.BoundedProtocol.connection_lost

    def note(self: http_server.BoundedProtocol, error: Exception | None) -> None:
        connection_lost(self, error)
        lost.set()

    monkeypatch.setattr(http_server.BoundedProtocol, "connection_lost", note)
    with Collector("127.0.0.1:0", "127.0.0.1:0", "memory:") as collector:
        client = open_client(collector.grpc_address, collector.http_address)
        text = "x" * 10_000
        for _ in range(4):
            client.send(*[new_span(status_message=text) for _ in range(1_000)])
        host, _, port = collector.http_address.rpartition(":")
        with socket.socket() as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
            connection.settimeout(60)
            connection.connect((host, int(port)))
            connection.sendall(b"GET /spans?limit=10000 HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert connection.recv(1) == b"H"
            received = 1
            assert lost.wait(60)
            # Now it reads: it gets what the kernel had buffered, and no more.
            with suppress(ConnectionResetError):
                while some := connection.recv(65_536):
                    received += len(some)
        assert received < 4 * 1_000 * len(text)
        assert len(client.get("/spans", limit=5)) == 5
