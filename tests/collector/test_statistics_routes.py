"""Overview, heatmap, comparison, facets, targets, GPUs, and what arrives, on every store."""

from __future__ import annotations

import json
import random
import time
from collections import Counter
from typing import Any

import pytest

from collector_client import Client, NewSpan
from infertrace.collector.store import model_sums
from infertrace.collector.store.exponential_buckets import upper_bound
from infertrace.generated.span_pb2 import InferenceContext, ResourceMetrics, Span, SpanKind
from infertrace.wire.token_intervals import bucket_of

MS = 1_000_000
SECOND = 1_000 * MS
BUCKET = 2 ** (1 / 8)


def a_minute(new_span: NewSpan, count: int = 400) -> list[Span]:
    """Requests of two models; the slow ones are of one tenant and wait long."""
    draw = random.Random(7)
    start_ns = time.time_ns() - 60 * SECOND
    spans = []
    for number in range(count):
        is_slow = number % 16 == 0
        duration = round(draw.uniform(2_000, 3_000) if is_slow else draw.uniform(50, 500)) * MS
        context = InferenceContext(
            input_tokens=draw.randrange(10, 500),
            output_tokens=20,
            queue_wait_time_ms=1_500.0 if is_slow else draw.uniform(0.1, 5),
            time_to_first_token_ms=duration / MS / 2,
        )
        spans.append(
            new_span(
                model=f"m{number % 2}",
                start_time_unix_nano=start_ns + number * SECOND // 8,
                duration_nanos=duration,
                status="ERROR" if number % 50 == 7 else "OK",
                tags={"tenant": "acme" if is_slow or draw.random() < 0.2 else "globex"},
                inference=context,
            )
        )
    return spans


@pytest.fixture
def spans(client: Client, new_span: NewSpan) -> list[Span]:
    spans = a_minute(new_span)
    children = [new_span(parent_span_id=b"p" * 8, duration_nanos=9 * SECOND) for _ in range(5)]
    client.send(*spans, *children)
    return spans


def is_slow(span: Span) -> bool:
    return span.duration_nanos >= 2_000 * MS


def test_the_heatmap_counts_each_span_once(client: Client, spans: list[Span]) -> None:
    answer = client.get("/heatmap", window="2m", columns=30)
    assert answer["total"] == len(spans)
    assert answer["error_count"] == sum(span.status == "ERROR" for span in spans)
    cells: Counter[int] = Counter()
    for column in answer["columns"]:
        assert column["cells"] == sorted(column["cells"])
        for bucket, count, _ in column["cells"]:
            cells[bucket] += count
    assert cells == Counter(bucket_of(span.duration_nanos) for span in spans)
    exact = sorted(span.duration_nanos / MS for span in spans)
    for name, share in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99)):
        assert answer[name] == pytest.approx(exact[int(share * len(exact))], rel=BUCKET - 1)


def test_a_cell_of_the_heatmap_is_a_filter_of_spans(client: Client, spans: list[Span]) -> None:
    answer = client.get("/heatmap", window="2m", columns=10, value="queue_wait_time_ms")
    for column in answer["columns"][:4]:
        for bucket, count, errors in column["cells"]:
            since = column["time"]
            found = client.get(
                "/spans",
                requests=1,
                since=since,
                limit=1000,
                min_queue_wait_time_ms=upper_bound(bucket - 1) / MS * (1 + 1e-9),
                max_queue_wait_time_ms=upper_bound(bucket) / MS,
            )
            inside = [span for span in found if span["start_time"] < end_of(answer, column)]
            assert len(inside) == count
            assert sum(span["status"] == "ERROR" for span in inside) == errors


def test_a_heatmap_of_two_numbers(client: Client, spans: list[Span]) -> None:
    answer = client.get("/heatmap", window="2m", by="input_tokens", value="time_to_first_token_ms")
    found = Counter(
        {
            (column["bucket"], bucket): count
            for column in answer["columns"]
            for bucket, count, _ in column["cells"]
        }
    )
    assert found == Counter(
        (
            bucket_of(span.inference.input_tokens),
            bucket_of(round(span.inference.time_to_first_token_ms * MS)),
        )
        for span in spans
    )
    assert answer["total"] == len(spans)
    nothing = client.get("/heatmap", window="2m", by="sequence_length")
    assert (nothing["total"], nothing["without_value"]) == (0, len(spans))
    assert nothing["columns"] == []


def end_of(answer: Any, column: Any) -> str:
    later = [c["time"] for c in answer["columns"] if c["index"] > column["index"]]
    return str(later[0]) if later else "9"


def test_the_overview_tells_what_models_tell(client: Client, spans: list[Span]) -> None:
    overview = client.get("/overview", window="2m", baseline="1m")
    models = {model["model_name"]: model for model in client.get("/models", window="2m")}
    assert overview["total"] == len(spans)
    assert overview["model_count"] == len(models) == len(overview["models"])
    for model in overview["models"]:
        exact = models[model["model_name"]]
        for name in ("sample_count", "error_rate", "last_seen"):
            assert model[name] == exact[name]
        assert model["tokens_per_second"] == pytest.approx(exact["tokens_per_second"])
        for name in ("p50_ms", "p95_ms", "time_to_first_token_p50_ms", "queue_wait_time_p50_ms"):
            assert model[name] == pytest.approx(exact[name], rel=BUCKET - 1)
        assert sum(model["columns"]["counts"]) == model["sample_count"]
        assert sum(model["columns"]["errors"]) == model["error_count"]
        assert model["change"]["p50_ms"] is None  # nothing was there before


def test_the_overview_counts_a_call_once_that_two_services_tell_of(
    client: Client, new_span: NewSpan
) -> None:
    trace = b"t" * 16
    client.send(
        *(
            new_span(
                trace_id=trace,
                service_name=service,
                kind=SpanKind.SPAN_KIND_CLIENT,
                inference=InferenceContext(output_tokens=tokens),
            )
            for service, tokens in (("client", 10), ("engine", 12))
        )
    )
    (model,) = client.get("/overview")["models"]
    (exact,) = client.get("/models")
    assert model["tokens_per_second"] == pytest.approx(exact["tokens_per_second"])


def test_an_overview_tells_the_busiest_of_its_models(client: Client, spans: list[Span]) -> None:
    now_s = int(time.time())
    asked = {"since": now_s - 120, "until": now_s, "baseline": "1m"}
    whole = client.get("/overview", **asked)
    first = client.get("/overview", **asked, limit=1)
    assert (whole["truncated"], first["truncated"]) == (False, True)
    assert first["models"] == whole["models"][:1]
    assert {**first, "truncated": 0, "models": 0} == {**whole, "truncated": 0, "models": 0}
    counts = [model["sample_count"] for model in whole["models"]]
    assert counts == sorted(counts, reverse=True)


@pytest.mark.parametrize("bound", ["MAX_MODELS", "MAX_GROUPS"])
def test_more_models_than_an_overview_can_tell(
    client: Client, spans: list[Span], monkeypatch: pytest.MonkeyPatch, bound: str
) -> None:
    monkeypatch.setattr(model_sums, bound, 1)
    answer = client.http.get("/overview", params={"window": "2m"})
    assert answer.status_code == 422
    assert "choose a model, or ask for less time" in answer.json()["error"]
    if bound == "MAX_MODELS":
        assert client.get("/overview", window="2m", model="m1")["total"] == len(spans) // 2


def test_the_comparison_finds_what_is_different(client: Client, spans: list[Span]) -> None:
    answer = client.get("/compare", window="2m", select_min=2_000)
    slow = [span for span in spans if is_slow(span)]
    assert answer["selected_total"] == len(slow)
    assert answer["baseline_total"] == len(spans) - len(slow)
    # Every sixteenth is slow, and every second is of the other model.
    assert [each["dimension"] for each in answer["dimensions"]] == ["model_name", "tag.tenant"] or [
        each["dimension"] for each in answer["dimensions"]
    ] == ["tag.tenant", "model_name"]
    tenants = next(each for each in answer["dimensions"] if each["dimension"] == "tag.tenant")
    acme = next(value for value in tenants["values"] if value["value"] == "acme")
    assert acme["selected"] == len(slow)
    assert acme["baseline"] == sum(
        span.tags["tenant"] == "acme" for span in spans if not is_slow(span)
    )
    measures = {each["measure"]: each for each in answer["measures"]}
    assert {"duration_ms", "queue_wait_time_ms", "time_to_first_token_ms"} == measures.keys()
    waits = measures["queue_wait_time_ms"]
    assert waits["selected"]["p50"] == pytest.approx(1_500, rel=BUCKET - 1)
    assert sum(count for _, count in waits["baseline"]["cells"]) == answer["baseline_total"]


def test_chance_is_not_told(client: Client, new_span: NewSpan) -> None:
    draw = random.Random(3)
    client.send(
        *(
            new_span(tags={"coin": draw.choice("ab")}, duration_nanos=draw.randrange(1, 1_000) * MS)
            for _ in range(300)
        )
    )
    answer = client.get("/compare", select_min=900)
    assert answer["selected_total"] > 5
    assert answer["dimensions"] == []
    assert [each["measure"] for each in answer["measures"]] == ["duration_ms"]
    (two,) = client.get("/spans", order="duration_ms", limit=1)
    few = client.get("/compare", select_min=two["duration_ms"])
    assert few["selected_total"] >= 1
    assert few["dimensions"] == few["measures"] == []


def test_another_period_is_a_baseline(client: Client, spans: list[Span]) -> None:
    middle = spans[200].start_time_unix_nano
    times = {
        "since": f"{middle / SECOND:.9f}",
        "select_since": f"{middle / SECOND:.9f}",
        "baseline_since": f"{spans[0].start_time_unix_nano / SECOND - 1:.9f}",
        "baseline_until": f"{middle / SECOND:.9f}",
    }
    answer = client.get("/compare", **times)
    assert abs(answer["selected_total"] - 200) <= 1
    assert answer["selected_total"] + answer["baseline_total"] == len(spans)
    assert answer["dimensions"] == []


def test_what_failed_is_the_default_selection(client: Client, spans: list[Span]) -> None:
    answer = client.get("/compare", window="2m")
    failed = sum(span.status == "ERROR" for span in spans)
    assert answer["selected_total"] == answer["selected_errors"] == failed
    status, error = client.error("/compare", baseline_since="1m", baseline_until="2m")
    assert (status, error) == (400, "baseline_since: expected a time before baseline_until")


def test_facets_are_counts(client: Client, spans: list[Span]) -> None:
    answer = client.get("/facets", field="tag.tenant", window="2m")
    expected = Counter(span.tags["tenant"] for span in spans)
    assert {each["value"]: each["count"] for each in answer["values"]} == expected
    assert answer["total"] == len(spans)
    assert answer["without_value"] == 0
    assert client.get("/facets", field="tag.tenant", prefix="gl")["values"][0]["value"] == "globex"
    models = client.get("/facets", field="model_name", limit=1)
    assert models["truncated"]
    assert models["values"][0]["count"] == 200
    status, error = client.error("/facets", field="tags")
    assert (status, error.split(",")[0]) == (400, "field: expected tag.KEY")


def test_keyed_conditions_are_exact_in_counts(client: Client, new_span: NewSpan) -> None:
    # All of these hold the text "user":"u1" somewhere; one has that tag.
    client.send(
        new_span(tags={"user": "u1"}),
        new_span(tags={'x"user': "u1"}),
        new_span(tags={"x": '"user":"u1"'}),
        new_span(tags={"user": "u1\x00"}),
        new_span(tags={"é/~": "1"}),
    )
    for condition, count in (
        ({"tag.user": "u1"}, 1),
        ({"tag.user": "u1\x00"}, 1),
        ({"tag.é/~": "1"}, 1),
        ({"tag.user": "u"}, 0),
    ):
        assert client.get("/heatmap", **condition)["total"] == count
        assert len(client.get("/spans", **condition)) == count


def test_spans_by_a_measure(client: Client, spans: list[Span]) -> None:
    by_duration = sorted(spans, key=lambda span: -span.duration_nanos)
    answer = client.http.get(
        "/spans",
        params={
            "requests": 1,
            "order": "duration_ms",
            "limit": 50,
            "total": 1,
            "fields": "trace_id,duration_ms",
        },
    )
    found = answer.json()
    assert [span["duration_ms"] for span in found] == [
        span.duration_nanos / MS for span in by_duration[:50]
    ]
    assert all(span.keys() == {"trace_id", "duration_ms"} for span in found)
    assert answer.headers["X-Total-Count"] == str(len(spans))
    assert answer.headers["X-Truncated"] == "true"
    assert "Link" not in answer.headers
    assert client.error("/spans", order="size")[1].startswith("order: expected start or one of")
    cursor = client.http.get("/spans?limit=1").headers["X-Next-Cursor"]
    assert client.error("/spans", order="duration_ms", cursor=cursor)[0] == 400


def test_ranges_of_measures(client: Client, new_span: NewSpan) -> None:
    for wait in (0.1, 0.3, 123.4):
        client.send(new_span(inference=InferenceContext(queue_wait_time_ms=wait)))
    client.send(new_span(inference=InferenceContext(scheduled_after_ms=50)), new_span())

    def found(**parameters: Any) -> int:
        count = len(client.get("/spans", **parameters))
        assert client.get("/heatmap", **parameters)["total"] == count
        return count

    # A bound that an answer shows is the value itself, also of a 32-bit float.
    assert found(min_queue_wait_time_ms=0.1, max_queue_wait_time_ms=0.1) == 1
    assert found(min_queue_wait_time_ms=0.3) == 3
    assert found(max_queue_wait_time_ms=123.4) == 4
    assert found(max_duration_ms=1.5) == 5
    assert found(max_duration_ms=1.499999) == 0


def test_targets(client: Client, spans: list[Span]) -> None:
    answer = client.get("/slo", window="2m", target_duration_ms=1_000, objective=0.9)
    good = sum(not is_slow(span) and span.status != "ERROR" for span in spans)
    asked = answer["range"]
    assert (asked["total"], asked["good"]) == (len(spans), good)
    assert asked["burn_rate"] == pytest.approx((1 - good / len(spans)) / 0.1)
    assert asked["goodput"] == pytest.approx(good / 120)
    assert [window["total"] for window in answer["windows"]] == [len(spans)] * 5
    assert not any(alert["firing"] for alert in answer["alerts"])
    strict = client.get("/slo", window="2m", target_duration_ms=1)
    assert strict["range"]["good"] == 0
    assert all(alert["firing"] for alert in strict["alerts"])
    failed = sum(span.status == "ERROR" for span in spans)
    assert client.get("/slo", window="2m")["range"]["good"] == len(spans) - failed


def test_a_gpu_that_nobody_read_has_no_column(client: Client, new_span: NewSpan) -> None:
    now = time.time_ns()
    for seconds, percent in ((100, 50.0), (100, 70.0), (10, 0.0)):
        reading = ResourceMetrics(gpu_device_id="GPU-a", gpu_utilization_percent=percent)
        client.send(new_span(start_time_unix_nano=now - seconds * SECOND, resources=reading))
    client.send(new_span(start_time_unix_nano=now - 50 * SECOND))
    (device,) = client.get("/gpu", window="2m", columns=12)["devices"]
    first, last = device["columns"]
    assert first["gpu_utilization_percent"] == {"count": 2, "mean": 60.0, "max": 70.0}
    assert last["gpu_utilization_percent"] == {"count": 1, "mean": 0.0, "max": 0.0}
    assert "gpu_power_watts" not in first


def test_the_tail_tells_everything_once(client: Client, new_span: NewSpan) -> None:
    assert client.get("/tail")["spans"] == []
    after = client.get("/tail")["next"]
    told = []
    for number in range(5):
        # Each starts before the one that came before it.
        spans = [
            new_span(start_time_unix_nano=time.time_ns() - (number + 1) * 60 * SECOND)
            for _ in range(10)
        ]
        client.send(*spans, spans[0])
        answer = client.get("/tail", after=after, limit=4)
        after = answer["next"]
        assert (answer["total"], answer["skipped"], answer["forgotten"]) == (10, 6, 0)
        assert [span["span_id"] for span in answer["spans"]] == [
            span.span_id.hex() for span in spans[-4:]
        ]
        told += answer["spans"]
    assert len(told) == 20
    assert client.get("/tail", after=after)["spans"] == []
    assert client.get("/tail", model="other")["total"] == 0
    client.send(new_span(tags={"user": "u1"}), new_span(tags={"user": "u2"}))
    (span,) = client.get("/tail", after=after, **{"tag.user": "u1"})["spans"]
    assert span["tags"] == {"user": "u1"}


def test_openapi_names_every_parameter_once(client: Client) -> None:
    document = json.loads(client.http.get("/openapi.json").text)
    for path, operations in document["paths"].items():
        names = [each["name"] for each in operations["get"].get("parameters", [])]
        assert len(names) == len(set(names)), path
