"""What a diagnosis says where little is known, and what its parts are made of."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest

from infertrace.collector.diagnosis.companions import companions_of, prefill_shares
from infertrace.collector.diagnosis.facts import NANOS_PER_MS, GpuFacts, RequestFacts, StepFacts
from infertrace.collector.diagnosis.step_cost import step_cost
from infertrace.collector.diagnosis.usual import MIN_REQUESTS, Usual, spread, usual_of
from infertrace.collector.diagnosis.why import why

START_NS = 1_800_000_000_000_000_000
NOTHING_USUAL = usual_of(START_NS - 1, START_NS, [], [])


def request(name: str = "slow", duration_ms: float = 1_000, **fields: Any) -> RequestFacts:
    return RequestFacts(
        trace_id=f"{name:0>32}",
        span_id=f"{name:0>16}",
        start_ns=fields.pop("start_ns", START_NS),
        duration_ns=round(duration_ms * NANOS_PER_MS),
        model_name="llama",
        request_id=name,
        **fields,
    )


def step(index: int, start_ms: float, duration_ms: float, **fields: Any) -> StepFacts:
    return StepFacts(
        f"{index:032x}",
        f"{index:016x}",
        index,
        START_NS + round(start_ms * NANOS_PER_MS),
        round(duration_ms * NANOS_PER_MS),
        **fields,
    )


def usual_requests(**fields: Any) -> Usual:
    """A baseline of 40 requests, each of whose values is one to two times the given one."""
    requests = [
        request(
            f"usual{n}",
            300 * (1 + n / 40),
            start_ns=START_NS - 10**12,
            **{name: value * (1 + n / 40) for name, value in fields.items()},
        )
        for n in range(40)
    ]
    return usual_of(START_NS - 3_600 * 10**9, START_NS, requests, [])


def causes(*given: Any) -> list[str]:
    return [finding.cause for finding in why(*given).findings]


def test_of_a_bare_span_it_says_what_is_not_known() -> None:
    found = why(request(), [], [], NOTHING_USUAL)
    assert found.findings == []
    assert found.excess_ms is found.unexplained_ms is None
    assert found.summary == "It took 1,000 ms. Nothing stands out."
    assert [text.partition(":")[0] for text in found.unknown] == [
        "What is usual",
        "How long it waited",
        "Who shared its steps",
        "How the GPU was",
    ]


def test_what_vllm_sends_is_enough_for_the_queue() -> None:
    usual = usual_requests(queue_wait_time_ms=5, time_to_first_token_ms=40)
    slow = request(
        duration_ms=2_000, queue_wait_time_ms=1_600, time_to_first_token_ms=1_650, output_tokens=20
    )
    found = why(slow, [], [], usual)
    assert [finding.cause for finding in found.findings] == ["queue"]
    (finding,) = found.findings
    assert finding.numbers["queue_ms"] == 1_600
    assert finding.explained_ms == pytest.approx(1_600 - 7.4, abs=0.2)
    assert "waited 1,600 ms in the queue; usually 7.4 ms" in finding.sentence


def test_a_wait_before_the_span_is_told_as_the_servers_word() -> None:
    slow = request(queue_wait_time_ms=900.0)
    (finding,) = why(slow, [], [], NOTHING_USUAL).findings
    assert finding.cause == "queue"
    assert finding.sentence.endswith("how much of it lies within the span is not recorded.")


def test_a_long_wait_needs_no_baseline() -> None:
    slow = request(scheduled_after_ms=700.0, time_to_first_token_ms=750.0, output_tokens=20)
    assert causes(slow, [], [], NOTHING_USUAL) == ["queue"]
    quick = replace(slow, scheduled_after_ms=10.0, time_to_first_token_ms=60.0)
    assert causes(quick, [], [], NOTHING_USUAL) == []


def test_a_pause_without_steps_is_a_stall() -> None:
    usual = usual_requests(
        inter_token_latency_ms=10, max_inter_token_latency_ms=20, time_to_first_token_ms=40
    )
    slow = request(
        time_to_first_token_ms=50.0,
        output_tokens=40,
        inter_token_latency_ms=24.0,
        max_inter_token_latency_ms=600.0,
    )
    (finding,) = why(slow, [], [], usual).findings
    assert finding.cause == "stall"
    assert finding.numbers["longest_interval_ms"] == 600
    assert causes(replace(slow, preemption_count=1), [], [], usual) == ["preemption"]


def test_an_error_comes_first_and_explains_nothing_by_itself() -> None:
    usual = usual_requests(scheduled_after_ms=5, time_to_first_token_ms=40)
    slow = request(
        status="ERROR", status_message="out of memory", scheduled_after_ms=900.0, duration_ms=950
    )
    found = why(slow, [], [], usual)
    assert [finding.cause for finding in found.findings] == ["error", "queue"]
    assert found.findings[0].explained_ms == 0
    assert found.summary.endswith("It ended with an error: out of memory.")


def test_a_request_that_is_slow_for_no_known_reason_says_so() -> None:
    found = why(request(duration_ms=10_000), [], [], usual_requests(scheduled_after_ms=5))
    assert found.findings == []
    assert found.summary.endswith("No cause is known.")
    assert found.unexplained_ms == found.excess_ms == pytest.approx(10_000 - 446, abs=1)
    assert found.unexplained == "9,554 ms more than usual are not explained."


def test_tokens_that_are_many_but_not_unusual_are_no_cause() -> None:
    usual = usual_requests(
        inter_token_latency_ms=10, time_to_first_token_ms=40, output_tokens=20, input_tokens=100
    )
    slow = request(
        duration_ms=700,
        time_to_first_token_ms=60.0,
        inter_token_latency_ms=15.0,
        output_tokens=40,
    )
    found = why(slow, [], [], usual)
    assert found.findings == []
    assert found.ordinary_ms == pytest.approx((40 - 29.75) * 14.875)
    assert found.excess_ms == pytest.approx(700 - 446.25)
    assert found.unexplained_ms == pytest.approx(700 - 446.25 - found.ordinary_ms)
    assert "Its own tokens account for 152 ms more" in found.unexplained


def test_who_holds_most_of_the_kv_cache_is_the_culprit_of_a_preemption() -> None:
    usual = usual_requests(
        inter_token_latency_ms=10, time_to_first_token_ms=40, output_tokens=20, input_tokens=100
    )
    slow = request(
        duration_ms=2_000, time_to_first_token_ms=60.0, inter_token_latency_ms=50.0,
        max_inter_token_latency_ms=1_500.0, output_tokens=40, preemption_count=1,
    )  # fmt: skip
    small = request("small", 500, input_tokens=150, output_tokens=30)
    hog = request("hog", 9_000, input_tokens=20_000, output_tokens=900)
    (finding,) = why(slow, [], [small, hog], usual).findings
    assert finding.cause == "preemption"
    assert finding.culprit is hog
    assert "request hog's, of 20,900 tokens" in finding.sentence
    (finding,) = why(slow, [], [small, hog, replace(hog, span_id="h2")], usual).findings
    assert finding.culprit is None


def test_gpu_of_the_request_itself_where_no_step_is_recorded() -> None:
    cool = GpuFacts(temperature_celsius=50.0, power_watts=600.0, utilization_percent=90.0)
    requests = [
        replace(request(f"u{n}", inter_token_latency_ms=10 + n / 100, output_tokens=20), gpu=cool)
        for n in range(20)
    ]
    usual = usual_of(0, START_NS, requests, [])
    slow = request(
        duration_ms=1_000,
        time_to_first_token_ms=20.0,
        inter_token_latency_ms=20.0,
        output_tokens=49,
        gpu=replace(cool, temperature_celsius=93.0),
    )
    found = {finding.cause: finding for finding in why(slow, [], [], usual).findings}
    assert "93 °C hot, usually 50 °C" in found["gpu"].sentence
    assert found["gpu"].explained_ms == pytest.approx(48 * 9.9, rel=0.01)


def test_companions_are_those_of_the_shared_steps() -> None:
    # Ten steps of 10 ms; the first prefills 100 tokens, the fourth 300.
    prefilled = {1: 100, 4: 300}
    steps = [
        step(n, 10 * (n - 1), 10, prefill_tokens=prefilled.get(n, 0), decode_tokens=1)
        for n in range(1, 11)
    ]
    slow = request(
        duration_ms=100, input_tokens=100, output_tokens=10, time_to_first_token_ms=10.0,
        first_step=1, last_step=10, step_count=10,
    )  # fmt: skip
    other = request(
        "other", 70, start_ns=START_NS + 25 * NANOS_PER_MS, input_tokens=350,
        cached_input_tokens=50, output_tokens=4, time_to_first_token_ms=15.0,
        first_step=4, last_step=7, step_count=4,
    )  # fmt: skip
    later = request("later", 10, start_ns=START_NS + 10**9, first_step=12, last_step=13)
    (companion,) = companions_of(slow, steps, [other, later, slow])
    assert companion.request is other
    assert (companion.first_step, companion.last_step, companion.shared_steps) == (4, 7, 4)
    assert (companion.prefill_tokens, companion.decode_tokens) == (300, 3)
    assert companion.time_share == pytest.approx(0.4)
    assert prefill_shares(steps, [slow, other]) == {
        1: {slow.span_id: 100},
        4: {other.span_id: 300},
    }
    assert companions_of(request(), steps, [other]) == []


def test_what_is_inferred_is_not_known_for_certain() -> None:
    steps = [step(n, 10 * (n - 1), 10) for n in range(1, 11)]
    said = request(duration_ms=100, first_step=1, last_step=10)
    unknown = "Who shared its steps, for certain: that is inferred from times."
    assert unknown not in why(said, steps, [], NOTHING_USUAL).unknown
    inferred = replace(said, membership="inferred")
    assert unknown in why(inferred, steps, [], NOTHING_USUAL).unknown


def test_a_step_explains_no_more_than_it_lasted() -> None:
    # Short prompts cost 0.1 ms a token; a long one is read at once, at a third of that.
    usual = usual_of(
        START_NS - 10**9,
        START_NS,
        [request(f"usual{n}", 60, time_to_first_token_ms=4.0, output_tokens=30) for n in range(20)],
        [
            step(n, n, 4 if n % 2 else 2, prefill_tokens=20 if n % 2 else 0, decode_tokens=1)
            for n in range(40)
        ],
    )
    steps = [step(n, 2 * (n - 1), 2, prefill_tokens=0, decode_tokens=1) for n in range(1, 11)]
    steps.append(step(11, 20, 60, prefill_tokens=1_900, decode_tokens=1))
    slow = request(
        duration_ms=80, time_to_first_token_ms=2.0, output_tokens=11, first_step=1, last_step=11
    )
    long = request("long", 60, start_ns=steps[-1].start_ns, input_tokens=1_900, first_step=11)
    (finding,) = why(slow, steps, [long], usual).findings
    assert finding.cause == "prefill_of_others"
    assert finding.culprit is long
    assert finding.explained_ms == pytest.approx(60)
    assert finding.steps[0].explained_ms == pytest.approx(60)


def test_a_prompt_in_chunks_goes_to_who_was_scheduled_first() -> None:
    steps = [step(n, 10 * n, 10, prefill_tokens=500) for n in range(1, 5)]
    first = request("first", 45, input_tokens=1_200, time_to_first_token_ms=40.0, first_step=1)
    second = request("second", 50, input_tokens=800, time_to_first_token_ms=50.0, first_step=2)
    shares = prefill_shares(steps, [second, first])
    assert [shares[n].get(first.span_id, 0) for n in range(1, 5)] == [500, 500, 200, 0]
    assert [shares[n].get(second.span_id, 0) for n in range(1, 5)] == [0, 0, 300, 500]


def test_the_cost_of_a_step_is_learned_in_spite_of_outliers() -> None:
    draw = random.Random(5)
    steps = []
    for n in range(400):
        prefill = draw.choice([0, 0, 0, 100, 700])
        decode = draw.randint(1, 40)
        duration_ms = (9 + 0.05 * prefill + 0.2 * decode) * draw.gauss(1, 0.02)
        if n % 20 == 0:
            duration_ms += 5_000
        steps.append(step(n, n, duration_ms, prefill_tokens=prefill, decode_tokens=decode))
    cost = step_cost(steps)
    assert cost is not None
    assert cost.base_ms == pytest.approx(9, rel=0.05)
    assert cost.prefill_token_ms == pytest.approx(0.05, rel=0.05)
    assert cost.decode_token_ms == pytest.approx(0.2, rel=0.05)
    assert cost.is_outlier(200, cost.of(700, 40))
    assert not cost.is_outlier(55, cost.of(700, 40))


def test_steps_that_are_all_alike_teach_a_base() -> None:
    steps = [step(n, n, 10, prefill_tokens=0, decode_tokens=4) for n in range(20)]
    cost = step_cost(steps)
    assert cost is not None
    assert cost.of(0, 4) == pytest.approx(10)
    assert (cost.prefill_token_ms, cost.decode_token_ms) == (0, 0)
    assert step_cost(steps[:3]) is None


def test_a_spread_needs_values() -> None:
    assert spread([1.0] * (MIN_REQUESTS - 1)) is None
    found = spread([*map(float, range(101)), None])
    assert found is not None
    assert (found.count, found.p50, found.p95) == (101, 50, 95)
    assert found.stands_out(141)
    assert not found.stands_out(140)
