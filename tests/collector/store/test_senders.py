"""The accounts of senders that do not number their spans: kept by both stores."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import duckdb
import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infertrace.collector.ingest.otlp_senders import Sender, sender_of
from infertrace.collector.store import ledger
from infertrace.collector.store.ledger import Producer, SenderReport
from infertrace.collector.store.resource import stored_resource
from infertrace.collector.store.span_filter import SpanFilter
from infertrace.collector.store.span_rows import merged_rows, span_rows, with_origin
from infertrace.collector.store.store import Batch, Store
from infertrace.generated.span_pb2 import AttributeValue, Span
from postgresql_cluster import kinds
from store_batches import batch_of, new_span

A, B, C = (bytes([number]) * 16 for number in (1, 2, 3))


def sent(*groups: tuple[bytes, Sequence[Span], Mapping[str, int]]) -> Batch:
    """A request with these groups: a sender, its valid spans, and how many others by reason."""
    rows = [
        with_origin(span_rows(spans), uuid.UUID(bytes=sender), None) for sender, spans, _ in groups
    ]
    found = merged_rows(rows)
    reports = [
        SenderReport(sender, f"service-{sender[0]}", len(spans) + sum(bad.values()), bad)
        for sender, spans, bad in groups
    ]
    count = sum(report.span_count for report in reports)
    return Batch(found, count, range(len(found), count), senders=reports)


def accounts(store: Store) -> dict[bytes, tuple[int, int, int, Mapping[str, int]]]:
    return {
        account.producer_id: (
            account.stored,
            account.rejected,
            account.duplicates,
            account.rejected_reasons,
        )
        for account in store.producers(100)
    }


@pytest.fixture
def store(store_url: str, opened: Callable[[str], Store]) -> Store:
    return opened(store_url)


def test_one_request_of_several_senders(store: Store) -> None:
    spans = [new_span() for _ in range(6)]
    store.commit([sent((A, spans[:2], {"bad id": 1}), (B, spans[2:5], {}))])
    assert accounts(store) == {A: (2, 1, 0, {"bad id": 1}), B: (3, 0, 0, {})}
    # The whole request again with one new span, and another request beside it in the group.
    again = sent((A, spans[:2], {"bad id": 1}), (B, spans[2:6], {}))
    other = sent((C, [new_span(), spans[0]], {"cut short": 2}))
    assert store.commit([again, other]) == 6
    assert accounts(store) == {
        A: (2, 2, 2, {"bad id": 2}),
        B: (4, 0, 3, {}),
        C: (1, 2, 1, {"cut short": 2}),
    }
    assert {account.numbered for account in store.producers(100)} == {False}
    found = [row[-2] for row in store.spans(SpanFilter(), 100)]
    assert Counter(found) == {uuid.UUID(bytes=A): 2, uuid.UUID(bytes=B): 4, uuid.UUID(bytes=C): 1}


def test_beside_a_producer_that_numbers_its_spans(store: Store) -> None:
    spans = [new_span(), new_span()]
    store.commit([batch_of(spans, B, 1), sent((A, [new_span(), spans[0]], {}))])
    numbered = {account.producer_id: account.numbered for account in store.producers(100)}
    assert numbered == {A: False, B: True}
    assert accounts(store) == {A: (1, 0, 1, {}), B: (2, 0, 0, {})}


def test_a_request_of_which_nothing_can_be_stored(store: Store) -> None:
    store.commit([sent((A, [], {"bad id": 3}))])
    assert accounts(store) == {A: (0, 3, 0, {"bad id": 3})}


@pytest.mark.parametrize("kind", ["duckdb", *kinds()])
def test_they_outlast_the_store(
    kind: str, opened: Callable[[str], Store], new_store_url: Callable[[str], str]
) -> None:
    store_url = new_store_url(kind)
    store = opened(store_url)
    store.commit([sent((A, [new_span()], {"bad id": 1}))])
    store.checkpoint()
    before = store.producers(10)
    store.close()
    assert opened(store_url).producers(10) == before


@pytest.mark.parametrize("kind", ["duckdb", *kinds()])
def test_a_store_from_before_gets_the_columns(
    kind: str, opened: Any, new_store_url: Callable[[str], str]
) -> None:
    url = new_store_url(kind)
    store = opened(url)
    store.commit([batch_of([new_span()], B, 1)])
    store.checkpoint()
    store.close()
    drop = [f"ALTER TABLE producers DROP COLUMN {n}" for n in ("numbered", "rejected_reasons")]
    if kind == "duckdb":
        with duckdb.connect(url.removeprefix("duckdb:///")) as connection:
            for statement in drop:
                connection.execute(statement)
    else:
        with psycopg.connect(url) as connected:
            for statement in drop:
                connected.execute(statement)
    again = opened(url)
    (old,) = again.producers(10)
    assert (old.numbered, old.rejected_reasons) == (True, {})
    again.commit([sent((A, [new_span()], {"bad id": 1})), batch_of([new_span()], B, 2)])
    again.checkpoint()
    assert accounts(again) == {A: (1, 1, 0, {"bad id": 1}), B: (2, 0, 0, {})}


def test_reasons_are_bounded() -> None:
    account = Producer(A, 0, 0)
    for number in range(2 * ledger.MAX_DROP_REASONS):
        report = SenderReport(A, "s", 3, {f"r{number}": 1, "x" * 999: 1})
        account = account.after_unnumbered(report, duplicates=0, now_ns=1)
    assert len(account.rejected_reasons) == ledger.MAX_DROP_REASONS
    assert max(map(len, account.rejected_reasons)) <= ledger.MAX_NAME_CHARACTERS
    assert (account.stored, account.rejected) == (64, 128)
    assert account.received_count == 3 * 64


def sender(**attributes: str) -> Sender:
    values = {
        key.replace("_", "."): AttributeValue(string_value=value)
        for key, value in attributes.items()
    }
    return sender_of(stored_resource(values))


def test_an_instance_is_one_sender_whatever_else_its_resource_says() -> None:
    one = sender(service_name="s", service_instance_id="1", host_name="a")
    assert one == sender(service_name="s", service_instance_id="1", process_pid="7")
    assert (len(one.id), one.service_name) == (16, "s")
    others = [
        sender(service_name="s", service_instance_id="2", host_name="a"),
        sender(service_name="t", service_instance_id="1", host_name="a"),
        sender(service_name="s", service_namespace="n", service_instance_id="1"),
        sender(service_name="s", host_name="a"),
        sender(service_name="s", host_name="b"),
        sender(service_name="s", service_instance_id="", host_name="a"),
        sender(),
    ]
    assert len({one.id, *(other.id for other in others)}) == 1 + len(others)


@given(st.dictionaries(st.text(), st.one_of(st.text(), st.integers(-(2**63), 2**63 - 1))))
def test_every_resource_names_a_sender(attributes: dict[str, str | int]) -> None:
    values = {
        key: AttributeValue(string_value=value)
        if isinstance(value, str)
        else AttributeValue(int_value=value)
        for key, value in attributes.items()
    }
    found = sender_of(stored_resource(values))
    assert found == sender_of(stored_resource(dict(reversed(values.items()))))
    assert len(found.id) == 16
