"""Every route, every filter, every page, every mistake."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from collector_client import Client, NewSpan
from infertrace.collector.store.journaled.journaled_store import JournaledStore
from infertrace.collector.store.postgres.store import PostgresStore
from infertrace.collector.store.store import StoreError
from infertrace.collector.store.timestamps import format_rfc3339, parse_rfc3339
from infertrace.generated.span_pb2 import InferenceContext, Span

HOSTILE = [
    "' OR '1'='1",
    "'; DROP TABLE spans; --",
    '" OR ""="',
    "\\'; SELECT 1",
    "%",
    "_",
    "?",
    "$1",
    "*",
    "NULL",
    "\x00",
    "a\x00b",
    "é漢🙂",
]


@pytest.mark.parametrize(
    ("parameter", "field"),
    [("service", "service_name"), ("operation", "operation_name"), ("model", "model_name")],
)
def test_text_filters_match_exactly(
    client: Client, new_span: NewSpan, parameter: str, field: str
) -> None:
    def named(text: str) -> Span:
        if parameter == "model":
            return new_span(inference=InferenceContext(model_name=text))
        return new_span(**{field: text})

    client.send(new_span(), *map(named, HOSTILE))
    for text in HOSTILE:
        assert [s[field] for s in client.get("/spans", **{parameter: text})] == [text]
    assert client.get("/spans", **{parameter: "no such"}) == []


@pytest.mark.parametrize(
    "parameter", ["status", "trace_id", "since", "until", "min_duration_ms", "limit", "cursor"]
)
def test_other_filters_refuse_what_they_are_not(client: Client, parameter: str) -> None:
    for hostile in HOSTILE:
        status, error = client.error("/spans", **{parameter: hostile})
        assert status == 400
        assert error.startswith(f"{parameter}: expected ")


def test_status_trace_and_duration_filters(client: Client, new_span: NewSpan) -> None:
    spans = [
        new_span(status="OK", duration_nanos=1_000_000),
        new_span(status="ERROR", duration_nanos=1_000_001),
        new_span(status="CANCELLED", duration_nanos=2_500_000),
    ]
    client.send(*spans)

    def found(**parameters: Any) -> Any:
        return {s["span_id"] for s in client.get("/spans", **parameters)}

    ids = [span.span_id.hex() for span in spans]
    assert found(status="ERROR") == {ids[1]}
    assert found(trace_id=spans[2].trace_id.hex().upper()) == {ids[2]}
    assert found(min_duration_ms="1.000001") == {ids[1], ids[2]}
    assert found(min_duration_ms=2.5) == {ids[2]}
    assert found(min_duration_ms=0, status="OK", service="server", model="gpt-4") == {ids[0]}
    assert found(status="", model="") == set(ids)  # a blank value counts as absent


def test_time_filters(client: Client, new_span: NewSpan) -> None:
    moments = [1_700_000_000_000_000_000 + n for n in (0, 1, 2)]
    for moment in moments:
        client.send(new_span(start_time_unix_nano=moment))

    def found(**parameters: Any) -> Any:
        return [parse_rfc3339(s["start_time"]) for s in client.get("/spans", **parameters)]

    assert found(since="2023-11-14T22:13:20.000000001Z") == moments[:0:-1]
    assert found(since="2023-11-14T23:13:20.000000001+01:00") == moments[:0:-1]
    assert found(until="1700000000.000000002") == moments[1::-1]
    assert found(since="1700000000.000000001", until="1700000000.000000002") == [moments[1]]
    assert found(since="1700000001") == []
    # A plus that was not escaped arrives as a space.
    answer = client.http.get("/spans?since=2023-11-14T23:13:20.000000002+01:00")
    assert len(answer.json()) == 1


def test_time_ago(client: Client, new_span: NewSpan) -> None:
    client.send(new_span(start_time_unix_nano=time.time_ns() - 3_600 * 10**9))
    assert client.get("/spans", since="30m") == []
    assert len(client.get("/spans", since="2h", until="30m")) == 1


def test_rfc3339_round_trip() -> None:
    for nanos in (0, 1, 2**63 - 1, -(2**63), 1_700_000_000_123_456_789):
        assert parse_rfc3339(format_rfc3339(nanos)) == nanos
    for text in ("2023-02-30T00:00:00Z", "2023-01-01", "2023-01-01T00:00:00", "now"):
        with pytest.raises(ValueError, match=r".+"):
            parse_rfc3339(text)


def pages(client: Client, **parameters: Any) -> Iterator[Any]:
    """The spans of each page, following Link, and checking X-Next-Cursor against it."""
    answer = client.http.get("/spans", params=parameters)
    while True:
        assert answer.status_code == 200
        yield answer.json()
        if "next" not in answer.links:
            assert "X-Next-Cursor" not in answer.headers
            return
        url = answer.links["next"]["url"]
        assert answer.headers["X-Next-Cursor"] in url
        answer = client.http.get(url)


@pytest.mark.parametrize("limit", [1, 3, 7, 100])
def test_pages_neither_skip_nor_repeat(client: Client, new_span: NewSpan, limit: int) -> None:
    moment = time.time_ns()
    # Many share a start time, and some a trace: the ids have to complete the order.
    spans = [new_span(start_time_unix_nano=moment + n // 5) for n in range(25)]
    spans += [new_span(start_time_unix_nano=moment, trace_id=b"t" * 16) for _ in range(5)]
    client.send(*spans)
    found = [s for page in pages(client, limit=limit) for s in page]
    assert len(found) == 30
    assert {s["span_id"] for s in found} == {span.span_id.hex() for span in spans}
    starts = [s["start_time"] for s in found]
    assert starts == sorted(starts, reverse=True)


def test_pages_keep_their_filters(client: Client, new_span: NewSpan) -> None:
    client.send(*[new_span(service_name=name) for name in ("a&b=c", "other") * 10])
    found = list(pages(client, limit=3, service="a&b=c", since="1h"))
    assert [len(page) for page in found] == [3, 3, 3, 1]
    assert {s["service_name"] for page in found for s in page} == {"a&b=c"}


def test_paging_while_spans_arrive(client: Client, new_span: NewSpan) -> None:
    old = [new_span() for _ in range(100)]
    client.send(*old)
    stop = threading.Event()

    def ingest() -> None:
        while not stop.is_set():
            client.send(new_span())

    thread = threading.Thread(target=ingest)
    thread.start()
    try:
        found = [s["span_id"] for page in pages(client, limit=9) for s in page]
    finally:
        stop.set()
        thread.join()
    assert len(found) == len(set(found))
    assert {span.span_id.hex() for span in old} <= set(found)


def test_limit(client: Client, new_span: NewSpan) -> None:
    client.send(*[new_span() for _ in range(101)])
    assert len(client.get("/spans")) == 100
    assert len(client.get("/spans", limit=10_000)) == 101
    for wrong in ("abc", "0", "10001", "-1", "1.5", "1e2", "٣", "9" * 50):
        status, error = client.error("/spans", limit=wrong)
        assert (status, error) == (400, f"limit: expected 1 to 10000, got {wrong!r}")


def test_trace(client: Client, new_span: NewSpan) -> None:
    moment = time.time_ns()
    ids = {"trace_id": b"0123456789abcdef", "start_time_unix_nano": moment}
    child = new_span(**ids, duration_nanos=1, parent_span_id=b"parent00")
    root = new_span(**ids, duration_nanos=2, span_id=b"parent00")
    late = new_span(trace_id=ids["trace_id"], start_time_unix_nano=moment + 1)
    client.send(late, child, root, new_span())
    answer = client.get("/traces/30313233343536373839616263646566")
    assert answer["trace_id"] == "30313233343536373839616263646566"
    assert [s["span_id"] for s in answer["spans"]] == [
        span.span_id.hex() for span in (root, child, late)
    ]
    assert "truncated" not in answer


def test_a_trace_without_end(
    client: Client, new_span: NewSpan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("infertrace.collector.query.routes.spans.MAX_TRACE_SPANS", 3)
    client.send(*[new_span(trace_id=b"t" * 16) for _ in range(4)])
    answer = client.get(f"/traces/{b't'.hex() * 16}")
    assert (len(answer["spans"]), answer["truncated"]) == (3, True)


def test_models(client: Client, new_span: NewSpan) -> None:
    moment = time.time_ns() - 10 * 10**9
    for number in range(100):
        client.send(
            new_span(
                model="meta-llama/Llama-3",
                start_time_unix_nano=moment + number * 10_000_000,
                duration_nanos=(number + 1) * 1_000_000,
                status="ERROR" if number < 5 else "OK",
                inference=InferenceContext(output_tokens=20),
            )
        )
    client.send(new_span(model="rare"), new_span(model=""))
    first, second = client.get("/models")
    assert first.pop("counted")["spans"] == "requests"
    expected = {
        "model_name": "meta-llama/Llama-3",
        "sample_count": 100,
        "p50_ms": 50.5,
        "p95_ms": pytest.approx(95.05),
        "p99_ms": pytest.approx(99.01),
        "error_rate": 0.05,
        # 2,000 tokens from the first start to the last end: 99 times 10 ms + 100 ms.
        "tokens_per_second": pytest.approx(2_000 / 1.09),
        "last_seen": format_rfc3339(moment + 1_090_000_000),
    }
    assert first == expected
    assert (second["model_name"], second["sample_count"]) == ("rare", 1)
    assert "tokens_per_second" not in second
    assert [m["model_name"] for m in client.get("/models", limit=1)] == ["meta-llama/Llama-3"]
    for name in ("meta-llama/Llama-3", "meta-llama%2FLlama-3"):
        latency = client.get(f"/models/{name}/latency", window="1h")
        assert latency.pop("counted")["spans"] == "requests"
        assert latency == {**expected, "window_seconds": 3600.0}


def test_latency_without_samples(client: Client, new_span: NewSpan) -> None:
    client.send(new_span(start_time_unix_nano=time.time_ns() - 3_600 * 10**9))
    answer = client.get("/models/gpt-4/latency", window="90s")
    assert answer.pop("counted")["operation"] is None
    assert answer == {
        "model_name": "gpt-4",
        "sample_count": 0,
        "window_seconds": 90.0,
    }
    assert client.get("/models/gpt-4/latency", window="2h")["sample_count"] == 1


def test_latency_against_a_baseline(client: Client, new_span: NewSpan) -> None:
    now = time.time_ns()
    minute = 60 * 10**9
    for age, duration_ms, status in ((1, 30, "OK"), (2, 30, "ERROR"), (7, 20, "OK"), (9, 20, "OK")):
        client.send(
            new_span(
                start_time_unix_nano=now - age * minute,
                duration_nanos=duration_ms * 1_000_000,
                status=status,
            )
        )
    client.send(new_span(start_time_unix_nano=now - 60 * minute))  # before the baseline
    answer = client.get("/models/gpt-4/latency", window="5m", baseline="10m")
    assert (answer["sample_count"], answer["p50_ms"]) == (2, 30.0)
    assert (answer["baseline"]["sample_count"], answer["baseline"]["p50_ms"]) == (2, 20.0)
    assert answer["baseline"]["window_seconds"] == 600.0
    assert answer["change"] == {
        "sample_count": pytest.approx(1.0),  # as many in half of the time
        "p50_ms": pytest.approx(0.5),
        "p95_ms": pytest.approx(0.5),
        "p99_ms": pytest.approx(0.5),
        "error_rate": None,  # there were none before
        "tokens_per_second": None,
        **{
            f"{name}_{percentile}_ms": None
            for name in ("time_to_first_token", "queue_wait_time", "inter_token_latency")
            for percentile in ("p50", "p95", "p99")
        },
    }
    empty = client.get("/models/gpt-4/latency", window="1s", baseline="1s")
    assert set(empty["change"].values()) == {None}
    assert client.error("/models/gpt-4/latency", baseline="x")[0] == 400


def test_series(client: Client, new_span: NewSpan) -> None:
    minute = 60 * 10**9
    first = (time.time_ns() // minute - 3) * minute
    for offset, wait in ((0, 1.0), (minute - 1, 3.0), (2 * minute, None)):
        context = InferenceContext(output_tokens=30, queue_wait_time_ms=wait)
        client.send(
            new_span(
                model="a/b",
                start_time_unix_nano=first + offset,
                duration_nanos=(offset % 7 + 1) * 1_000_000,
                status="ERROR" if wait is None else "OK",
                inference=context,
            )
        )

    def points(**parameters: Any) -> Any:
        answer = client.get("/models/a/b/series", **parameters)
        assert answer["model_name"] == "a/b"
        return [(p["time"], p["sample_count"], p["value"]) for p in answer["points"]]

    times = [format_rfc3339(first), format_rfc3339(first + 2 * minute)]
    assert [point[:2] for point in points()] == [(times[0], 2), (times[1], 1)]
    assert points(metric="queue_wait_time_ms") == [(times[0], 2, 2.0), (times[1], 1, None)]
    assert points(metric="tokens_per_second")[0][2] == pytest.approx(1.0)
    assert points(metric="spans_per_second", step="2m", window="10m")[-1][2] > 0
    assert [p[2] for p in points(metric="error_rate")] == [0.0, 1.0]
    assert points(metric="gpu_utilization_percent")[0][2] is None
    assert points(metric="p50_ms")[0][2] == pytest.approx(
        (1 + ((minute - 1) % 7 + 1)) / 2
    )  # interpolated
    assert client.get("/models/a/b/series", window="1s", step="1s")["points"] == []
    status, error = client.error("/models/a/b/series", metric="p42_ms")
    assert (status, error[:33]) == (400, "metric: expected one of p50_ms, p")
    status, error = client.error("/models/a/b/series", window="1000d", step="1s")
    assert (status, error) == (400, "step: expected at most 10000 steps in the time")


def test_statistics_are_of_requests(client: Client, new_span: NewSpan) -> None:
    """As examples/llm.py records them: one request of 18 s, and its spans on two hosts."""
    moment = time.time_ns() - 60 * 10**9
    request = new_span(
        operation_name="chat", start_time_unix_nano=moment, duration_nanos=18 * 10**9
    )
    elsewhere = new_span(
        operation_name="serve",
        parent_span_id=request.span_id,
        flags=0x301,
        start_time_unix_nano=moment,
        duration_nanos=16 * 10**9,
    )
    steps = [
        new_span(
            operation_name=name,
            parent_span_id=request.span_id,
            flags=flags,
            start_time_unix_nano=moment,
            duration_nanos=2_000_000,
        )
        for name, flags in (("tokenize", 0), ("tokenize", 1), ("join", 0x101))
    ]
    client.send(request, elsewhere, *steps)

    def asked(**parameters: Any) -> Any:
        path = "/models/gpt-4/latency"
        answers = [
            client.get(path, window="1h", **parameters),
            client.get("/models", **parameters)[0],
        ]
        points = client.get("/models/gpt-4/series", metric="p50_ms", **parameters)
        (point,) = points["points"]
        counts = {point["sample_count"], *(answer["sample_count"] for answer in answers)}
        medians = {point["value"], *(answer["p50_ms"] for answer in answers)}
        counted = [answer["counted"] for answer in (*answers, points)]
        assert len({(each["spans"], each["operation"]) for each in counted}) == 1
        return (*counts, *medians, counted[0]["spans"], counted[0]["operation"])

    assert asked() == (2, 17_000.0, "requests", None)
    assert asked(operation="tokenize") == (2, 2.0, "operation", "tokenize")
    assert asked(operation="*") == (5, 2.0, "all", None)
    none = client.get("/models/gpt-4/latency", window="1h", operation="nothing")
    assert (none["sample_count"], none["counted"]["operation"]) == (0, "nothing")


def test_statistics_of_a_time(client: Client, new_span: NewSpan) -> None:
    minute = 60 * 10**9
    now = time.time_ns() // minute * minute
    for age, duration_ms in ((1, 30), (31, 20), (33, 20), (60 * 24 * 3, 10)):
        client.send(
            new_span(start_time_unix_nano=now - age * minute, duration_nanos=duration_ms * 10**6)
        )
    bounds = {
        "since": format_rfc3339(now - 40 * minute),
        "until": format_rfc3339(now - 30 * minute),
    }
    latency = client.get("/models/gpt-4/latency", **bounds, baseline="4d")
    assert (latency["sample_count"], latency["p50_ms"], latency["window_seconds"]) == (2, 20.0, 600)
    assert latency["counted"] == {"spans": "requests", "operation": None, **bounds}
    assert (latency["baseline"]["sample_count"], latency["baseline"]["p50_ms"]) == (1, 10.0)
    assert latency["baseline"]["counted"]["until"] == bounds["since"]
    (model,) = client.get("/models", **bounds)
    assert (model["sample_count"], model["counted"]) == (2, latency["counted"])
    series = client.get("/models/gpt-4/series", metric="spans_per_second", step="10m", **bounds)
    assert sum(point["sample_count"] for point in series["points"]) == 2
    assert client.get("/models/gpt-4/latency", since="35m")["sample_count"] == 3
    assert client.get("/models/gpt-4/latency", until="2d")["sample_count"] == 0
    for path in ("/models", "/models/gpt-4/latency", "/models/gpt-4/series"):
        assert client.error(path, window="5m", since="1h") == (
            400,
            "window: expected without since",
        )
        assert client.error(path, since="5m", until="1h") == (
            400,
            "since: expected a time before until, which is now by default",
        )


def test_percentiles_of_what_a_client_waits_for(client: Client, new_span: NewSpan) -> None:
    moment = time.time_ns() - 60 * 10**9
    for number in range(101):
        client.send(
            new_span(
                start_time_unix_nano=moment + number,
                inference=InferenceContext(
                    time_to_first_token_ms=number, queue_wait_time_ms=10 * number
                ),
            )
        )
    client.send(new_span(start_time_unix_nano=moment))  # has no value
    expected = {
        f"{name}_{percentile}_ms": pytest.approx(factor * value)
        for name, factor in (("time_to_first_token", 1), ("queue_wait_time", 10))
        for percentile, value in (("p50", 50), ("p95", 95), ("p99", 99))
    }
    latency = client.get("/models/gpt-4/latency")
    assert {name: latency[name] for name in expected} == expected
    (model,) = client.get("/models")
    assert {name: model[name] for name in expected} == expected
    for name, value in expected.items():
        series = client.get("/models/gpt-4/series", metric=name)
        assert (series["aggregate"], series["points"][-1]["value"]) == ("quantile", value)
    mean = client.get("/models/gpt-4/series", metric="time_to_first_token_ms")
    assert (mean["aggregate"], mean["points"][-1]["value"]) == ("mean", pytest.approx(50))


@pytest.mark.parametrize("route", ["latency", "series"])
def test_a_model_that_nobody_traced(client: Client, new_span: NewSpan, route: str) -> None:
    client.send(new_span(parent_span_id=b"12345678"))
    assert client.error(f"/models/nope/{route}") == (
        404,
        "no model 'nope': it has no span in that time, nor in the last 24h",
    )
    assert client.get(f"/models/gpt-4/{route}")["counted"]["spans"] == "requests"


@pytest.mark.parametrize("wrong", ["5", "0m", "-5m", "5 m", "5y", "m", "٣m", "1.5h"])
def test_window(client: Client, wrong: str) -> None:
    for path in ("/models", "/models/gpt-4/latency"):
        status, error = client.error(path, window=wrong)
        assert status == 400
        assert error.startswith("window: expected a duration such as 90s")


@pytest.mark.parametrize(
    ("path", "status", "error"),
    [
        ("/spans?color=red", 400, "color: unknown parameter; expected model, service,"),
        ("/spans?limit=1&limit=2", 400, "limit: given more than once"),
        ("/ledger?model=x", 400, "model: unknown parameter; expected limit"),
        ("/traces/xyz", 400, "trace_id: expected 32 hexadecimal digits, got 'xyz'"),
        ("/traces/" + "ab" * 16, 404, "no trace abab"),
        ("/traces/" + "ab" * 16 + "?x=1", 400, "x: unknown parameter; expected explain"),
        ("/nowhere", 404, "no such route: /nowhere"),
        ("/spans/", 404, "no such route: /spans/"),
    ],
)
def test_errors_are_json(client: Client, path: str, status: int, error: str) -> None:
    found, text = client.error(path)
    assert (found, text[: len(error)]) == (status, error)


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_other_methods(client: Client, method: str) -> None:
    answer = client.http.request(method, "/spans")
    assert (answer.status_code, answer.json()) == (
        405,
        {"error": f"{method}: expected GET or HEAD"},
    )
    assert answer.headers["Allow"] == "GET"


@pytest.mark.parametrize("path", ["/spans", "/health", "/metrics", "/nowhere"])
def test_head_is_get_without_the_body(client: Client, path: str) -> None:
    answers = [client.http.request(method, path) for method in ("HEAD", "GET")]
    assert answers[0].content == b""
    assert answers[0].status_code == answers[1].status_code
    assert answers[0].headers["Content-Type"] == answers[1].headers["Content-Type"]


def test_a_store_that_cannot_answer(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise StoreError("/secret is gone")

    for store in (JournaledStore, PostgresStore):
        monkeypatch.setattr(store, "spans", fail)
    assert client.error("/spans") == (503, "the store cannot answer")
    for store in (JournaledStore, PostgresStore):
        monkeypatch.setattr(store, "spans", lambda *_: 1 / 0)
    assert client.error("/spans") == (500, "internal error")


def test_health(client: Client) -> None:
    assert client.get("/health") == {"status": "ok"}


def test_openapi(client: Client) -> None:
    document = client.get("/openapi.json")
    assert set(document["paths"]) == {
        "/spans",
        "/traces/{trace_id}",
        "/traces/{trace_id}/companions",
        "/traces/{trace_id}/why",
        "/compare",
        "/export/perfetto",
        "/facets",
        "/gpu",
        "/heatmap",
        "/jaeger/api/dependencies",
        "/jaeger/api/services",
        "/jaeger/api/services/{service}/operations",
        "/jaeger/api/traces",
        "/jaeger/api/traces/{trace_id}",
        "/overview",
        "/slo",
        "/sql",
        "/tail",
        "/steps",
        "/steps/{engine}/{index}/members",
        "/models",
        "/models/{model}/latency",
        "/models/{model}/series",
        "/ledger",
        "/health",
        "/metrics",
    }
    names = [p["name"] for p in document["paths"]["/spans"]["get"]["parameters"]]
    assert {"model", "since", "until", "limit", "cursor"} <= set(names)
    answers = [
        operation["responses"] for path in document["paths"].values() for operation in path.values()
    ]
    assert all("422" not in responses for responses in answers)
    assert len(set(itertools.chain.from_iterable(answers))) >= 2
