"""A bad span does not affect others, a bad request is told why, and neither costs memory."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

import grpc
import pytest

from collector_client import Client, NewSpan, OpenClient
from infertrace.collector.ingest import grpc_server, service, wire_fields
from infertrace.collector.ingest.request_batches import decode_batch
from infertrace.collector.ingest.wire_fields import RequestError, request_fields
from infertrace.collector.server import Collector
from infertrace.collector.store import group_commit
from infertrace.collector.store.duckdb.database import DuckDBDatabase
from infertrace.collector.store.journaled import applier
from infertrace.collector.store.journaled.journaled_store import JournaledStore
from infertrace.collector.store.store import StoreError
from infertrace.generated.span_pb2 import SendSpanBatchRequest

BAD_SPANS: dict[str, list[dict[str, Any]]] = {
    "trace_id": [{"trace_id": b"short"}, {"trace_id": bytes(16)}, {"trace_id": b""}],
    "span_id": [{"span_id": b"123456789"}, {"span_id": bytes(8)}],
    "parent_span_id": [{"parent_span_id": b"1"}, {"parent_span_id": bytes(8)}],
    "start_time_unix_nano": [{"start_time_unix_nano": 0}, {"start_time_unix_nano": -(2**63)}],
    "duration_nanos": [{"duration_nanos": -1}, {"duration_nanos": 2**63 - 1}],
    "status": [{"status": "ok"}, {"status": "LATE"}],
}


def delimited(payload: bytes, tag: int = 0x0A) -> bytes:
    length = len(payload)
    varint = bytearray()
    while length > 0x7F:
        varint.append(length & 0x7F | 0x80)
        length >>= 7
    varint.append(length)
    return bytes([tag]) + bytes(varint) + payload


@pytest.mark.parametrize(
    ("field", "values"),
    [(field, values) for field, cases in BAD_SPANS.items() for values in cases],
)
def test_an_invalid_span_is_rejected_alone(
    client: Client, new_span: NewSpan, field: str, values: dict[str, Any]
) -> None:
    bad = new_span()
    for name, value in values.items():
        setattr(bad, name, value)
    answer = client.send(new_span(), bad, new_span())
    assert (answer.accepted_count, answer.rejected_count) == (2, 1)
    assert answer.rejection_reason.startswith(f"span 1: {field}: ")
    assert len(client.get("/spans")) == 2


@pytest.mark.parametrize("bad", [b"\x22\x02\xff\xfe", b"\xff\xff\xff", b"\x0a\x10short", b"\x0b"])
def test_a_malformed_span_is_rejected_alone(client: Client, new_span: NewSpan, bad: bytes) -> None:
    good = [new_span().SerializeToString() for _ in range(3)]
    answer = client.send_bytes(b"".join(map(delimited, [good[0], bad, good[1], bad, good[2]])))
    assert (answer.accepted_count, answer.rejected_count) == (3, 2)
    assert answer.rejection_reason == "span 1: not a Span message"
    assert len(client.get("/spans")) == 3


def test_malformed_spans_keep_their_place_in_the_ledger(client: Client, new_span: NewSpan) -> None:
    envelope = SendSpanBatchRequest(
        producer_id=b"p" * 16, first_span_sequence=1, produced_count=3
    ).SerializeToString()
    spans = [new_span().SerializeToString(), b"\xff", new_span().SerializeToString()]
    raw = envelope + b"".join(map(delimited, spans))
    for _ in range(2):  # the second is a retry
        client.send_bytes(raw)
    (account,) = client.get("/ledger")["producers"]
    assert (account["produced"], account["stored"], account["rejected"]) == (3, 2, 1)
    assert (account["pending"], account["duplicates"], account["gaps"]) == (0, 2, [])


@pytest.mark.parametrize(
    "raw",
    [b"\x0a", b"\x0a\x05abc", b"\xff" * 12, b"\x0b\x0c", b"\x0a\xff\xff\xff\xff\xff\xff\xff\x7f"],
)
@pytest.mark.parametrize("method", ["SendSpan", "SendSpanBatch"])
def test_a_request_that_is_not_protobuf(client: Client, raw: bytes, method: str) -> None:
    with pytest.raises(grpc.RpcError) as failure:
        client.send_bytes(raw, method)
    assert failure.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "protobuf" in str(failure.value.details())


def test_a_producer_id_of_the_wrong_length(client: Client, new_span: NewSpan) -> None:
    with pytest.raises(grpc.RpcError, match="producer_id: expected 16 bytes, got 3"):
        client.send(new_span(), producer_id=b"abc")


def test_random_bytes_raise_nothing_else(new_span: NewSpan) -> None:
    """Every request is decoded or refused by RequestError, whatever its bytes are."""
    source = random.Random(20261122)
    valid = SendSpanBatchRequest(
        spans=[new_span(tags={"k": "v"}) for _ in range(3)], producer_id=b"p" * 16
    ).SerializeToString()
    for _ in range(3_000):
        raw = bytearray(valid)
        for _ in range(source.randint(1, 6)):
            raw[source.randrange(len(raw))] = source.randrange(256)
        cut = bytes(raw[: source.randint(0, len(raw))])
        try:
            decoded = decode_batch(cut)
        except RequestError:
            continue
        batch = decoded.batch
        assert len(batch.rows) + len(batch.rejected_positions) == batch.span_count


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"\x0a\x00" * (2 * 1024 * 1024), "more than 65536 spans"),
        (b"\x10\x01" * (1024 * 1024), "more than 4096 fields"),
        (delimited(b"\x72\x00" * (1024 * 1024)), "more than 262144 events and links"),
        (delimited(b"\x7a\x01r" * (1024 * 1024)), "more than 262144 events and links"),
    ],
    ids=["empty spans", "envelope", "empty events", "links"],
)
def test_a_bomb_is_counted_before_it_is_decoded(
    client: Client, monkeypatch: pytest.MonkeyPatch, raw: bytes, reason: str
) -> None:
    decoded = []
    monkeypatch.setattr(
        "infertrace.collector.ingest.pure_decoder._spans",
        lambda *arguments: decoded.append(arguments),
    )
    with pytest.raises(grpc.RpcError) as failure:
        client.send_bytes(raw)
    assert failure.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert reason in str(failure.value.details())
    assert not decoded


def test_text_full_of_tag_bytes_is_no_bomb(
    monkeypatch: pytest.MonkeyPatch, new_span: NewSpan
) -> None:
    monkeypatch.setattr(wire_fields, "MAX_EVENTS_AND_LINKS", 10)
    span = new_span(status_message="rz" * 1_000)
    assert len(request_fields(delimited(span.SerializeToString())).spans) == 1


def test_a_message_above_the_limit(client: Client) -> None:
    with pytest.raises(grpc.RpcError) as failure:
        client.send_bytes(bytes(grpc_server.MAX_MESSAGE_BYTES + 1))
    assert failure.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_a_thousand_concurrent_calls(client: Client, new_span: NewSpan) -> None:
    requests = [SendSpanBatchRequest(spans=[new_span()]) for _ in range(1_000)]
    calls = [client.stub.SendSpanBatch.future(request, timeout=60) for request in requests]
    assert sum(call.result().accepted_count for call in calls) == 1_000
    assert len(client.get("/spans", limit=10_000)) == 1_000


class HeldStore(JournaledStore):
    """A store whose commits wait for permission."""

    def __init__(self) -> None:
        super().__init__(DuckDBDatabase(None, 30.0), None)
        self.entered: Future[None] = Future()
        self.permission: Future[None] = Future()

    def commit(self, batches: Any) -> Any:
        if not self.entered.done():
            self.entered.set_result(None)
        self.permission.result(30)
        return super().commit(batches)


def trailing_metadata(failure: Any) -> Any:
    return failure.trailing_metadata()


@pytest.fixture
def held_store(monkeypatch: pytest.MonkeyPatch) -> Iterator[HeldStore]:
    store = HeldStore()
    monkeypatch.setattr("infertrace.collector.server.open_store", lambda *_: store)
    yield store
    if not store.permission.done():
        store.permission.set_result(None)


def test_overload_says_when_to_come_again(
    held_store: HeldStore,
    open_client: OpenClient,
    new_span: NewSpan,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    retry_info = pytest.importorskip("google.rpc.error_details_pb2").RetryInfo()
    status = pytest.importorskip("google.rpc.status_pb2").Status()
    monkeypatch.setattr(group_commit.GroupCommit.__init__, "__defaults__", (1_000,))
    with Collector("127.0.0.1:0", "127.0.0.1:0", "memory:") as collector:
        client = open_client(collector.grpc_address, collector.http_address)
        first = client.stub.SendSpanBatch.future(SendSpanBatchRequest(spans=[new_span()] * 9))
        held_store.entered.result(30)
        with pytest.raises(grpc.RpcError) as failure:
            client.send(*[new_span()] * 9)
        assert failure.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        trailers: dict[str, Any] = dict(trailing_metadata(failure.value))
        status.ParseFromString(trailers["grpc-status-details-bin"])
        assert status.code == grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]
        assert status.details[0].Unpack(retry_info)
        assert retry_info.retry_delay.ToMilliseconds() == service.RETRY_DELAY_S * 1_000
        held_store.permission.set_result(None)
        assert first.result(30).accepted_count == 9
        # The committed batch has released its room.
        assert client.send(*[new_span()] * 9).accepted_count == 9


def test_a_store_that_takes_too_long(
    held_store: HeldStore,
    open_client: OpenClient,
    new_span: NewSpan,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(service, "COMMIT_TIMEOUT_S", 0)
    with Collector("127.0.0.1:0", "127.0.0.1:0", "memory:") as collector:
        client = open_client(collector.grpc_address, collector.http_address)
        with pytest.raises(grpc.RpcError) as failure:
            client.send(new_span())
        assert failure.value.code() is grpc.StatusCode.UNAVAILABLE
        held_store.permission.set_result(None)


def test_a_store_that_fails(
    held_store: HeldStore, open_client: OpenClient, new_span: NewSpan
) -> None:
    held_store.permission.set_exception(StoreError("disk full at /secret"))
    with Collector("127.0.0.1:0", "127.0.0.1:0", "memory:") as collector:
        client = open_client(collector.grpc_address, collector.http_address)
        with pytest.raises(grpc.RpcError) as failure:
            client.send(new_span())
        assert failure.value.code() is grpc.StatusCode.UNAVAILABLE
        assert "secret" not in str(failure.value.details())
        held_store.permission = Future()
        held_store.permission.set_result(None)
        assert client.send(new_span()).accepted_count == 1


def test_a_store_that_is_slower_than_what_comes_in(
    file_url: str, open_client: OpenClient, new_span: NewSpan, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory is bounded, the sender is told when to retry, and the waiting spans get stored."""
    may_apply = threading.Event()
    insert = DuckDBDatabase._insert

    def slow(self: DuckDBDatabase, *given: Any) -> None:
        may_apply.wait(30)
        insert(self, *given)

    monkeypatch.setattr(DuckDBDatabase, "_insert", slow)
    monkeypatch.setattr(applier, "MAX_UNAPPLIED_BYTES", 10_000)
    monkeypatch.setattr(applier, "ROOM_TIMEOUT_S", 0.05)
    stored = 0
    with Collector("127.0.0.1:0", "127.0.0.1:0", file_url) as collector:
        client = open_client(collector.grpc_address, collector.http_address)

        def fill() -> None:
            nonlocal stored
            for _ in range(1_000):
                stored += client.send(*[new_span() for _ in range(10)]).accepted_count

        with pytest.raises(grpc.RpcError) as failure:
            fill()
        assert failure.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "grpc-status-details-bin" in dict(trailing_metadata(failure.value))
        assert client.get("/health") == {"status": "ok"}
        send = client.stub.SendSpanBatch.future
        calls = [send(SendSpanBatchRequest(spans=[new_span()])) for _ in range(20)]
        codes = {call.exception(30).code() for call in calls}
        assert codes == {grpc.StatusCode.RESOURCE_EXHAUSTED}
        may_apply.set()
        monkeypatch.setattr(applier, "ROOM_TIMEOUT_S", 30)
        stored += client.send(new_span()).accepted_count
        assert len(client.get("/spans", limit=10_000)) == stored


def test_one_batch_that_cannot_be_stored_fails_alone(
    held_store: HeldStore,
    open_client: OpenClient,
    new_span: NewSpan,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Batches that shared its transaction are committed without it."""
    original = JournaledStore.commit

    def commit(self: JournaledStore, batches: Any) -> Any:
        if any(batch.span_count == 2 for batch in batches):
            raise StoreError("poison")
        return original(self, batches)

    with Collector("127.0.0.1:0", "127.0.0.1:0", "memory:") as collector:
        client = open_client(collector.grpc_address, collector.http_address)
        send = client.stub.SendSpanBatch.future
        first = send(SendSpanBatchRequest(spans=[new_span()]))
        held_store.entered.result(30)
        monkeypatch.setattr(held_store, "commit", lambda batches: commit(held_store, batches))
        calls = [send(SendSpanBatchRequest(spans=[new_span()] * n)) for n in (1, 2, 3)]
        held_store.permission.set_result(None)
        assert first.result(30).accepted_count == 1
        assert calls[0].result(30).accepted_count == 1
        assert calls[1].exception(30).code() is grpc.StatusCode.UNAVAILABLE
        assert calls[2].result(30).accepted_count == 3
