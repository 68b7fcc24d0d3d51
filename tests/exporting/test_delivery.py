"""The delivery of a batch, with a clock that only moves when it waits, and a scripted transport."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import pytest

from infertrace.buffering.batch import Batch
from infertrace.exporting.answer import (
    Answer,
    Disconnected,
    Overloaded,
    Refused,
    Retryable,
    Stumbled,
    TooLarge,
)
from infertrace.exporting.connection import Connection, State
from infertrace.exporting.delivery import Clock, Delivery, OutOfTimeError
from infertrace.exporting.envelope import Request, count_spans
from infertrace.exporting.transport import Transport
from infertrace.generated.span_pb2 import SendSpanBatchRequest, Span

if TYPE_CHECKING:
    from infertrace.buffering.ledger import DropReason

RESOURCE = b"\x3a\x00"

Step = Exception | Callable[[int], Answer]


@pytest.fixture
def sender() -> None:
    """Nothing is sent here."""


class FalseClock(Clock):
    def __init__(self) -> None:
        self.time_s = 1_000.0
        self.waits_s: list[float] = []
        self.at_wait: Callable[[], None] = lambda: None

    def now(self) -> float:
        return self.time_s

    def wait(self, timeout_s: float) -> None:
        self.waits_s.append(timeout_s)
        self.time_s += timeout_s
        self.at_wait()


class ScriptedTransport(Transport):
    """Does one step for each request; then it accepts all."""

    def __init__(self, steps: Iterable[Step]) -> None:
        self.steps = list(steps)
        self.requests: list[SendSpanBatchRequest] = []
        self.timeouts_s: list[float] = []
        self.closed = 0

    def send(self, request: Request, span_count: int, timeout_s: float) -> Answer:
        sent = SendSpanBatchRequest.FromString(b"".join(request))
        assert len(sent.spans) == span_count
        self.requests.append(sent)
        self.timeouts_s.append(timeout_s)
        step = self.steps.pop(0) if self.steps else accept
        if isinstance(step, Exception):
            raise step
        return step(span_count)

    def close(self) -> None:
        self.closed += 1

    def after_fork_in_child(self) -> None: ...


def accept(span_count: int) -> Answer:
    return Answer(span_count, 0, "")


class Source:
    """A recorder that holds batches of these many spans."""

    def __init__(self, sizes: Iterable[int]) -> None:
        self.batches: list[Batch] = []
        self.produced = 0
        for size in sizes:
            spans = [Span(operation_name=str(self.produced + n)) for n in range(size)]
            payload = SendSpanBatchRequest(spans=spans).SerializeToString()
            self.batches.append(Batch(payload, size, self.produced + 1))
            self.produced += size
        self.settled: list[tuple[int, int, int, DropReason]] = []
        self.unencoded = 0

    def take(self, partial: bool = True) -> Batch | None:
        return self.batches.pop(0) if self.batches else None

    def encode_some(self) -> bool:
        self.unencoded = max(self.unencoded - 1, 0)
        return self.unencoded > 0

    def settle(self, batch: Batch, delivered: int, reason: DropReason) -> None:
        self.settled.append((batch.first_span_sequence, batch.span_count, delivered, reason))

    def counts(self) -> tuple[int, int, int, tuple[int, ...], int]:
        return self.produced, 0, 0, (3, 0, 0, 0, 0), 0


class NoSpool:
    is_open = False

    def set_batch_sequence(self, number: int) -> None: ...


class Bench:
    """A delivery, and all that it is given."""

    def __init__(self, sizes: Iterable[int], steps: Iterable[Step] = ()) -> None:
        self.clock = FalseClock()
        self.transport = ScriptedTransport(steps)
        self.source = Source(sizes)
        self.spool = NoSpool()
        self.connection = Connection("there", lambda: self.transport)
        self.delivery = Delivery(
            self.source,
            self.connection,
            self.spool,
            producer_id=b"p",
            resource=RESOURCE,
            clock=self.clock,
            jitter=lambda low, high: high,
        )

    def deliver(self) -> list[tuple[int, int, int, DropReason]]:
        """What became of all spans."""
        while self.delivery.take(partial=True):
            self.delivery.deliver()
        return self.source.settled

    def sizes_sent(self) -> list[int]:
        return [len(request.spans) for request in self.transport.requests]


def test_batches_are_acknowledged_in_order() -> None:
    bench = Bench([2, 3])
    assert bench.deliver() == [(1, 2, 2, "rejected"), (3, 3, 3, "rejected")]
    assert [request.batch_sequence for request in bench.transport.requests] == [1, 2]
    assert [request.first_span_sequence for request in bench.transport.requests] == [1, 3]
    assert bench.transport.requests[0].produced_count == 5
    assert bench.transport.requests[0].dropped_counts == {"buffer_full": 3}
    assert bench.connection.state is State.UP
    assert bench.clock.waits_s == []


def test_the_pause_doubles_up_to_its_bound() -> None:
    bench = Bench([1], [Retryable("down")] * 8)
    assert bench.deliver() == [(1, 1, 1, "rejected")]
    assert bench.clock.waits_s == pytest.approx([0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0, 5.0])


def test_the_collector_says_when_to_come_again() -> None:
    bench = Bench([1], [Retryable("busy", 7.0), Retryable("busy", 1e9), Retryable("busy", 0.0)])
    bench.delivery.request_flush()  # which does not cut such a pause short
    bench.deliver()
    assert bench.clock.waits_s == pytest.approx([7.0, 30.0, 0.8])


def test_a_flush_cuts_a_pause_short() -> None:
    bench = Bench([1], [Retryable("down")] * 3)
    bench.delivery.request_flush()
    bench.deliver()
    assert bench.clock.waits_s == pytest.approx([0.1, 0.1, 0.1])


def test_in_a_pause_it_encodes_in_small_steps() -> None:
    bench = Bench([1], [Retryable("down")])
    bench.source.unencoded = 4
    bench.deliver()
    assert bench.clock.waits_s[:3] == [0.001] * 3
    assert sum(bench.clock.waits_s) == pytest.approx(0.2)


def test_what_is_too_large_is_split_down_to_the_one_that_is() -> None:
    steps = [TooLarge("4"), TooLarge("2"), TooLarge("1")]
    bench = Bench([4], steps)
    assert bench.deliver() == [
        (1, 1, 0, "rejected"),
        (2, 1, 1, "rejected"),
        (3, 2, 2, "rejected"),
    ]
    assert bench.sizes_sent() == [4, 2, 1, 1, 2]
    # The halves are one batch of the producer's.
    assert {request.batch_sequence for request in bench.transport.requests} == {1}
    assert bench.clock.waits_s == []


def test_what_is_refused_is_dropped_at_once() -> None:
    bench = Bench([2, 1], [Refused("never")])
    assert bench.deliver() == [(1, 2, 0, "rejected"), (3, 1, 1, "rejected")]
    assert bench.connection.state is State.UP


@pytest.mark.parametrize(("accepted", "counted"), [(-5, 0), (0, 0), (2, 2), (99, 3)])
def test_an_answer_may_say_any_number(accepted: int, counted: int) -> None:
    bench = Bench([3], [lambda span_count: Answer(accepted, 0, "")])
    assert bench.deliver() == [(1, 3, counted, "rejected")]


@pytest.mark.parametrize(("error", "tries"), [(Stumbled("oh"), 5), (Overloaded("full"), 3)])
def test_what_keeps_failing_is_split(error: Exception, tries: int) -> None:
    bench = Bench([2], [error] * tries)
    assert bench.deliver() == [(1, 1, 1, "rejected"), (2, 1, 1, "rejected")]
    assert bench.sizes_sent() == [2] * tries + [1, 1]


def test_a_span_over_which_the_collector_stumbles_goes_behind_the_others() -> None:
    """It is dropped only where others were accepted in between, and it was not even then."""
    bench = Bench([1, 1], [*[Stumbled("oh")] * 5, accept, *[Stumbled("oh")] * 5])
    assert bench.deliver() == [(2, 1, 1, "rejected"), (1, 1, 0, "rejected")]
    assert bench.connection.state is State.REFUSED


def test_a_collector_that_stumbles_over_everything_costs_nothing() -> None:
    bench = Bench([1, 1], [Stumbled("oh")] * 40)
    assert sorted(bench.deliver()) == [(1, 1, 1, "rejected"), (2, 1, 1, "rejected")]


def test_another_connection_after_one_that_is_of_no_more_use() -> None:
    bench = Bench([1], [Disconnected("gone"), Retryable("down")])
    bench.deliver()
    assert bench.transport.closed == 1


def test_an_error_that_nobody_foresaw_is_retried() -> None:
    bench = Bench([1], [ZeroDivisionError("of a library")])
    assert bench.deliver() == [(1, 1, 1, "rejected")]


@pytest.mark.parametrize("has_spool", [False, True])
def test_the_end_of_a_shutdown(has_spool: bool) -> None:
    bench = Bench([1], [Retryable("down")] * 100)
    bench.spool.is_open = has_spool
    bench.delivery.deadline = bench.clock.now() + 3

    def stop_in_time() -> None:
        bench.delivery.is_stopping = bench.clock.now() >= bench.delivery.deadline

    bench.clock.at_wait = stop_in_time
    assert bench.delivery.take(partial=True)
    bench.delivery.deliver()
    kept = bench.delivery.unacknowledged
    if has_spool:
        assert (len(kept), bench.source.settled) == (1, [])
    else:
        assert (kept, bench.source.settled) == ([], [(1, 1, 0, "shutdown")])
    assert not bench.delivery.take(partial=True)


def test_no_request_outlives_the_shutdown() -> None:
    bench = Bench([1], [Retryable("down")] * 3)
    bench.delivery.deadline = bench.clock.now() + 0.5
    bench.deliver()
    assert bench.transport.timeouts_s == pytest.approx([0.5, 0.3, 0.05, 0.05])


def test_a_borrowed_thread_is_given_back() -> None:
    bench = Bench([1], [Retryable("down")] * 100)
    bench.delivery.caller_deadline = bench.clock.now() + 1
    with pytest.raises(OutOfTimeError):
        bench.deliver()
    assert len(bench.delivery.unacknowledged) == 1
    bench.transport.steps.clear()
    bench.delivery.caller_deadline = float("inf")
    assert bench.deliver() == [(1, 1, 1, "rejected")]


def test_what_a_shutdown_has_counted_is_not_counted_again() -> None:
    bench = Bench([2])

    def abandon(span_count: int) -> Answer:
        bench.delivery.abandon()  # as another thread does while the answer is on its way
        return accept(span_count)

    bench.transport.steps = [abandon]
    assert bench.deliver() == [(1, 2, 0, "shutdown")]


def test_a_batch_that_was_sent_elsewhere() -> None:
    bench = Bench([2])
    (batch,) = bench.source.batches
    bench.delivery.deliver_sent(batch, lambda: Answer(1, 1, "one"))
    assert bench.source.settled == [(1, 2, 1, "rejected")]
    assert bench.transport.requests == []
    bench.delivery.deliver_sent(batch, None)
    assert bench.sizes_sent() == [2]


def test_the_goodbye_is_for_a_collector_that_is_there() -> None:
    bench = Bench([1])
    bench.delivery.say_goodbye()
    assert bench.transport.requests == []
    bench.deliver()
    bench.transport.steps = [Retryable("down")]
    bench.delivery.say_goodbye()
    _, last = bench.transport.requests
    assert (last.final, last.batch_sequence, len(last.spans)) == (True, 2, 0)


def test_the_log_has_a_line_for_each_change(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "infertrace")
    few: Any = lambda span_count: Answer(0, span_count, "no\nroom")  # noqa: E731
    bench = Bench([1] * 4, [*[Retryable("down")] * 3, accept, few, few, Refused("never")])
    bench.deliver()
    assert caplog.messages == [
        "there: cannot deliver spans, will keep trying: down",
        "there: spans are being delivered",
        "there: rejected 1 spans (said once, counted always): no\\nroom",
        "there: spans are refused: never",
    ]


@pytest.mark.parametrize("sizes", [[], [0], [1, 127, 128, 20_000], [0] * 300])
def test_spans_of_an_envelope_are_counted(sizes: list[int]) -> None:
    spans = [Span(operation_name="x" * size) for size in sizes]
    envelope = SendSpanBatchRequest(spans=spans, producer_id=b"\x0a" * 16, batch_sequence=10)
    encoded = envelope.SerializeToString()
    assert count_spans(encoded) == len(sizes)
    for end in range(min(len(encoded), 200)):
        assert count_spans(encoded[:end]) <= len(sizes)
    count_spans(b"\x0a" + b"\xff" * 100)
