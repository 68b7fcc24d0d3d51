"""A collector that is absent, down, slow, hung, half-open or cut off: nothing is lost."""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest

from backend_recording import KIB, assert_closed
from collector_process import CollectorProcess
from grpc_receiver import Receiver
from lasting_address import lasting_address
from spoken_protocol import Spoken
from tcp_proxy import TcpProxy
from traced_program import wait_until

pytestmark = pytest.mark.usefixtures("sender")


def test_the_collector_comes_late(
    new_tracer: Any, new_receiver: Callable[..., Receiver], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "infertrace")
    endpoint = lasting_address()
    tracer = new_tracer(endpoint)
    for _ in range(100):
        tracer.start_span("m").end()
    assert not tracer.flush(0.5)
    wait_until(lambda: bool(caplog.records))
    assert tracer.stats()["pending"] == 100
    receiver = new_receiver(endpoint)
    assert tracer.flush(30)
    assert len(receiver.spans) == 100
    assert_closed(tracer.stats())
    lines = [record.message for record in caplog.records if record.name == "infertrace"]
    assert len(lines) == 2, lines  # not one for each failure
    assert "cannot deliver spans" in lines[0]
    assert lines[1].endswith("spans are being delivered")


def test_the_collector_goes_and_comes_back(
    new_tracer: Any, new_receiver: Callable[..., Receiver]
) -> None:
    first = new_receiver()
    tracer = new_tracer(first.endpoint)
    tracer.start_span("m", "before").end()
    assert tracer.flush()
    first.stop()
    for _ in range(50):
        tracer.start_span("m", "during").end()
    assert not tracer.flush(0.3)
    second = new_receiver(first.endpoint)
    assert tracer.flush(30)
    assert len(second.spans) == 50
    stats = tracer.stats()
    assert stats["delivered"] == 51
    assert stats["dropped"] == {}


def test_flush_and_shutdown_keep_one_deadline(new_tracer: Any, hung: str, sender: str) -> None:
    tracer = new_tracer(hung)
    for _ in range(100):
        tracer.start_span("m").end()
    began = time.monotonic()
    assert not tracer.flush(0.5)
    is_handed_over = sender == "shared sender"
    assert tracer.shutdown(0.5) == is_handed_over
    # Not a speed: the gRPC call in flight may wait 10 s, its queue for ever.
    assert time.monotonic() - began < 5
    stats = tracer.stats()
    assert stats["pending"] == stats["handed_over"] == (100 if is_handed_over else 0)
    assert stats["dropped"] == ({} if is_handed_over else {"shutdown": 100})


def test_overflow_while_the_collector_hangs(new_tracer: Any, hung: str) -> None:
    tracer = new_tracer(hung, max_buffer_bytes=64 * KIB, max_batch_bytes=16 * KIB)
    for _ in range(5_000):
        tracer.start_span("m").end()
    stats = tracer.stats()
    assert stats["produced"] == 5_000
    assert stats["dropped"]["buffer_full"] > 0
    assert_closed(stats)
    tracer.shutdown(0)
    assert_closed(tracer.stats())
    assert tracer.stats()["pending"] == 0


def test_a_half_open_connection_is_noticed(
    new_tracer: Any, receiver: Receiver, proxy: TcpProxy
) -> None:
    """As after a pulled cable: no answer, no reset. The next request dials anew."""
    tracer = new_tracer(proxy.endpoint, timeout_s=0.5)
    tracer.start_span("m").end()
    assert tracer.flush(30)
    proxy.go_silent()
    tracer.start_span("m").end()
    assert tracer.flush(30)
    assert proxy.connections == 2
    assert_closed(tracer.stats())
    assert tracer.stats()["delivered"] == 2


def test_a_connection_that_is_reset(new_tracer: Any, receiver: Receiver, proxy: TcpProxy) -> None:
    tracer = new_tracer(proxy.endpoint)
    for number in range(5):
        tracer.start_span("m").end()
        assert tracer.flush(30)
        proxy.reset()
        assert tracer.stats()["delivered"] == number + 1
    assert len({span.span_id for span in receiver.spans}) == 5


def test_reset_after_commit_and_before_the_answer(
    new_tracer: Any, receiver: Receiver, proxy: TcpProxy
) -> None:
    """The collector has the batch, but the producer sends it again: it counts once."""
    accept = receiver.answer

    def commit_and_break(*request: Any) -> Any:
        answer = accept(*request)
        receiver.answer = accept
        proxy.reset()
        return answer

    receiver.answer = commit_and_break
    tracer = new_tracer(proxy.endpoint)
    tracer.start_span("m").end()
    assert tracer.flush(30)
    assert tracer.stats()["delivered"] == 1
    assert len(receiver.spans) == 2
    assert len({span.span_id for span in receiver.spans}) == 1


@pytest.mark.parametrize("sender", ["sender process"], indirect=True)
@pytest.mark.parametrize("outage", ["killed", "stopped"])
def test_an_outage_of_a_collector_loses_nothing(
    new_tracer: Any,
    new_collector: Callable[..., CollectorProcess],
    outage: str,
    spoken: Spoken,
) -> None:
    """Both backends hold as many spans as fit into the buffer encoded."""
    collector = new_collector(**spoken.options)
    tracer = new_tracer(spoken.endpoint(collector), protocol=spoken.protocol)
    tracer.start_span("m").end()
    assert tracer.flush(30)
    if outage == "killed":
        collector.kill()
    else:
        collector.send_signal(signal.SIGSTOP)
    for _ in range(100):
        for _ in range(200):
            tracer.start_span("m").end()
        time.sleep(0.05)  # the exporter has its turn, on a busy machine too
        assert_closed(tracer.stats())
    assert (tracer.stats()["pending"], tracer.stats()["dropped"]) == (20_000, {})
    if outage == "killed":
        collector = new_collector(collector.endpoint, **spoken.options)
    else:
        collector.send_signal(signal.SIGCONT)
    assert tracer.flush(60)
    stats = tracer.stats()
    assert (stats["delivered"], stats["dropped"]) == (20_001, {})
    assert_closed(stats)
    (account,) = collector.producers()
    assert account["stored"] == 20_001
    assert account["produced"] == (20_001 if account["numbered"] else None)


@pytest.mark.parametrize("sender", ["sender process"], indirect=True)
def test_a_slow_connection(new_tracer: Any, receiver: Receiver, proxy: TcpProxy) -> None:
    """One KB a second: some spans are delivered, the rest wait, and recording never waits."""
    proxy.bytes_per_s = 1_000
    tracer = new_tracer(proxy.endpoint, max_batch_bytes=4 * KIB)
    for _ in range(10):
        tracer.start_span("m").end()
    assert tracer.flush(30)
    for _ in range(1_000):
        tracer.start_span("m").end()
    assert not tracer.flush(0.5)
    stats = tracer.stats()
    assert stats["pending"] > 900
    assert_closed(stats)
    proxy.bytes_per_s = None
    assert tracer.flush(60)
    assert tracer.stats()["delivered"] == 1_010
    assert len({span.span_id for span in receiver.spans}) == 1_010
