"""The exporter's thread goes on, whatever happens on it, and says so once."""

from __future__ import annotations

import ctypes
import logging
import threading
import time
from typing import Any

import pytest

from grpc_receiver import Receiver
from infertrace.exporting.own_spool import OwnSpool
from infertrace.resources.process import ProcessMeter
from traced_program import wait_until


@pytest.mark.parametrize("error", [MemoryError, ValueError, OSError])
def test_an_unforeseen_error_stops_nothing(
    tracer: Any,
    receiver: Receiver,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    error: type[Exception],
) -> None:
    def fail(self: Any, send: Any) -> None:
        raise error("a\nb")

    with monkeypatch.context() as patch, caplog.at_level(logging.ERROR, "infertrace"):
        patch.setattr(OwnSpool, "deliver_leftovers", fail)
        tracer.start_span("m").end()
        wait_until(lambda: tracer.stats()["thread_failures"] >= 2)
    for _ in range(10):
        tracer.start_span("m").end()
    assert tracer.flush(60)
    assert tracer.stats()["delivered"] == 11
    (said,) = caplog.messages
    assert "the exporter's thread goes on after an error" in said
    assert "\n" not in said


def test_a_sampler_that_cannot_read_goes_on(
    new_tracer: Any,
    receiver: Receiver,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(self: Any) -> None:
        raise MemoryError

    with monkeypatch.context() as patch, caplog.at_level(logging.ERROR, "infertrace"):
        patch.setattr(ProcessMeter, "read", fail)
        tracer = new_tracer(receiver.endpoint, resource_interval_s=0.01)
        wait_until(lambda: tracer.stats()["thread_failures"] >= 2)
    (said,) = caplog.messages
    assert said.startswith("GPU and process could not be read")
    wait_until(lambda: tracer._recorder.sample is not None)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_is_ended_is_replaced(
    tracer: Any, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    """As a debugger or a library does that raises SystemExit in other threads."""
    tracer.start_span("m").end()
    assert tracer.flush(60)
    with caplog.at_level(logging.ERROR, "infertrace"):
        thread = exporter_thread(tracer)
        ctypes.pythonapi.PyThreadState_SetAsyncExc(
            ctypes.c_ulong(thread.ident or 0), ctypes.py_object(SystemExit)
        )
        tracer.flush(0.1)
        wait_until(lambda: tracer.stats()["thread_failures"] > 0 or not nudged(tracer))
        wait_until(lambda: not thread.is_alive())
    for _ in range(10):
        tracer.start_span("m").end()
    assert tracer.flush(60)
    assert tracer.stats()["delivered"] >= 11
    assert exporter_thread(tracer) is not thread
    assert "was ended from outside" in caplog.messages[0]


def exporter_thread(tracer: Any) -> threading.Thread:
    """Not by its name: a tracer of the test before may be leaving yet."""
    thread: threading.Thread | None = tracer._exporter._thread._thread
    assert thread is not None
    return thread


def nudged(tracer: Any) -> bool:
    """Let the thread run some of its Python code, in which such an exception is raised."""
    tracer.start_span("m").end()
    return bool(tracer.flush(1))


def test_two_that_start_it_at_once_start_one(
    new_tracer: Any, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[threading.Thread] = []
    start = threading.Thread.start

    def slow_start(thread: threading.Thread) -> None:
        if thread.name == "infertrace-exporter":
            started.append(thread)
            time.sleep(0.2)  # a chance for the others
        start(thread)

    tracer = new_tracer(receiver.endpoint)
    monkeypatch.setattr(threading.Thread, "start", slow_start)
    others = [threading.Thread(target=lambda: tracer.flush(60)) for _ in range(8)]
    span = tracer.start_span("m")
    others.append(threading.Thread(target=span.end))
    for other in others:
        start(other)
    for other in others:
        other.join()
    assert tracer.flush(60)
    assert len(started) == 1
    assert len(receiver.spans) == 1


@pytest.mark.parametrize("moment", ["before it starts", "while it waits for the thread"])
def test_a_start_that_is_interrupted(
    new_tracer: Any, receiver: Receiver, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """A signal handler raises on the recording thread, and the thread may run all the same."""
    start = threading.Thread.start

    def interrupted(thread: threading.Thread) -> None:
        if moment != "before it starts":
            start(thread)
        raise KeyboardInterrupt

    tracer = new_tracer(receiver.endpoint)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", interrupted)
        with pytest.raises(KeyboardInterrupt):
            tracer.start_span("m").end()
    for _ in range(1_000):
        tracer.start_span("m").end()
    wait_until(lambda: tracer.stats()["delivered"] == 1_001)  # without a flush
    for _ in range(1_000):
        tracer.start_span("m").end()
    assert tracer.flush(60)
    assert len({span.span_id for span in receiver.spans}) == len(receiver.spans) == 2_001
    assert exporter_thread(tracer).is_alive()


def test_the_first_wrong_value_of_each_kind_is_named(
    new_tracer: Any, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    tracer = new_tracer(receiver.endpoint)
    kind = type("Unseen", (), {})
    with caplog.at_level(logging.WARNING, "infertrace"):
        for _ in range(3):
            with tracer.start_span(kind()) as span:
                span.set_tag("user", kind())
                span.set_attribute("cost", kind())
                span.set_batch_size(kind())
                span.set_cache_hit_rate(kind())
                span.set_status(kind())
                span.add_link(kind())
                span.add_event("e", {"key": kind()})
                span.add_event(kind())
            span.set_tokens(input=kind())
            tracer.record("m", start_ns=time.perf_counter_ns(), duration_ns=kind())
        assert tracer.flush(60)
        expected = {
            "model_name: expected a text of at most 32768 bytes",
            "tag 'user': expected a text of at most 32768 bytes",
            "attribute 'cost': expected a bool, a 64-bit integer, a finite float, or a text",
            "attribute 'key': expected a bool, a 64-bit integer, a finite float, or a text",
            "batch_size: expected an integer from 0 to 2147483647",
            "cache_hit_rate: expected a number from 0 to 1",
            "status: expected OK, ERROR or CANCELLED",
            "link: expected a span, or the traceparent of one",
            "event: expected a text of 1 to 32768 bytes",
            "input_tokens: expected an integer from 0 to 2147483647",
        }
        wait_until(lambda: len(caplog.messages) >= len(expected) - 1)
    about_it = [line for line in caplog.messages if "got a value of type 'Unseen'" in line]
    for start in expected:
        # Of the attributes, one stands for both: they are of one kind.
        alike = "attribute '" if start.startswith("attribute") else start
        assert len([line for line in about_it if line.startswith(alike)]) == 1, start
    assert tracer.stats()["invalid_fields"] == 3 * 10


def test_values_are_in_no_notice(
    new_tracer: Any, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    tracer = new_tracer(receiver.endpoint)
    kind = type("prompt\n\x1b[31m", (str,), {})
    with caplog.at_level(logging.DEBUG, "infertrace"):
        with tracer.start_span("m") as span:
            span.set_status(kind("my secret prompt"))
            span.set_batch_size(kind("my secret prompt"))
        assert tracer.flush(60)
        wait_until(lambda: any("batch_size" in line for line in caplog.messages))
    assert "secret" not in caplog.text
    assert all(line.isprintable() for line in caplog.messages)
