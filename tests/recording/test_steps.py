"""Steps of an engine, and the requests that are in them."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import threading
import time
import weakref
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend_recording import Recording, available_backends
from infertrace import backend as backends
from infertrace.generated import span_pb2
from infertrace.wire import token_intervals

START_NS = 1_700_000_000 * 10**9
STEP_NS = 20_000_000


@pytest.fixture
def engine(request: pytest.FixtureRequest) -> str:
    """An engine that no other test has."""
    return str(request.node.nodeid)


def sent_by_name(recording: Recording) -> tuple[list[Any], dict[str, Any]]:
    """The steps in order, and the requests by their ids."""
    spans = recording.take_all()
    steps = [span for span in spans if span.operation_name == "step"]
    return steps, {s.inference.request_id: s for s in spans if s.operation_name != "step"}


def test_a_step_and_its_members(recording: Recording, engine: str) -> None:
    one = recording.start_span("m", request_id="one", input_tokens=5)
    two = recording.start_span("m", request_id="two")
    for _ in range(3):
        with recording.recorder.start_step(
            "m", prefill=[(one, 2)], decode=[two], capacity=8, engine=engine
        ) as step:
            assert step.is_recording
            assert one.token_count in (0, 1)
    with recording.recorder.start_step("m", decode=[one, (two, 3)], engine=engine, queue_depth=4):
        pass
    one.end()
    two.end()
    steps, requests = sent_by_name(recording)
    assert [step.inference.step_index for step in steps] == [1, 2, 3, 4]
    first, last = steps[0].inference, steps[-1].inference
    assert (first.batch_size, first.batch_fill_ratio, first.engine) == (2, 0.25, engine)
    assert (first.prefill_tokens, first.decode_tokens) == (2, 1)
    assert (last.prefill_tokens, last.decode_tokens, last.batch_size) == (0, 4, 2)
    assert last.HasField("prefill_tokens")
    assert not last.HasField("batch_fill_ratio")
    assert last.queue_depth == 4
    found = requests["one"].inference
    assert (found.engine, found.first_step, found.last_step, found.step_count) == (engine, 1, 4, 4)
    assert found.output_tokens == 2  # the third step read the last of its five tokens
    found = requests["two"].inference
    assert (found.first_step, found.last_step, found.step_count) == (1, 4, 4)
    assert found.output_tokens == 6
    assert sum(found.token_intervals.counts) == 3


def test_tokens_come_at_the_end_of_the_step(recording: Recording, engine: str) -> None:
    request = recording.start_span("m", request_id="r")
    for _ in range(2):
        with recording.recorder.start_step("m", decode=[request], engine=engine):
            time.sleep(0.002)
    request.end()
    steps, requests = sent_by_name(recording)
    sent = requests["r"]
    ends = [step.start_time_unix_nano + step.duration_nanos for step in steps]
    first_ms = (ends[0] - sent.start_time_unix_nano) / 1e6
    assert sent.inference.time_to_first_token_ms == pytest.approx(first_ms)
    assert sent.inference.max_inter_token_latency_ms == pytest.approx((ends[1] - ends[0]) / 1e6)


def test_a_request_that_was_preempted(recording: Recording, engine: str) -> None:
    request = recording.start_span("m", request_id="r", input_tokens=4)
    other = recording.start_span("m", request_id="o")
    start = recording.recorder.start_step
    for members in (
        {"prefill": [(request, 4)]},
        {"decode": [request]},
        {"decode": [other]},
        {"prefill": [(request, 4)]},  # reads its input and what it has generated again
        {"prefill": [(request, 2)]},
        {"decode": [request]},
    ):
        with start("m", engine=engine, **members):
            pass
    request.set_request(preemption_count=1)
    request.end()
    _, requests = sent_by_name(recording)
    found = requests["r"].inference
    assert (found.first_step, found.last_step, found.step_count) == (1, 6, 5)
    assert found.output_tokens == 4
    assert found.preemption_count == 1
    other.end()


@pytest.mark.parametrize(
    ("fields", "items", "tokens"),
    [
        ({}, [(3,)], 1),
        ({"input_tokens": 6}, [(3,), (2,)], 0),
        ({"input_tokens": 6}, [(3,), (3,)], 1),
        ({"input_tokens": 6, "cached_input_tokens": 4}, [(2,)], 1),
        ({"input_tokens": 6}, [(3, True)], 1),
        ({"input_tokens": 6}, [(6, False)], 0),
        ({}, [(3, False), (3, True)], 1),
    ],
)
def test_when_the_input_is_read(
    recording: Recording, engine: str, fields: dict[str, int], items: list[Any], tokens: int
) -> None:
    request = recording.start_span("m", **fields)
    for item in items:
        with recording.recorder.start_step("m", prefill=[(request, *item)], engine=engine):
            pass
    assert request.token_count == tokens
    request.end()
    assert recording.take_all()[-1].inference.step_count == len(items)


def test_a_request_that_moves_to_another_engine(recording: Recording, engine: str) -> None:
    request = recording.start_span("m", request_id="r")
    for name in ("p", "d", "d"):
        with recording.recorder.start_step("m", decode=[request], engine=engine + name):
            pass
    request.end()
    found = sent_by_name(recording)[1]["r"].inference
    assert (found.engine, found.first_step, found.last_step) == (f"{engine}d", 1, 2)
    assert (found.step_count, found.output_tokens) == (2, 3)


def test_a_failed_step_gives_no_tokens(recording: Recording, engine: str) -> None:
    request = recording.start_span("m", request_id="r")
    with (
        pytest.raises(ValueError, match="out of memory"),
        recording.recorder.start_step("m", decode=[request], engine=engine),
    ):
        raise ValueError("out of memory")
    request.end()
    steps, requests = sent_by_name(recording)
    assert steps[0].status == "ERROR"
    assert requests["r"].inference.step_count == 1
    assert not requests["r"].inference.HasField("output_tokens")


def test_a_step_without_members(recording: Recording, engine: str) -> None:
    with recording.recorder.start_step("m", engine=engine, batch_size=6, capacity=8):
        pass
    inference = recording.take_one().inference
    assert (inference.batch_size, inference.batch_fill_ratio) == (6, 0.75)
    assert not inference.HasField("prefill_tokens")
    assert not inference.HasField("decode_tokens")


def test_what_its_user_says_counts(recording: Recording, engine: str) -> None:
    request = recording.start_span("m")
    given = {
        "batch_size": 9,
        "batch_fill_ratio": 0.5,
        "prefill_tokens": 7,
        "decode_tokens": 8,
        "step_index": 2**40,
        "kv_cache_usage": 0.25,
    }
    with recording.recorder.start_step("m", decode=[request], capacity=12, engine=engine, **given):
        pass
    inference = recording.take_one().inference
    assert {name: getattr(inference, name) for name in given} == given
    request.end()
    assert recording.take_one().inference.last_step == 2**40


def test_the_members_are_those_of_the_begin(recording: Recording, engine: str) -> None:
    one, two = recording.start_span("m"), recording.start_span("m")
    running = [one]
    with recording.recorder.start_step("m", decode=running, engine=engine):
        running[:] = [two]
    assert (one.token_count, two.token_count) == (1, 0)
    one.end()
    two.end()
    assert [span.inference.batch_size for span in recording.take_all()] == [1, 0, 0]


def test_members_that_have_ended_or_are_not_recorded(
    recording: Recording, backend: Any, engine: str
) -> None:
    ended = recording.start_span("m")
    ended.end()
    live = recording.start_span("m")
    members = [ended, backend.NOOP, live]
    prefill = [(ended, 3), (backend.NOOP, 4)]
    with recording.recorder.start_step("m", prefill=prefill, decode=members, engine=engine):
        pass
    live.end()
    steps, _ = sent_by_name(recording)
    assert steps[0].inference.batch_size == 5
    assert steps[0].inference.prefill_tokens == 7
    assert steps[0].invalid_field_count == 0
    assert live.token_count == 1
    assert recording.recorder.counts()[4] == 0


class Hostile:
    """What raises whatever is asked of it."""

    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError(name)

    def __iter__(self) -> Any:
        raise RuntimeError("iter")


@pytest.mark.parametrize(
    ("members", "invalid"),
    [
        ({"decode": [None, "x", 7, Hostile()]}, 4),
        ({"decode": 7}, 1),
        ({"decode": Hostile(), "prefill": Hostile()}, 2),
        ({"prefill": [Hostile(), (), (None, 3), ("x", 3, True)]}, 4),
        ({"decode": [], "capacity": 0}, 1),
        ({"decode": [], "capacity": "x"}, 1),
        ({"decode": [], "capacity": -1}, 1),
        ({"batch_size": 9, "capacity": 8}, 1),
        ({"batch_size": -1}, 1),
    ],
)
def test_wrong_values_are_counted(
    recording: Recording, engine: str, members: dict[str, Any], invalid: int
) -> None:
    with recording.recorder.start_step("m", engine=engine, **members):
        pass
    sent = recording.take_one()
    assert sent.invalid_field_count == invalid
    assert 0 <= sent.inference.batch_fill_ratio <= 1


@pytest.mark.parametrize("tokens", [-1, 2**31, 1.5, "x", None, True])
def test_wrong_numbers_of_tokens_are_counted(
    recording: Recording, engine: str, tokens: Any
) -> None:
    request = recording.start_span("m")
    prefill, decode = [(request, tokens)], [(request, tokens), (request, 1, 2)]
    with recording.recorder.start_step("m", prefill=prefill, decode=decode, engine=engine):
        pass
    assert recording.take_one().invalid_field_count == 3
    assert request.token_count == 0
    request.end()


def test_unknown_keywords_are_errors(recording: Recording) -> None:
    with pytest.raises(TypeError, match=r"start_step\(\) got an unexpected keyword .*'decoed'"):
        recording.recorder.start_step("m", decoed=[])
    with pytest.raises(TypeError, match=r"start_span\(\) got an unexpected keyword .*'decode'"):
        recording.start_span("m", decode=[])
    with pytest.raises(TypeError, match="start_step"):
        recording.recorder.start_step("m", "step", 3)
    with recording.recorder.start_step(
        "m", "prefill", **{"".join(("dec", "ode")): []}, tags={"a": "b"}
    ):
        pass
    sent = recording.take_one()
    assert (sent.operation_name, dict(sent.tags)) == ("prefill", {"a": "b"})
    assert sent.inference.HasField("decode_tokens")


def test_a_step_that_is_not_recorded_gives_its_members_their_tokens(
    recording: Recording, engine: str
) -> None:
    request = recording.start_span("m", request_id="r")
    recording.recorder.set_sample_rate(0)
    start = recording.recorder.start_step
    with start("m", decode=[request], engine=engine) as step:
        assert not step.is_recording
        assert not recording.start_span("m").is_recording
    step = start("m", decode=[(request, 2)], engine=engine)
    step.end()
    step.end()

    async def main() -> None:
        async with start("m", prefill=[(request, 2)], engine=engine):
            pass

    asyncio.run(main())
    with pytest.raises(ValueError, match="x"), start("m", decode=[request], engine=engine):
        raise ValueError("x")
    request.end()
    found = recording.take_one().inference
    assert (found.first_step, found.last_step, found.step_count) == (1, 4, 4)
    assert found.output_tokens == 4


def test_when_the_tracer_is_off(recording: Recording, backend: Any) -> None:
    request = recording.start_span("m")
    recording.recorder.enabled = False
    with recording.recorder.start_step("m", decode=[request]) as step:
        assert step is backend.NOOP
    request.end()
    assert recording.take_one().inference.step_count == 0


def test_a_step_can_do_what_a_span_can(recording: Recording, engine: str) -> None:
    with recording.start_span("m", "loop") as loop:
        with recording.recorder.start_step("m", engine=engine) as step:
            step.set_step(kv_cache_usage=0.5)
            step.set_tag("a", "b")
            child = recording.start_span("m", "forward")
            child.end()
        assert child.parent_span_id == step.span_id
        assert step.parent_span_id == loop.span_id
    sent = recording.take_all()[1]
    assert sent.inference.kv_cache_usage == 0.5


def test_members_on_other_threads(recording: Recording, engine: str) -> None:
    """Each of many threads has a request; one loop steps them all."""
    begun, stop = threading.Barrier(9), threading.Event()
    requests: list[Any] = []

    def serve() -> None:
        with recording.start_span("m", request_id="r") as request:
            requests.append(request)
            begun.wait()
            stop.wait()

    threads = [threading.Thread(target=serve) for _ in range(8)]
    for thread in threads:
        thread.start()
    begun.wait()
    for number in range(200):
        with recording.recorder.start_step("m", decode=requests, engine=engine):
            if number == 100:
                stop.set()
                threads[0].join()
    for thread in threads:
        thread.join()
    spans = [span for span in recording.take_all() if span.operation_name != "step"]
    assert len(spans) == 8
    for span in spans:
        found = span.inference
        assert found.output_tokens == found.step_count == found.last_step <= 200
        assert found.first_step == 1


BEYOND_THE_LIMIT = """
import sys
from backend_recording import Recording
from infertrace import backend
from infertrace.recording import serving_defaults

recording = Recording(backend.selected)
for number in range(serving_defaults.MAX_ENGINES):
    recording.recorder.start_step("m", engine=str(number)).end()
recording.take_all()
request = recording.start_span("m")
with recording.recorder.start_step("m", decode=[request], engine="x"):
    pass
request.end()
step, sent = recording.take_all()
assert step.invalid_field_count == 1
assert not step.inference.HasField("step_index")
assert not sent.inference.HasField("last_step")
assert sent.inference.output_tokens == 1
"""


def test_engines_beyond_the_limit(backend: Any) -> None:
    """In a process of its own, whose engines stay numbered."""
    environ = {**os.environ, "INFERTRACE_BACKEND": backend.NAME}
    environ["PYTHONPATH"] = str(Path(__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-c", BEYOND_THE_LIMIT],
        env=environ,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="Windows has no fork")
def test_a_forked_child_counts_anew(recording: Recording) -> None:
    def index() -> int:
        recording.recorder.start_step("m", engine="of a child").end()
        return int(recording.take_all()[-1].inference.step_index)

    index()
    read, write = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.write(write, b"%d" % index())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    assert os.read(read, 16) == b"1"
    os.close(read)
    os.close(write)


def test_a_step_lets_its_members_go(recording: Recording, engine: str) -> None:
    class Marker(list[Any]):
        pass

    marker = Marker()
    gone = weakref.ref(marker)
    request = recording.start_span("m")
    step = recording.recorder.start_step("m", decode=[request, marker], engine=engine)
    del marker
    assert gone() is not None
    step.end()
    gc.collect()
    assert gone() is None
    request.end()


STEPS = st.lists(
    st.tuples(
        st.integers(0, 2**20) | st.integers(0, 10**9) | st.integers(-(10**6), 2**36),
        st.sampled_from([1, 1, 1, 2, 3]),
        st.sampled_from(["OK", "OK", "OK", "OK", "ERROR"]),
        st.booleans(),
    ),
    max_size=40,
)


def drive(recording: Recording, request: Any, begin_ns: int, drawn: list[Any], engine: str) -> None:
    now_ns = begin_ns
    for number, (interval_ns, tokens, status, reads) in enumerate(drawn):
        now_ns += interval_ns
        recording.recorder.record_step(
            "m",
            start_ns=now_ns,
            duration_ns=0,
            status=status,
            engine=engine,
            step_index=number + 1,
            **({"prefill": [(request, tokens)]} if reads else {"decode": [(request, tokens)]}),
        )


def payload(recording: Recording) -> bytes:
    batch = recording.recorder.take()
    assert batch is not None
    recording.recorder.settle(batch, batch.span_count, "rejected")
    return bytes(batch.payload)


@pytest.mark.skipif(len(available_backends()) < 2, reason="a pure installation has one backend")
@given(STEPS, st.fixed_dictionaries({}, optional={"input_tokens": st.integers(0, 9)}))
def test_both_backends_write_the_same_bytes(drawn: list[Any], fields: dict[str, int]) -> None:
    native, twin = (Recording(backends.select(name)) for name in ("native", "pure"))
    for recording in (native, twin):
        recording.recorder.anchor = 1_700_000_000 * 10**9
    begin_ns = native.recorder.anchor + time.monotonic_ns()
    request = native.start_span("m", **fields)
    drive(native, request, begin_ns, drawn, "e")
    native.take_all()
    request.end()
    written = payload(native)
    sent = span_pb2.SendSpanBatchRequest.FromString(written).spans[0]

    request = twin.start_span("m", **fields)
    request._start = sent.start_time_unix_nano - twin.recorder.anchor
    request._trace_id = int.from_bytes(sent.trace_id, "big")
    request._span_id = int.from_bytes(sent.span_id, "big")
    drive(twin, request, begin_ns, drawn, "e")
    twin.take_all()
    request.end()
    request._ended = request._start + sent.duration_nanos
    assert payload(twin) == written


@given(st.lists(st.integers(1, 2**30) | st.integers(10**6, 2**32), min_size=1, max_size=60))
@pytest.mark.parametrize("name", available_backends())
def test_the_histogram_holds_every_interval(name: str, intervals_ns: list[int]) -> None:
    recording = Recording(backends.select(name))
    request = recording.start_span("m")
    drawn = [(interval_ns, 1, "OK", False) for interval_ns in (0, *intervals_ns)]
    drive(recording, request, time.time_ns(), drawn, "e")
    request.end()
    found = recording.take_all()[-1].inference
    buckets = Counter(map(token_intervals.bucket_of, intervals_ns))
    kept = dict(enumerate(found.token_intervals.counts, found.token_intervals.offset))
    assert sum(kept.values()) == len(intervals_ns)
    if max(buckets) - min(buckets) < token_intervals.WRITTEN_BUCKETS:
        assert {bucket: count for bucket, count in kept.items() if count} == buckets
    mean_ms = sum(intervals_ns) / len(intervals_ns) / 1e6
    assert found.inter_token_latency_ms == pytest.approx(mean_ms)
    assert found.max_inter_token_latency_ms == pytest.approx(max(intervals_ns) / 1e6)


class TestRecordStep:
    def test_a_step_that_has_ended(self, recording: Recording, engine: str) -> None:
        request = recording.start_span("m", request_id="r")
        begin_ns = time.time_ns()
        for number in range(1, 4):
            recording.recorder.record_step(
                "m",
                start_ns=begin_ns + number * STEP_NS,
                duration_ns=STEP_NS,
                decode=[request],
                capacity=4,
                engine=engine,
            )
        request.end()
        steps, requests = sent_by_name(recording)
        assert [step.start_time_unix_nano for step in steps] == [
            begin_ns + number * STEP_NS for number in range(1, 4)
        ]
        assert steps[0].inference.batch_fill_ratio == 0.25
        found = requests["r"].inference
        assert (found.first_step, found.last_step, found.output_tokens) == (1, 3, 3)
        assert found.inter_token_latency_ms == found.max_inter_token_latency_ms == 20
        assert sum(found.token_intervals.counts) == 2

    def test_of_a_tracer_that_samples_none(self, recording: Recording, engine: str) -> None:
        request = recording.start_span("m")
        recording.recorder.set_sample_rate(0)
        recording.recorder.record_step(
            "m", start_ns=START_NS, duration_ns=1, decode=[request], engine=engine
        )
        assert request.token_count == 1
        request.end()

    def test_failed_and_wrong_ones(self, recording: Recording, engine: str) -> None:
        request = recording.start_span("m")
        record = recording.recorder.record_step
        record("m", start_ns=START_NS, duration_ns=1, status="ERROR", decode=[request])
        record("m", start_ns=time.monotonic_ns(), duration_ns=1, decode=[request], engine=engine)
        assert request.token_count == 0
        request.end()
        assert [span.status for span in recording.take_all()] == ["ERROR", "OK"]
