"""Another protocol, and another sender, are new classes: nothing that sends knows which it has."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from grpc_receiver import Receiver
from infertrace.exporting import link
from infertrace.exporting.answer import Answer, Refused, Retryable
from infertrace.exporting.choice import choose_wire
from infertrace.exporting.envelope import Request, count_spans
from infertrace.exporting.grpc_transport import GrpcTransport
from infertrace.exporting.link_transport import LinkTransport, Sender
from infertrace.exporting.target import Target
from infertrace.exporting.wire import Encoded, Wire
from infertrace.generated.span_pb2 import SendSpanBatchRequest


@pytest.fixture
def sender() -> None:
    """The transports are made here."""


class OtherWire(Wire):
    """Takes one span of a batch, and says nothing at the end."""

    grpc_method = "/infertrace.v1.CollectorService/SendSpanBatch"

    def encode(self, request: Request, span_count: int) -> Encoded:
        batch = SendSpanBatchRequest.FromString(b"".join(request))
        if batch.final:
            return Encoded(None, 0)
        body = SendSpanBatchRequest(spans=batch.spans[:1]).SerializeToString()
        return Encoded(body, 1, span_count - 1, "one is enough")

    def read(self, reply: bytes, encoded: Encoded) -> Answer:
        return Answer(encoded.span_count, encoded.rejected_count, encoded.rejection_reason)


def test_a_wire_says_what_is_sent_and_what_was_meant(receiver: Receiver) -> None:
    transport = GrpcTransport(Target(receiver.endpoint, tls=False, headers={}), OtherWire())
    batch = SendSpanBatchRequest(spans=[{"operation_name": "a"}, {"operation_name": "b"}])
    assert transport.send((batch.SerializeToString(),), 2, 30) == (1, 1, "one is enough")
    goodbye = SendSpanBatchRequest(final=True).SerializeToString()
    assert transport.send((goodbye,), 0, 30) == (0, 0, "")
    assert [span.operation_name for span in receiver.spans] == ["a"]
    transport.close()


def test_the_wire_of_the_project() -> None:
    wire = choose_wire("infertrace")
    encoded = wire.encode((b"a", b"b"), 3)
    assert (encoded.body, encoded.span_count) == (b"ab", 3)
    assert wire.read(b"\x08\x02\x10\x01", encoded)[:2] == (2, 1)
    with pytest.raises(Refused, match="not of the infertrace protocol"):
        wire.read(b"\xff", encoded)
    with pytest.raises(ValueError, match="wire: expected infertrace, otlp/grpc or otlp/http"):
        choose_wire("x")


class SharedSender(Sender):
    """A connection to a sender that this process did not start."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        try:
            self.socket.connect(str(path))
        except OSError:
            self.socket.close()
            raise

    @property
    def pid(self) -> None:
        return None

    def end(self) -> None: ...

    def after_fork_in_child(self) -> None:
        self.socket.close()


@pytest.fixture
def shared(tmp_path: Path) -> Iterator[Path]:
    """The socket of a sender that accepts all, for any number of connections."""
    path = tmp_path / "sender"
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()

    def serve(connection: socket.socket) -> None:
        with connection:
            while (received := link.receive(connection)) is not None:
                assert count_spans(received.body) == received.span_count
                connection.sendall(link.pack_answer(Answer(received.span_count, 0, "")))

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(connection,)).start()

    thread = threading.Thread(target=accept)
    thread.start()
    yield path
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join()


def test_tracers_share_a_sender(new_tracer: Any, backend: Any, shared: Path) -> None:
    tracers = [new_tracer("127.0.0.1:1", export_interval_s=0.02) for _ in range(3)]
    for tracer in tracers:
        tracer._exporter.divert(lambda: LinkTransport(SharedSender(shared), backend.roundtrip))
    for _ in range(500):
        for tracer in tracers:
            tracer.start_span("m").end()
    for tracer in tracers:
        assert tracer.flush(30)
        assert tracer.stats()["delivered"] == 500
        assert tracer.shutdown(30)


def test_a_shared_sender_that_is_not_there(new_tracer: Any, tmp_path: Path) -> None:
    def connect() -> LinkTransport:
        try:
            return LinkTransport(SharedSender(tmp_path / "none"))
        except OSError as error:
            raise Retryable(str(error)) from None

    tracer = new_tracer("127.0.0.1:1")
    tracer._exporter.divert(connect)
    tracer.start_span("m").end()
    assert not tracer.flush(0.1)
    assert tracer.stats()["pending"] == 1
