"""The collector reports how complete its data is: retries, gaps, drops, the end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector_client import Client, NewSpan
from infertrace.collector.store import ledger
from infertrace.collector.store.ledger import Producer, ProducerReport
from infertrace.generated.span_pb2 import AttributeValue, Resource, Span

PRODUCER = bytes(range(16))


@pytest.fixture
def account(client: Client) -> Callable[[], dict[str, Any]]:
    def read() -> dict[str, Any]:
        (only,) = client.get("/ledger")["producers"]
        return only

    return read


@pytest.fixture
def send(client: Client, new_span: NewSpan) -> Callable[..., list[Span]]:
    def send_some(count: int, first: int, **fields: Any) -> list[Span]:
        spans = [new_span() for _ in range(count)]
        client.send(*spans, producer_id=PRODUCER, first_span_sequence=first, **fields)
        return spans

    return send_some


def test_a_producer_from_start_to_finish(
    client: Client, account: Callable[[], dict[str, Any]], send: Callable[..., list[Span]]
) -> None:
    resource = Resource(attributes={"service.name": AttributeValue(string_value="checkout")})
    send(3, 1, produced_count=10, resource=resource)
    now = account()
    assert now["producer_id"] == PRODUCER.hex()
    assert now["service_name"] == "checkout"
    assert now["state"] == "active"
    assert (now["produced"], now["stored"], now["pending"]) == (10, 3, 7)
    assert now["completeness"] == 0.3
    assert not now["complete"]

    send(7, 4, produced_count=10)
    assert account()["completeness"] == 1.0
    assert not account()["complete"]  # it may produce more

    send(0, 11, produced_count=10, final=True)
    assert (account()["state"], account()["complete"]) == ("finished", True)
    assert account()["first_seen"] < account()["last_seen"]


def test_a_retried_batch_counts_once(
    client: Client, account: Callable[[], dict[str, Any]], send: Callable[..., list[Span]]
) -> None:
    spans = send(4, 1, produced_count=4)
    client.send(*spans, producer_id=PRODUCER, first_span_sequence=1, produced_count=4)
    assert (account()["stored"], account()["duplicates"], account()["pending"]) == (4, 4, 0)


def test_gaps_close(account: Callable[[], dict[str, Any]], send: Callable[..., list[Span]]) -> None:
    send(2, 1, produced_count=10)
    send(3, 8, produced_count=10)
    send(1, 5, produced_count=10)
    assert account()["gaps"] == [[3, 4], [6, 7]]
    assert account()["pending"] == 4
    send(5, 3, produced_count=10)
    assert account()["gaps"] == []
    assert account()["stored"] == 10


def test_counters_that_come_late_do_not_count_back(
    account: Callable[[], dict[str, Any]], send: Callable[..., list[Span]]
) -> None:
    send(1, 2, produced_count=9, dropped_counts={"buffer_full": 5, "invalid": 1})
    send(1, 1, produced_count=4, dropped_counts={"buffer_full": 2})
    now = account()
    assert now["produced"] == 9
    assert now["dropped"] == {"buffer_full": 5, "invalid": 1}
    assert now["pending"] == 9 - 2 - 6
    assert now["completeness"] == pytest.approx(2 / 9)


def test_a_rejection_that_the_producer_heard_of_counts_once(
    client: Client, account: Callable[[], dict[str, Any]], new_span: NewSpan
) -> None:
    fields = {"producer_id": PRODUCER, "first_span_sequence": 1, "produced_count": 2}
    client.send(new_span(), new_span(status="LATE"), **fields)
    assert (account()["rejected"], account()["pending"]) == (1, 0)
    client.send(producer_id=PRODUCER, produced_count=2, dropped_counts={"rejected": 1}, final=True)
    now = account()
    assert (now["rejected"], now["dropped"], now["pending"]) == (1, {"rejected": 1}, 0)
    assert (now["state"], now["complete"], now["completeness"]) == ("finished", False, 0.5)


def test_every_producer_has_its_own(client: Client, new_span: NewSpan) -> None:
    for number in range(3):
        client.send(new_span(), producer_id=bytes([number]) * 16, produced_count=number + 1)
    found = client.get("/ledger")["producers"]
    assert [(p["producer_id"][:2], p["pending"]) for p in found] == [
        ("02", 2),
        ("01", 1),
        ("00", 0),
    ]
    assert len(client.get("/ledger", limit=2)["producers"]) == 2


def test_spans_without_a_producer_have_no_account(client: Client, new_span: NewSpan) -> None:
    client.send(new_span())
    assert client.get("/ledger") == {"producers": [], "forwards": []}


def test_the_largest_counters(
    account: Callable[[], dict[str, Any]], send: Callable[..., list[Span]]
) -> None:
    largest = 2**64 - 1
    send(1, 2**63 - 1, produced_count=largest, dropped_counts={"buffer_full": largest})
    assert account()["produced"] == largest
    assert account()["dropped"] == {"buffer_full": largest}
    assert account()["gaps"] == [[1, 2**63 - 2]]


def test_accounts_are_bounded(
    client: Client, new_span: NewSpan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger, "MAX_PRODUCERS", 10)
    for number in range(25):
        client.send(new_span(), producer_id=bytes([number]) * 16, produced_count=1)
    found = [p["producer_id"][:2] for p in client.get("/ledger")["producers"]]
    assert len(found) <= 10
    assert found[0] == "18"  # the newest of the 25


def test_silence() -> None:
    producer = Producer(PRODUCER, first_seen_ns=0, last_seen_ns=0)
    limit = ledger.SILENT_AFTER_S * 10**9
    assert producer.state(limit) == "active"
    assert producer.state(limit + 1) == "silent"


@given(
    batches=st.lists(st.tuples(st.integers(1, 60), st.integers(1, 10)), max_size=30),
    rejected=st.sets(st.integers(1, 70)),
)
def test_sequences_count_like_a_set(batches: Any, rejected: Any) -> None:
    producer = Producer(PRODUCER, 0, 0)
    seen: set[int] = set()
    for first, count in batches:
        numbers = range(first, first + count)
        producer = producer.after(
            ProducerReport(PRODUCER, "", first, 0, {}, False),
            span_count=count,
            rejected_positions=[n - first for n in numbers if n in rejected],
            duplicates=0,
            now_ns=0,
        )
        seen.update(numbers)
    assert producer.stored == len(seen - rejected)
    assert producer.rejected == len(seen & rejected)
    missing = {n for first, last in producer.gaps for n in range(first, last + 1)}
    assert missing == set(range(1, max(seen, default=0))) - seen


def test_intervals_and_reasons_are_bounded() -> None:
    producer = Producer(PRODUCER, 0, 0)
    for number in range(1, 2 * ledger.MAX_INTERVALS, 2):
        report = ProducerReport(PRODUCER, "", number, 0, {f"r{number}": 1, "x" * 999: 1}, False)
        producer = producer.after(
            report, span_count=1, rejected_positions=[], duplicates=0, now_ns=0
        )
    assert len(producer.received) <= ledger.MAX_INTERVALS
    assert producer.stored == ledger.MAX_INTERVALS
    assert len(producer.dropped) == ledger.MAX_DROP_REASONS
    assert max(map(len, producer.dropped)) <= ledger.MAX_NAME_CHARACTERS
