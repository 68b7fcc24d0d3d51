"""Steps, their members, companions and `why` over HTTP, on every store."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import pairwise
from typing import Any, NamedTuple

import pytest

from collector_client import Client, OpenClient
from infertrace.collector.server import Collector
from infertrace.commands.simulated_engine import (
    NANOS_PER_SECOND,
    Arrivals,
    Engine,
    Model,
    Request,
    Simulated,
    simulate,
)
from infertrace.generated.span_pb2 import InferenceContext, Span
from planted_causes import diagnose
from simulated_facts import request_facts
from simulated_spans import request_span, spans_of

MODEL = Model(
    "llama-3", "1", "vllm", 16, 1_024, 100, 60_000, 8.0, 0.02, 6e-5, 3e-4, (50, 500), (20, 60)
)
PRODUCER = b"p" * 16
HOSTILE = ["", "0", "-1", "1.5", "x", "9" * 30, "%00", "'; DROP TABLE spans; --"]


class Served(NamedTuple):
    """A collector that has the spans of an engine, and what the engine did."""

    client: Client
    simulated: Simulated
    start_ns: int
    end_ns: int

    def trace_of(self, name: str) -> str:
        return request_facts(MODEL, self.request(name), self.simulated.steps).trace_id

    def request(self, name: str) -> Request:
        return next(r for r in self.simulated.requests if r.request_id == name)

    @property
    def times(self) -> dict[str, str]:
        return {"since": _seconds(self.start_ns), "until": _seconds(self.end_ns + 1)}


def _seconds(time_ns: int) -> str:
    return f"{time_ns // NANOS_PER_SECOND}.{time_ns % NANOS_PER_SECOND:09d}"


def engine_run(start_ns: int, seconds: int = 40, seed: int = 4) -> Simulated:
    """An engine into which a very long prompt is planted, and right behind it a victim."""
    at_ns = start_ns + (seconds - 10) * NANOS_PER_SECOND
    planted = [
        Request("culprit", at_ns, 15_000, 5),
        Request("victim", at_ns + 1_000_000, 200, 40),
    ]
    engine = Engine(MODEL, random.Random(seed))
    arrivals = Arrivals(MODEL, random.Random(seed + 1), start_ns)
    return simulate(engine, arrivals, start_ns + seconds * NANOS_PER_SECOND, planted)


@pytest.fixture
def served(client: Client) -> Served:
    start_ns = time.time_ns() - 120 * NANOS_PER_SECOND
    simulated = engine_run(start_ns)
    send(client, spans_of(MODEL, simulated), PRODUCER)
    last = simulated.steps[-1]
    return Served(client, simulated, start_ns, last.start_ns + last.duration_ns)


def send(client: Client, spans: list[Span], producer: bytes) -> None:
    for first in range(0, len(spans), 2_000):
        client.send(*spans[first : first + 2_000], producer_id=producer)


def test_why_over_http_is_what_the_diagnosis_says(served: Served) -> None:
    answer = served.client.get(f"/traces/{served.trace_of('victim')}/why")
    victim = served.request("victim")
    expected = diagnose(MODEL, served.simulated, victim, has_clock=False)
    assert answer["summary"] == expected.summary
    assert [one["cause"] for one in answer["findings"]] == [f.cause for f in expected.findings]
    first = answer["findings"][0]
    assert first["cause"] == "prefill_of_others"
    assert first["culprit"]["request_id"] == "culprit"
    assert first["culprit"]["trace_id"] == served.trace_of("culprit")
    assert first["sentence"] == expected.findings[0].sentence
    assert first["explained_ms"] == expected.findings[0].explained_ms
    assert {step["index"] for step in first["steps"]} == {
        slow.step.index for slow in expected.findings[0].steps
    }
    assert answer["unexplained_ms"] == expected.unexplained_ms
    assert answer["baseline"]["request_count"] > 100
    assert set(answer["phases"]) == {"queue_ms", "prefill_ms", "decode_ms"}
    assert answer == served.client.get(f"/traces/{served.trace_of('victim')}/why")


def test_why_needs_a_request(served: Served, client: Client) -> None:
    assert client.error(f"/traces/{'0' * 31}1/why") == (
        404,
        f"no request: trace {'0' * 31}1 has no span of a model",
    )
    assert client.error("/traces/xyz/why")[0] == 400
    trace = served.trace_of("victim")
    span = client.get(f"/traces/{trace}")["spans"][0]["span_id"]
    assert client.get(f"/traces/{trace}/why", span_id=span)["span_id"] == span
    assert client.error(f"/traces/{trace}/why", span_id="1" * 16)[0] == 404
    for hostile in HOSTILE[1:]:
        status, error = client.error(f"/traces/{trace}/why", span_id=hostile)
        assert status == 400
        assert error.startswith("span_id: expected 16 hexadecimal digits")


def test_of_the_spans_of_a_trace_the_request_is_taken(client: Client, new_span: Any) -> None:
    trace_id = os.urandom(16)
    outer = new_span(trace_id=trace_id, duration_nanos=10**9)
    inner = new_span(
        trace_id=trace_id,
        parent_span_id=outer.span_id,
        inference=InferenceContext(request_id="r", scheduled_after_ms=0.2),
    )
    client.send(outer, inner, producer_id=PRODUCER)
    answer = client.get(f"/traces/{trace_id.hex()}/why")
    assert answer["span_id"] == inner.span_id.hex()
    assert answer["findings"] == []
    assert "Nothing stands out." in answer["summary"]


def test_spans_without_a_producer_have_no_companions(client: Client) -> None:
    simulated = engine_run(time.time_ns() - 120 * NANOS_PER_SECOND, seconds=15)
    client.send(*spans_of(MODEL, simulated)[:200])
    request = simulated.requests[20]
    trace = request_facts(MODEL, request, simulated.steps).trace_id
    assert client.get(f"/traces/{trace}/companions")["companions"] == []


def test_companions_share_steps(served: Served) -> None:
    trace = served.trace_of("victim")
    answer = served.client.get(f"/traces/{trace}/companions", limit=10_000)
    victim = served.request("victim")
    assert victim.first_step is not None
    assert victim.last_step is not None
    expected = {
        r.request_id
        for r in served.simulated.requests
        if r is not victim and r.first_step is not None and r.last_step is not None
        and r.first_step <= victim.last_step and r.last_step >= victim.first_step
    }  # fmt: skip
    assert {one["request_id"] for one in answer["companions"]} == expected
    assert answer["companion_count"] == len(expected)
    assert (answer["first_step"], answer["last_step"]) == (victim.first_step, victim.last_step)
    for one in answer["companions"]:
        other = served.request(one["request_id"])
        steps = served.simulated.steps[one["first_shared_step"] - 1 : one["last_shared_step"]]
        assert one["shared_steps"] == len(steps)
        prefilled = [tokens for s in steps for r, tokens in s.prefill if r is other]
        assert one["prefill_tokens"] == sum(prefilled)
        assert one["decode_tokens"] == sum(other in s.decode for s in steps)
        assert 0 < one["time_share"] <= 1
    shares = [one["time_share"] for one in answer["companions"]]
    assert shares == sorted(shares, reverse=True)
    assert len(served.client.get(f"/traces/{trace}/companions", limit=2)["companions"]) == 2


def test_steps_are_listed_in_order(served: Served) -> None:
    answer = served.client.get("/steps", model="llama-3", **served.times)
    assert answer["step_count"] == len(answer["steps"]) == len(served.simulated.steps)
    for step, shown in zip(served.simulated.steps, answer["steps"], strict=True):
        assert shown["step_index"] == step.index
        assert shown["duration_ms"] == step.duration_ns / 1e6
        assert shown["prefill_tokens"] == step.prefill_tokens
        assert shown["decode_tokens"] == len(step.decode)
        assert shown["queue_depth"] == step.queue_depth
        assert (shown["engine"], shown["producer_id"]) == ("0", PRODUCER.hex())
    first = served.simulated.steps[0]
    one = served.client.get(
        "/steps", since=_seconds(first.start_ns), until=_seconds(first.start_ns + 1)
    )
    assert [step["step_index"] for step in one["steps"]] == [1]
    for nothing in (
        {"model": "other"}, {"engine": "1"}, {"producer": "00" * 16},
    ):  # fmt: skip
        assert served.client.get("/steps", **nothing, **served.times)["steps"] == []


def test_many_steps_become_columns(client: Client) -> None:
    end_ns = time.time_ns()
    start_ns = end_ns - 100 * NANOS_PER_SECOND
    quick = MODEL._replace(step_s=0.002, arrivals_per_s=10.0)
    engine = Engine(quick, random.Random(1))
    arrivals = Arrivals(quick, random.Random(2), start_ns)
    simulated = simulate(engine, arrivals, start_ns + 90 * NANOS_PER_SECOND)
    assert len(simulated.steps) > 2_000
    send(client, spans_of(quick, simulated), PRODUCER)
    times = {"since": _seconds(start_ns), "until": _seconds(end_ns)}
    answer = client.get("/steps", columns=50, engine="0", **times)
    assert "steps" not in answer
    assert answer["column_seconds"] == 2
    assert answer["step_count"] == len(simulated.steps)
    assert sum(column["step_count"] for column in answer["columns"]) == len(simulated.steps)
    length_ns = 2 * NANOS_PER_SECOND
    steps = [s for s in simulated.steps if (s.start_ns - start_ns) // length_ns == 3]
    column = answer["columns"][3]
    assert column["step_count"] == len(steps)
    durations = [step.duration_ns / 1e6 for step in steps]
    assert column["mean_ms"] == pytest.approx(sum(durations) / len(steps))
    assert column["longest_ms"] == max(durations)
    prefill = sum(step.prefill_tokens for step in steps)
    decode = sum(len(step.decode) for step in steps)
    assert column["prefill_share"] == pytest.approx(prefill / (prefill + decode))
    depth = sum(step.queue_depth for step in steps) / len(steps)
    assert column["queue_depth"] == pytest.approx(depth)
    fill = sum(step.batch_fill_ratio for step in steps) / len(steps)
    assert column["batch_fill_ratio"] == pytest.approx(fill, rel=1e-5)


def test_members_of_a_step(served: Served) -> None:
    for step in (served.simulated.steps[0], *served.simulated.steps[600:640:7]):
        answer = served.client.get(f"/steps/0/{step.index}/members")
        assert answer["step"]["step_index"] == step.index
        members = {one["request_id"]: one for one in answer["members"]}
        prefill = {request.request_id: tokens for request, tokens in step.prefill}
        decode = {request.request_id for request in step.decode}
        assert members.keys() == prefill.keys() | decode
        for name, one in members.items():
            assert one["phase"] == ("prefill" if name in prefill else "decode")
            assert one["prefill_tokens"] == prefill.get(name, 0)


def test_what_is_inferred_is_said_to_be(memory: tuple[Client, str]) -> None:
    client, address = memory
    simulated = engine_run(time.time_ns() - 60 * NANOS_PER_SECOND, seconds=12)
    spans = spans_of(MODEL, simulated)
    for span in spans:
        if not span.inference.HasField("step_index"):
            span.inference.membership = "inferred"
    send(client, spans, PRODUCER)
    victim = next(span for span in spans if span.inference.request_id == "victim")
    trace_id = victim.trace_id.hex()
    companions = client.get(f"/traces/{trace_id}/companions")
    members = client.get(f"/steps/0/{victim.inference.first_step}/members")
    why = client.get(f"/traces/{trace_id}/why")
    for answer in (companions, why, *companions["companions"], *members["members"]):
        assert answer["membership"] == "inferred"
    unknown = "Who shared its steps, for certain: that is inferred from times."
    assert unknown in why["unknown"]
    assert f"Not known: {unknown}" in infertrace("why", trace_id, "--http", address).stdout


def test_which_producer_has_to_be_said(served: Served) -> None:
    other = b"q" * 16
    simulated = engine_run(served.start_ns, seconds=12, seed=9)
    spans = spans_of(MODEL, simulated)
    for number, span in enumerate(spans):
        span.trace_id, span.span_id = os.urandom(16), (number + 1).to_bytes(8, "big")
    send(served.client, spans, other)
    status, error = served.client.error("/steps/0/7/members")
    assert status == 400
    assert error.startswith("producer: expected one of those that have such a step: ")
    assert PRODUCER.hex() in error
    assert other.hex() in error
    for producer in (PRODUCER, other):
        answer = served.client.get("/steps/0/7/members", producer=producer.hex())
        assert answer["step"]["producer_id"] == producer.hex()


def test_bad_steps(served: Served) -> None:
    assert served.client.error("/steps/0/999999/members")[0] == 404
    assert served.client.error("/steps/a/b/7/members")[1] == (
        "no step 7 of engine 'a/b' in that time"
    )
    for hostile in ("x", "-1", "9" * 19):
        status, error = served.client.error(f"/steps/0/{hostile}/members")
        assert (status, error.partition(",")[0]) == (
            400,
            "index: expected a number of at most 18 digits",
        )
    for parameter in ("producer", "columns", "since", "until"):
        for hostile in HOSTILE[2:]:
            if (parameter, hostile) in (("since", "1.5"), ("until", "1.5")):
                continue
            status, error = served.client.error("/steps", **{parameter: hostile})
            assert status == 400
            assert error.startswith(f"{parameter}: expected ")
    assert served.client.error("/steps", since="1m", until="2m")[0] == 400
    assert served.client.error("/steps", limit="3")[0] == 400


def test_statistics_count_requests_and_not_steps(served: Served) -> None:
    answer = served.client.get("/models/llama-3/latency", **served.times)
    requests = served.simulated.requests
    assert answer["sample_count"] == len(requests)
    assert [m["sample_count"] for m in served.client.get("/models")] == [len(requests)]
    waits = sorted((r.scheduled_ns - r.arrival_ns) / 1e6 for r in requests if r.scheduled_ns)
    assert answer["queue_wait_time_p99_ms"] == pytest.approx(
        waits[round(0.99 * (len(waits) - 1))], rel=0.2
    )


def test_intervals_between_tokens_are_merged(served: Served) -> None:
    intervals = sorted(
        (after - before) / 1e6
        for r in served.simulated.requests
        for before, after in pairwise(r.token_times_ns)
    )
    answer = served.client.get("/models/llama-3/latency", **served.times)
    series = {}
    for name, share in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99)):
        exact = intervals[round(share * (len(intervals) - 1))]
        metric = f"inter_token_latency_{name}_ms"
        assert answer[metric] == pytest.approx(exact, rel=0.05)
        found = served.client.get(
            "/models/llama-3/series", metric=metric, step="1h", **served.times
        )
        assert (found["aggregate"], found["unit"]) == ("interval_quantile", "milliseconds")
        series[name] = [p["value"] for p in found["points"]]
    if len(series["p50"]) == 1:  # not over the full hour
        assert series == {name: [answer[f"inter_token_latency_{name}_ms"]] for name in series}


def test_a_series_of_what_no_span_says_has_no_value(client: Client, new_span: Any) -> None:
    client.send(new_span())
    answer = client.get("/models/gpt-4/series", metric="inter_token_latency_p95_ms")
    assert [point["value"] for point in answer["points"]] == [None]
    assert "inter_token_latency_p95_ms" not in client.get("/models/gpt-4/latency")


@pytest.fixture
def memory(open_client: OpenClient) -> Iterator[tuple[Client, str]]:
    with Collector("127.0.0.1:0", "127.0.0.1:0", "memory:") as collector:
        yield open_client(collector.grpc_address, collector.http_address), collector.http_address


def infertrace(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "infertrace", *arguments],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def test_the_command_says_why(memory: tuple[Client, str]) -> None:
    client, address = memory
    simulated = engine_run(time.time_ns() - 120 * NANOS_PER_SECOND)
    send(client, spans_of(MODEL, simulated), PRODUCER)
    victim = next(r for r in simulated.requests if r.request_id == "victim")
    trace = request_span(MODEL, victim, simulated.steps).trace_id.hex()
    answer = client.get(f"/traces/{trace}/why")
    done = infertrace("why", trace.upper(), "--http", address)
    assert done.returncode == 0, done.stderr
    assert answer["summary"] in done.stdout
    assert answer["findings"][0]["sentence"] in done.stdout
    assert "Request victim of llama-3" in done.stdout
    done = infertrace("why", trace, "--http", f"http://{address}", "--json")
    assert json.loads(done.stdout) == answer


def test_the_command_says_what_is_wrong(memory: tuple[Client, str]) -> None:
    _, address = memory
    done = infertrace("why", "0" * 31 + "1", "--http", address)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"infertrace: no request: trace {'0' * 31}1 has no span of a model\n"
    done = infertrace("why", "abc")
    assert done.returncode == 2
    assert "expected 32 hexadecimal digits, got 'abc'" in done.stderr
    done = infertrace("why", "0" * 32, "--http", "127.0.0.1:1")
    assert done.returncode == 1
    assert "the collector at http://127.0.0.1:1 does not answer" in done.stderr


def test_what_vllm_sent_is_enough_for_an_answer(memory: tuple[Client, str]) -> None:
    """Spans of OTLP have no steps: the queue, the tokens and the pace are all there is."""
    client, _ = memory
    slow: list[Span] = []
    for number in range(30):
        is_slow = number == 29
        context = InferenceContext(
            model_name="tiny-llama",
            request_id=f"chatcmpl-{number}",
            input_tokens=100,
            output_tokens=20,
            queue_wait_time_ms=900.0 if is_slow else 1.0 + number % 5,
            time_to_first_token_ms=940.0 if is_slow else 30.0 + number % 7,
            inter_token_latency_ms=5.0 + number % 3,
        )
        span = Span(
            trace_id=os.urandom(16),
            span_id=os.urandom(8),
            service_name="vllm-server",
            operation_name="llm_request",
            kind="SPAN_KIND_SERVER",
            scope_name="vllm.tracing.otel",
            start_time_unix_nano=time.time_ns() - (40 - number) * NANOS_PER_SECOND,
            duration_nanos=(1_100 if is_slow else 150 + number % 9) * 1_000_000,
            inference=context,
        )
        slow.append(span)
    client.send(*slow)
    answer = client.get(f"/traces/{slow[-1].trace_id.hex()}/why")
    (finding,) = answer["findings"]
    assert finding["cause"] == "queue"
    assert finding["numbers"]["queue_ms"] == 900
    assert finding["numbers"]["requests_ahead"] is None
    assert answer["baseline"]["request_count"] == 29
    assert answer["baseline"]["step_count"] == 0
    assert answer["phases"] == {
        "queue_ms": 900.0,
        "prefill_ms": pytest.approx(40),
        "decode_ms": pytest.approx(160),
    }
    assert any(text.startswith("Who shared its steps") for text in answer["unknown"])
    usual = client.get(f"/traces/{slow[20].trace_id.hex()}/why")
    assert usual["findings"] == []


def test_what_a_sender_names_does_not_steer_the_terminal(
    memory: tuple[Client, str], new_span: Any
) -> None:
    client, address = memory
    span = new_span(
        model="m\x1b[2J\nforged",
        status="ERROR",
        status_message="\x1b]0;title\x07",
        inference=InferenceContext(request_id="r\r\n"),
    )
    client.send(span)
    done = infertrace("why", span.trace_id.hex(), "--http", address)
    assert done.returncode == 0, done.stderr
    assert "m\\x1b[2J\\nforged" in done.stdout
    assert not set("\x1b\x07\r") & set(done.stdout)
