"""What a sender knows of those that are gone: whose envelope came, and what need not be sent."""

from __future__ import annotations

import hypothesis
import hypothesis.strategies as st
import pytest

from infertrace.buffering import spool_memory
from infertrace.buffering.batch import Batch
from infertrace.buffering.memory_reader import read_memory
from infertrace.exporting import envelope
from infertrace.exporting.answer import Answer, Refused, Retryable
from infertrace.exporting.envelope import Producer, Request, Sent
from infertrace.exporting.sent_batches import SentBatches
from infertrace.exporting.spool_drain import NOTHING, Drain, Drained, Settled
from infertrace.generated import span_pb2
from infertrace.wire.protobuf import delimited


@pytest.fixture
def sender() -> None:
    """Nothing is sent by a process here."""


ID = bytes(range(1, 17))
SPAN = delimited(b"\x0a", b"")


@hypothesis.given(
    spans=st.lists(st.binary(max_size=200), max_size=8),
    first=st.integers(1, 2**50),
    resource=st.binary(max_size=50),
    producer_id=st.binary(min_size=16, max_size=16),
    likely=st.sampled_from([b"", ID, None]),
)
def test_whose_envelope_it_is(
    spans: list[bytes], first: int, resource: bytes, producer_id: bytes, likely: bytes | None
) -> None:
    payload = b"".join(delimited(b"\x0a", span) for span in spans)
    producer = Producer(producer_id, 5, 9, {"rejected": 3}, delimited(b"\x3a", resource))
    likely_id = producer_id if likely is None else likely
    made = b"".join(envelope.encode(payload, first, producer))
    assert envelope.read_sender(made, likely_id) == Sent(producer_id, first, False)
    (goodbye,) = envelope.goodbye(producer)
    assert envelope.read_sender(goodbye, likely_id) == Sent(producer_id, 0, True)


@hypothesis.given(content=st.binary(max_size=200))
def test_whatever_else_it_is(content: bytes) -> None:
    envelope.read_sender(content)
    envelope.read_sender(content, ID)


def drained(settled: Settled, *, fails: int = 0) -> tuple[Drained, list[int], dict[str, int]]:
    """Of ten spans; the numbers that were sent, and what was said of the others at the end."""
    memory = spool_memory.write_memory(
        [Batch(SPAN * 10, 10, 1)],
        producer_id=ID,
        resource=b"",
        batch_sequence=1,
        last_sequence=10,
        dropped={},
    )
    left = read_memory(memory, "a test")
    drain = Drain(left, max_batch_bytes=2 * len(SPAN), settled=settled)
    sent: list[int] = []
    said: dict[str, int] = {}

    def send(request: Request, span_count: int) -> Answer:
        nonlocal fails
        if fails:
            fails -= 1
            raise Retryable("later")
        read = span_pb2.SendSpanBatchRequest.FromString(b"".join(request))
        numbers = range(read.first_span_sequence, read.first_span_sequence + span_count)
        if 5 in numbers:
            raise Refused("never")
        sent.extend(numbers)
        said.clear()
        said.update(read.dropped_counts)
        return Answer(span_count, 0, "")

    while True:
        try:
            outcome = drain.run(send)
        except Retryable:
            continue
        left.close()
        return outcome, sent, said


@pytest.mark.parametrize("fails", [0, 3])
def test_all_of_it(fails: int) -> None:
    outcome, sent, said = drained(NOTHING, fails=fails)
    assert outcome == Drained(8, 2, 0)
    assert sent == [1, 2, 3, 4, 7, 8, 9, 10]
    assert said == {"rejected": 2}


def test_what_has_arrived_is_not_sent_again() -> None:
    outcome, sent, said = drained(Settled(range(1, 4), 2))
    assert outcome == Drained(2 + 5, 1 + 2, 0)
    assert sent == [6, 7, 8, 9, 10] or sent == [4, *range(7, 11)]
    assert said == {"rejected": 3}


def test_the_last_batch_of_each_producer() -> None:
    sent = SentBatches()
    batch = Sent(ID, 8, False)
    sent.begin(batch)
    sent.end(batch, 3, Answer(2, 1, ""))
    assert sent.last_of(ID) == Settled(range(8, 11), 2)
    later = Sent(ID, 11, False)
    sent.begin(later)
    sent.end(later, 3, None)  # nobody knows what became of it
    assert sent.last_of(ID) == Settled(range(8, 11), 2)
    assert sent.last_of(bytes(16)) == NOTHING
    assert sent.mark_ended(ID)
    assert not sent.mark_ended(ID)
    other = Sent(bytes(16), 0, True)
    sent.begin(other)
    sent.end(other, 0, Answer(0, 0, ""))
    assert not sent.mark_ended(bytes(16))
