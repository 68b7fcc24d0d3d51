"""A running collector behaves as its OpenAPI document says, for all requests."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis.specs.openapi.checks import positive_data_acceptance

from collector_client import Client, NewSpan, OpenClient
from infertrace.collector.server import Collector
from infertrace.generated.span_pb2 import InferenceContext

EXAMPLES = 60  # for each route


@pytest.fixture(scope="module")
def address() -> Iterator[Collector]:
    with Collector("127.0.0.1:0", "127.0.0.1:0", "memory:") as collector:
        yield collector


@pytest.fixture
def collector_client(address: Collector, open_client: OpenClient, new_span: NewSpan) -> Client:
    client = open_client(address.grpc_address, address.http_address)
    client.send(*[new_span(model=f"m{n % 3}", tags={"n": str(n)}) for n in range(200)])
    return client


def test_every_route_keeps_to_its_description(address: Collector, collector_client: Client) -> None:
    schema = schemathesis.openapi.from_url(f"http://{address.http_address}/openapi.json")
    asked = 0
    results: Any = schema.get_all_operations()
    for result in results:
        operation = result.ok()

        @given(case=operation.as_strategy())
        @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
        def ask(case: Any) -> None:
            nonlocal asked
            # No schema says which cursors were in an answer, which dates are not before 1970, how
            # many steps a window may have, that all periods have to begin before they end, or
            # which texts are JSON or SQL.
            unsaid = {"cursor", "since", "until", "step", "window", "baseline_since"}
            unsaid |= {"baseline_until", "select_since", "select_until", "tags", "query"}
            unsaid &= set(case.query or ())
            excluded = [positive_data_acceptance] if unsaid else []
            case.call_and_validate(timeout=30, excluded_checks=excluded)
            asked += 1

        ask()
    assert asked > EXAMPLES


@given(
    # An HTTP client removes "." and ".." from a path before it sends it.
    name=st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30).filter(
        lambda name: name not in (".", "..")
    ),
    path=st.sampled_from(["latency", "series"]),
)
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_name_of_a_model(collector_client: Client, name: str, path: str) -> None:
    answer = collector_client.http.get(f"/models/{quote(name, safe='')}/{path}")
    assert answer.status_code == 404, answer.text
    assert answer.json()["error"].startswith(f"no model {name!r}: it has no span in that time")


@pytest.mark.parametrize("parameter", ["window", "baseline", "step", "metric", "since"])
def test_hostile_parameters_of_a_model(client: Client, parameter: str) -> None:
    for hostile in ("'; DROP TABLE spans; --", "1m' OR '1'='1", "p95_ms)", "1m; SELECT 1", "\x00"):
        path = "latency" if parameter == "baseline" else "series"
        if parameter == "window":
            assert client.error("/models", window=hostile)[0] == 400
        status, error = client.error(f"/models/m/{path}", **{parameter: hostile})
        assert status == 400
        assert error.startswith(f"{parameter}: expected ")


def test_hostile_models_match_exactly(client: Client, new_span: NewSpan) -> None:
    names = ["' OR '1'='1", "'; DROP TABLE spans; --", "%", "a\x00b", "..", "a/latency", "é漢🙂"]
    now = time.time_ns()
    for name in names:
        context = InferenceContext(model_name=name, output_tokens=1)
        client.send(new_span(inference=context, start_time_unix_nano=now))
    for name in names:
        path = f"/models/{quote(name, safe='')}"
        if name != "..":  # an HTTP client resolves it
            assert client.get(f"{path}/latency", window="1h")["sample_count"] == 1
            (point,) = client.get(f"{path}/series", metric="spans_per_second")["points"]
            assert point["sample_count"] == 1
    assert {m["model_name"] for m in client.get("/models")} == set(names)
