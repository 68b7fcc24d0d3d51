"""Spans that the sender encodes: how they travel, and what happens where it does not."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from grpc_receiver import Receiver
from infertrace import backend as backends
from infertrace.buffering.batch import PackedBatch
from infertrace.exporting import link, packed_request
from infertrace.exporting.agent_service import AgentService
from infertrace.exporting.answer import Answer, CannotEncode
from infertrace.exporting.envelope import Producer, rest
from infertrace.exporting.introduction import Introduction
from infertrace.exporting.link_transport import LinkTransport
from infertrace.exporting.packed_request import PackedRequest
from infertrace.exporting.sender_service import SenderService
from infertrace.exporting.sender_session import Session
from infertrace.exporting.shared_transports import SharedTransports
from infertrace.exporting.target import Target
from infertrace.exporting.transport import Transport
from infertrace.generated.span_pb2 import SendSpanBatchRequest
from infertrace.recording import packing
from lasting_address import lasting_address
from traced_program import run_program, sender_of, wait_until

PURE = backends.select("pure")
REST = rest(1, Producer(b"p" * 16, 1, 3, {}, b""))


@pytest.fixture
def sender() -> None:
    """Each test says who sends."""


def packed_spans(count: int) -> PackedBatch:
    recorder: Any = PURE.Recorder(max_buffer_bytes=2**20, max_batch_bytes=2**18, wake=lambda: None)
    recorder.packing.pack(True)
    for number in range(count):
        recorder.start_span("m", str(number)).end()
    batch = recorder.take()
    assert isinstance(batch, PackedBatch)
    return batch


def body_of(request: PackedRequest) -> bytes:
    return b"".join(request.body())


def test_what_was_packed_is_an_envelope_at_the_other_end() -> None:
    body = body_of(PackedRequest(packed_spans(3).payload, REST))
    sent = SendSpanBatchRequest.FromString(b"".join(packed_request.read(body, 3)))
    assert [span.operation_name for span in sent.spans] == ["0", "1", "2"]
    assert (sent.producer_id, sent.first_span_sequence) == (b"p" * 16, 1)


@pytest.mark.parametrize("count", [2, 4])
def test_another_number_of_spans(count: int) -> None:
    body = body_of(PackedRequest(packed_spans(3).payload, REST))
    with pytest.raises(CannotEncode, match=f"expected {count} spans, got 3"):
        packed_request.read(body, count)


def test_what_another_interpreter_packed() -> None:
    body = body_of(PackedRequest(packed_spans(3).payload, REST))
    with pytest.raises(CannotEncode, match="another version"):
        packed_request.read(b"0.0 pypy" + body[8:], 3)


def test_a_body_that_was_cut_short() -> None:
    body = body_of(PackedRequest(packed_spans(3).payload, b""))
    for size in range(len(body)):
        with pytest.raises(CannotEncode):
            packed_request.read(body[:size], 3)


class Accepting(Transport):
    """Takes all; keeps what it took."""

    def __init__(self) -> None:
        self.requests: list[SendSpanBatchRequest] = []

    def send(self, request: Any, span_count: int, timeout_s: float) -> Answer:
        self.requests.append(SendSpanBatchRequest.FromString(b"".join(request)))
        return Answer(span_count, 0, "")

    def close(self) -> None: ...
    def after_fork_in_child(self) -> None: ...


@pytest.fixture
def accepting(monkeypatch: pytest.MonkeyPatch) -> Accepting:
    accepting = Accepting()
    monkeypatch.setattr("infertrace.exporting.shared_transports.open_here", lambda _: accepting)
    return accepting


class LinkEnd:
    """The traced process's end of a link to a session on a thread."""

    pid = None

    def __init__(self, takes_packed: bool) -> None:
        self.socket, theirs = socket.socketpair()
        self._session = Session(theirs, SharedTransports(), takes_packed=takes_packed)
        self._thread = threading.Thread(target=self._serve, args=(theirs,))
        self._thread.start()
        introduction = Introduction(Target("nowhere:1", tls=False, headers={}))
        self.socket.sendall(link.pack_frame(link.Kind.TARGET, introduction.encode()))

    def _serve(self, theirs: socket.socket) -> None:
        with theirs:
            self._session.run()

    def end(self) -> None:
        self._thread.join()

    def after_fork_in_child(self) -> None: ...


@pytest.fixture(params=[True, False], ids=["takes packed spans", "takes none"])
def link_end(request: pytest.FixtureRequest, accepting: Accepting) -> Iterator[Any]:
    end = LinkEnd(request.param)
    transport = LinkTransport(end, PURE.roundtrip)
    yield request.param, transport
    transport.close()


def test_a_session(link_end: Any, accepting: Accepting) -> None:
    takes_packed, transport = link_end
    request = PackedRequest(packed_spans(3).payload, REST)
    if takes_packed:
        assert transport.send_packed(request, 3, 10.0) == Answer(3, 0, "")
        assert len(accepting.requests[0].spans) == 3
        with pytest.raises(CannotEncode, match="expected 4 spans"):
            transport.send_packed(request, 4, 10.0)
    else:
        with pytest.raises(CannotEncode, match="encodes for nobody"):
            transport.send_packed(request, 3, 10.0)
    transport.send((REST,), 0, 10.0)  # the connection goes on
    assert len(accepting.requests) == 1 + takes_packed


def test_an_agent_reads_no_packed_spans() -> None:
    """They are not safe to read where they may be another user's."""
    assert SenderService._takes_packed
    assert not AgentService._takes_packed


@pytest.fixture(params=["shared", "own"])
def quiet_tracer(request: pytest.FixtureRequest, new_tracer: Any, receiver: Receiver) -> Any:
    """One that sends only when it is told to."""
    return new_tracer(receiver.endpoint, sender_process=request.param, export_interval_s=3600)


@pytest.fixture
def sent_packed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The spans of each packed request that left this process."""
    counts: list[int] = []
    send_packed = LinkTransport.send_packed

    def counting(self: Any, request: Any, span_count: int, timeout_s: float) -> Answer:
        counts.append(span_count)
        return send_packed(self, request, span_count, timeout_s)

    monkeypatch.setattr(LinkTransport, "send_packed", counting)
    return counts


def record(tracer: Any, count: int) -> None:
    for number in range(count):
        with tracer.start_span("m", str(number)) as span:
            span.set_tokens(1, 2)
            if number % 7 == 0:
                span.set_tag("key", "text")


def test_the_sender_encodes(
    backend: Any, quiet_tracer: Any, receiver: Receiver, sent_packed: list[int]
) -> None:
    record(quiet_tracer, 500)
    assert quiet_tracer.flush(60)
    assert sum(sent_packed) == (500 if backend.NAME == "pure" else 0)
    assert sorted(int(it.operation_name) for it in receiver.spans) == [*range(500)]
    assert {it.inference.output_tokens for it in receiver.spans} == {2}
    assert sum(dict(it.tags) == {"key": "text"} for it in receiver.spans) == len(range(0, 500, 7))


def test_a_sender_that_cannot(
    backend: Any,
    quiet_tracer: Any,
    receiver: Receiver,
    sent_packed: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """This process encodes, what it has packed and what comes later; the ledger says the same."""
    monkeypatch.setattr(packing, "DIALECT", b"another")
    for _ in range(2):
        record(quiet_tracer, 300)
        assert quiet_tracer.flush(60)
    assert len(sent_packed) == (1 if backend.NAME == "pure" else 0)  # it is not asked again
    assert len(receiver.spans) == len({it.span_id for it in receiver.spans}) == 600
    assert quiet_tracer.stats()["delivered"] == 600


@pytest.mark.parametrize("settings", [{"sender_process": "none"}, {"spool_dir": "spool"}])
def test_where_this_process_encodes(
    new_tracer: Any,
    receiver: Receiver,
    sent_packed: list[int],
    tmp_path: Path,
    settings: dict[str, str],
) -> None:
    """gRPC here, or a spool, which holds encoded spans."""
    if "spool_dir" in settings:
        settings = {"spool_dir": str(tmp_path)}
    tracer = new_tracer(receiver.endpoint, **settings)
    record(tracer, 100)
    assert tracer.flush(60)
    assert len(receiver.spans) == 100
    assert not sent_packed


def test_settings_that_change_who_encodes(
    backend: Any, quiet_tracer: Any, receiver: Receiver, sent_packed: list[int]
) -> None:
    """What was packed before arrives all the same."""
    record(quiet_tracer, 100)
    quiet_tracer.stats()
    quiet_tracer.configure(sender_process="none")
    record(quiet_tracer, 100)
    assert quiet_tracer.flush(60)
    assert len({it.span_id for it in receiver.spans}) == 200
    assert not sent_packed
    assert quiet_tracer.stats()["delivered"] == 200


def test_a_collector_that_takes_only_small_batches(
    backend: Any, quiet_tracer: Any, receiver: Receiver, sent_packed: list[int]
) -> None:
    """A packed batch is encoded here to be split."""

    def answer(request: SendSpanBatchRequest, context: grpc.ServicerContext) -> Any:
        if len(request.spans) > 100:
            context.abort(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                "SERVER: Received message larger than max (9 vs. 8)",
            )
        return receiver.accept(request, context)

    receiver.answer = answer
    record(quiet_tracer, 500)
    assert quiet_tracer.flush(60)
    assert len(sent_packed) == (1 if backend.NAME == "pure" else 0)
    assert len(receiver.spans) == 500
    assert quiet_tracer.stats()["delivered"] == 500


def test_a_sender_that_is_killed_with_a_batch(
    quiet_tracer: Any, receiver: Receiver, sent_packed: list[int]
) -> None:
    record(quiet_tracer, 1)
    assert quiet_tracer.flush(60)
    has_come, may_go = threading.Event(), threading.Event()

    def answer(request: SendSpanBatchRequest, context: grpc.ServicerContext) -> Any:
        has_come.set()
        assert may_go.wait(60)
        return receiver.accept(request, context)

    receiver.answer = answer
    record(quiet_tracer, 300)
    flushing = threading.Thread(target=quiet_tracer.flush, args=(60,))
    flushing.start()
    assert has_come.wait(60)
    os.kill(sender_of(quiet_tracer), signal.SIGKILL)
    may_go.set()
    flushing.join()
    assert len({it.span_id for it in receiver.spans}) == 301
    assert quiet_tracer.stats()["delivered"] == 301


def test_what_is_pending_is_handed_over(new_tracer: Any, new_receiver: Any) -> None:
    endpoint = lasting_address()
    tracer = new_tracer(endpoint, sender_process="shared")
    record(tracer, 300)
    tracer.shutdown(10)
    stats = tracer.stats()
    assert stats["handed_over"] == stats["pending"] == 300
    receiver = new_receiver(endpoint)
    wait_until(lambda: len({it.span_id for it in receiver.spans}) == 300)


UNENCODABLE = """
    tracer = infertrace.Tracer("{endpoint}", resource_interval_s=0, export_interval_s=3600)
    spans = [tracer.start_span("m") for _ in range({count})]
    for span in spans:
        span.end()
    spans[-1]._status = 7
    assert tracer.flush(60)
    stats = tracer.stats()
    assert stats["produced"] == {count}, stats
    assert stats["delivered"] == {count} - 1, stats
    assert stats["dropped"] == {{"invalid": 1}}, stats
    assert tracer._exporter.recorder.packing.is_packing
"""


@pytest.mark.parametrize("count", [1, 20])
def test_a_span_that_nobody_can_encode(receiver: Receiver, count: int) -> None:
    done = run_program(PURE, UNENCODABLE.format(endpoint=receiver.endpoint, count=count))
    assert done.returncode == 0, done.stderr
    assert len(receiver.spans) == count - 1
