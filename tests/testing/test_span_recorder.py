"""What a recorder shows of the spans in memory, and what it leaves alone."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import infertrace
from grpc_receiver import Receiver
from infertrace import current_span
from infertrace.testing import RecordedSpan, SpanRecorder


@pytest.fixture
def recorder(backend: Any) -> Iterator[SpanRecorder]:
    with SpanRecorder() as recorder:
        yield recorder


def test_a_request_and_its_step(recorder: SpanRecorder) -> None:
    tracer = recorder.tracer
    request = tracer.start_span("gpt-4", "chat", token_intervals=[160, 3, 1])
    with tracer.start_step("gpt-4", decode=[request], engine="of a test", step_index=7):
        pass
    request.end()
    step, fields = recorder.one("step"), recorder.one("chat").fields
    assert fields["token_intervals"] == [160, 3, 1]
    assert fields["first_step"] == step.fields["step_index"] == 7


def test_what_a_span_holds(recorder: SpanRecorder) -> None:
    tracer = recorder.tracer
    with tracer.start_span("router", "route") as other:
        pass
    with tracer.start_span("gpt-4", "chat", tags={"user": "u1"}, links=[other]) as span:
        span.set_batch_size(8)
        span.set_cache_hit_rate(0.9)
        span.set_framework("vllm")
        span.set_attribute("cost", 0.25)
        span.set_attribute("count", 2**40)
        span.add_event("scheduled", {"slot": 3})
        span.set_status("ERROR", "no room")
        span.set_batch_size(-1)
    recorded = recorder.one("chat")
    assert (recorded.trace_id, recorded.span_id) == (span.trace_id, span.span_id)
    assert recorded.parent_span_id is None
    assert (recorded.model, recorded.operation) == ("gpt-4", "chat")
    assert recorded.service_name == "tests"
    assert (recorded.status, recorded.status_message) == ("ERROR", "no room")
    assert recorded.start_ns > 0
    assert recorded.duration_ns >= 0
    assert recorded.fields == {"batch_size": 8, "cache_hit_rate": 0.9, "framework": "vllm"}
    assert recorded.tags == {"user": "u1"}
    assert recorded.attributes == {"cost": 0.25, "count": 2**40}
    (event,) = recorded.events
    assert (event.name, event.attributes) == ("scheduled", {"slot": 3})
    assert recorded.start_ns <= event.time_ns <= recorded.start_ns + recorded.duration_ns
    (link,) = recorded.links
    assert (link.trace_id, link.span_id) == (other.trace_id, other.span_id)
    assert recorded.resources == {}
    assert recorded.invalid_fields == 1


def test_a_tree(recorder: SpanRecorder) -> None:
    tracer = recorder.tracer
    with tracer.start_span("gpt-4", "chat"):
        with tracer.start_span(None, "tokenize", input_tokens=7):
            pass
        with (
            pytest.raises(ValueError, match="bad"),
            tracer.start_span("gpt-4", "generate"),
            tracer.start_span("gpt-4", "step"),
        ):
            raise ValueError("bad")
        with tracer.start_span(None, "join"):
            pass
    with tracer.start_span("gpt-4", "chat"):
        pass
    assert recorder.text_tree(fields=["input_tokens"]) == "\n".join(
        [
            "chat gpt-4",
            "├─ tokenize input_tokens=7",
            "├─ generate gpt-4 ERROR: ValueError: bad",
            "│  └─ step gpt-4 ERROR: ValueError: bad",
            "└─ join",
            "chat gpt-4",
        ]
    )
    chat, _ = recorder.roots
    assert [child.operation for child in chat.children] == ["tokenize", "generate", "join"]
    assert all(child.parent is chat for child in chat.children)
    assert chat.parent is None
    (step,) = recorder.find("step")
    assert isinstance(step.parent, RecordedSpan)
    assert step.parent.text_tree().splitlines()[0] == "generate gpt-4 ERROR: ValueError: bad"


def test_a_span_that_has_not_ended_is_not_there_yet(recorder: SpanRecorder) -> None:
    outer = recorder.tracer.start_span("m", "outer")
    recorder.tracer.start_span("m", "inner", parent=outer).end()
    assert recorder.text_tree() == "inner m"
    outer.end()
    assert recorder.text_tree() == "outer m\n└─ inner m"


def test_to_find_spans(recorder: SpanRecorder) -> None:
    for model, operation in (("a", "chat"), ("a", "embed"), ("b", "chat")):
        recorder.tracer.start_span(model, operation).end()
    assert [span.model for span in recorder.find("chat")] == ["a", "b"]
    assert [span.operation for span in recorder.find(model="a")] == ["chat", "embed"]
    assert recorder.find(status="ERROR") == []
    assert recorder.one("chat", model="b").model == "b"
    with pytest.raises(AssertionError, match="expected one span, found 2 among\nchat a\nembed a"):
        recorder.one("chat")
    recorder.clear()
    assert recorder.spans == []


def test_threads_and_tasks(recorder: SpanRecorder) -> None:
    def record() -> None:
        for _ in range(100):
            recorder.tracer.start_span("m", "thread").end()

    threads = [threading.Thread(target=record) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    async def task() -> None:
        async with recorder.tracer.start_span("m", "task"):
            await asyncio.sleep(0)

    async def gather() -> None:
        with recorder.tracer.start_span("m", "gather"):
            await asyncio.gather(task(), task())

    asyncio.run(gather())
    assert len(recorder.find("thread")) == 400
    assert recorder.one("gather").text_tree() == "gather m\n├─ task m\n└─ task m"


def test_more_than_a_buffer_holds(recorder: SpanRecorder) -> None:
    with recorder.tracer.start_span("m") as span:
        for number in range(100):
            span.set_attribute(f"text {number}", "x" * 10_000)
    for _ in range(80):
        with recorder.tracer.start_span("m", attributes=recorder.spans[0].attributes):
            pass
    assert len(recorder.spans) == 81
    assert recorder.tracer.stats()["dropped"] == {}


def test_the_environment_changes_nothing(
    backend: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("INFERTRACE_SAMPLE_RATE", "0")
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    monkeypatch.setenv("INFERTRACE_ENDPOINT", "localhost:1")
    monkeypatch.setenv("INFERTRACE_SPOOL_DIR", str(tmp_path))
    with SpanRecorder() as recorder:
        recorder.tracer.configure(endpoint="localhost:2", service_name="new")
        recorder.tracer.start_span("m").end()
        assert recorder.one().service_name == "new"
    assert not list(tmp_path.iterdir())


def test_a_captured_tracer(recorder: SpanRecorder, new_tracer: Any, receiver: Receiver) -> None:
    tracer = new_tracer(receiver.endpoint)

    @tracer.trace_inference(model="m", operation_name="decorated")
    def run() -> None:
        current_span().set_batch_size(2)

    run()
    assert tracer.flush()
    assert len(receiver.spans) == 1
    recorder.capture(tracer)
    run()
    assert recorder.one("decorated").fields == {"batch_size": 2}
    recorder.close()
    run()
    assert tracer.flush()
    assert len(receiver.spans) == 2
    assert len(recorder.spans) == 1


def test_what_a_captured_tracer_held_before(recorder: SpanRecorder, new_tracer: Any) -> None:
    tracer = new_tracer("localhost:1")
    tracer.start_span("m", "before").end()
    recorder.capture(tracer)
    tracer.start_span("m", "after").end()
    assert recorder.text_tree() == "after m"


def test_spans_of_dead_processes_stay_in_their_spool(
    recorder: SpanRecorder, new_tracer: Any, tmp_path: Path
) -> None:
    dead = new_tracer("localhost:1", spool_dir=tmp_path)
    dead.start_span("m", "left").end()
    assert not dead.shutdown(0)
    (left,) = tmp_path.iterdir()
    tracer = new_tracer("localhost:1", spool_dir=tmp_path, export_interval_s=0.01)
    recorder.capture(tracer)
    for _ in range(20):
        tracer.start_span("m", "own").end()
        assert len(recorder.find("own")) == len(recorder.spans)
    assert left.exists()


def test_spans_are_readable_after_the_end(recorder: SpanRecorder) -> None:
    recorder.tracer.start_span("m").end()
    recorder.close()
    recorder.close()
    assert recorder.one().model == "m"
    recorder.tracer.start_span("m").end()
    assert recorder.tracer.stats()["dropped"] == {"shutdown": 1}


def test_neither_a_process_nor_grpc(backend: Any) -> None:
    program = f"""
import subprocess, sys
import infertrace  # an editable installation may build first
def refuse(*arguments, **keywords):
    raise AssertionError("a process was started")
subprocess.Popen = refuse
from infertrace.testing import SpanRecorder
with SpanRecorder() as recorder:
    recorder.tracer.start_span("m").end()
    assert recorder.one().model == "m"
assert not {{"grpc", "pynvml", "pytest", "pyarrow"}} & set(sys.modules)
assert infertrace.BACKEND == {backend.NAME!r}
"""
    subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "INFERTRACE_BACKEND": backend.NAME},
        check=True,
        timeout=60,
    )


def test_the_package_does_not_load_it() -> None:
    program = "import sys, infertrace; assert 'infertrace.testing' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
    assert "testing" not in infertrace.__all__
