"""Real programs' requests, byte for byte: each span is stored, with the tokens of the server.

`emitters/` has one folder for each run of a program: its requests in the order in which they came,
and in `truth.json` what the server answered to each call. They were recorded on one machine, whose
paths and host id were replaced by texts of the same length.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from infertrace.collector.server import Collector

EMITTERS = Path(__file__).with_name("emitters")
VLLM = {"unknown_service:python": "tiny-llama", "vllm-small-cache": "tiny-llama"}


class Sent:
    """What came of the requests of one program."""

    def __init__(self, folder: Path, collector: Collector) -> None:
        self.query = httpx.Client(base_url=f"http://{collector.http_address}")
        for path in sorted(folder.glob("traces-*")):
            kind = "json" if path.suffix == ".json" else "x-protobuf"
            answer = httpx.post(
                f"http://{collector.otlp_http_address}/v1/traces",
                content=path.read_bytes(),
                headers={"Content-Type": f"application/{kind}"},
            )
            assert answer.status_code == 200, answer.content
            assert answer.content in (b"", b"{}"), answer.content
        truth = folder / "truth.json"
        self.truth = json.loads(truth.read_text())["requests"] if truth.exists() else []

    def spans(self, **where: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.query.get(
            "/spans", params={"limit": 10_000, **where}
        ).json()
        return found


@pytest.fixture
def sent(request: pytest.FixtureRequest) -> Iterator[Sent]:
    with Collector(
        "127.0.0.1:0",
        "127.0.0.1:0",
        "memory:",
        otlp_http_address="127.0.0.1:0",
        default_models=VLLM,
    ) as collector:
        made = Sent(EMITTERS / request.param, collector)
        yield made
        made.query.close()


def usage_of(answer: dict[str, Any]) -> tuple[int, int] | None:
    usage = answer.get("usage") or {}
    for names in (("prompt_tokens", "completion_tokens"), ("input_tokens", "output_tokens")):
        if names[0] in usage:
            return usage[names[0]], usage[names[1]]
    return None


# Spans; of them those with a model, with tokens, with the time to the first token.
COUNTS = {
    "collector-http-json-gzip": (68, 38, 38, 38),
    "java-grpc": (21, 0, 0, 0),
    "litellm-otlp_grpc": (15, 8, 7, 0),
    "logfire": (19, 14, 7, 0),
    "mlflow-http": (11, 10, 6, 2),
    "node-json": (7, 3, 2, 0),
    "node-proto": (7, 3, 2, 0),
    "openai-v2-grpc-default": (13, 10, 6, 0),
    "openai-v2-grpc-latest-span-and-event": (13, 10, 6, 0),
    "openinference-http": (14, 9, 7, 3),
    "python-json": (15, 11, 7, 3),
    "retry-python-grpc": (3, 0, 0, 0),
    "retry-telemetrygen-http": (2, 0, 0, 0),
    "rust-http": (21, 5, 5, 0),
    "rust-json": (21, 5, 5, 0),
    "telemetrygen-grpc": (48, 0, 0, 0),
    "traceloop-grpc": (14, 11, 7, 3),
    "traceloop-old-0.40-grpc": (13, 10, 6, 2),
    "vllm-grpc-detailed": (50, 38, 38, 38),
    "vllm-startup-failure": (12, 0, 0, 0),
    "web-vllm-grpc-oldhttp": (148, 7, 7, 7),
}


@pytest.mark.parametrize(("sent", "counts"), COUNTS.items(), ids=COUNTS, indirect=["sent"])
def test_what_each_span_says(sent: Sent, counts: tuple[int, int, int, int]) -> None:
    spans = sent.spans()
    with_each = [
        sum(key in span for span in spans)
        for key in ("model_name", "input_tokens", "time_to_first_token_ms")
    ]
    assert (len(spans), *with_each) == counts
    for span in spans:
        if "time_to_first_token_ms" in span:
            assert 0 < span["time_to_first_token_ms"] <= span["duration_ms"]
    models = {span["model_name"] for span in spans if "model_name" in span}
    assert sum(len(sent.spans(model=model)) for model in models) == counts[1]


# LiteLLM invents what a stream does not say; these programs leave streams without usage out.
CHECKED = {
    "logfire": 7,
    "mlflow-http": 6,
    "node-json": 2,
    "node-proto": 2,
    "openai-v2-grpc-default": 6,
    "openai-v2-grpc-latest-span-and-event": 6,
    "openinference-http": 7,
    "python-json": 7,
    "traceloop-grpc": 7,
    "traceloop-old-0.40-grpc": 6,
    "litellm-otlp_grpc": 6,
    "vllm-grpc-detailed": 31,  # one call was not sampled; two had the same id
    "web-vllm-grpc-oldhttp": 6,
}


@pytest.mark.parametrize(("sent", "checked"), CHECKED.items(), ids=CHECKED, indirect=["sent"])
def test_tokens_are_those_of_the_server(sent: Sent, checked: int) -> None:
    """Of all calls whose usage the server said, as many as are known to have a span."""
    found = Counter(
        (span["input_tokens"], span["output_tokens"])
        for span in sent.spans()
        if "input_tokens" in span and "output_tokens" in span
    )
    by_request: dict[str, list[dict[str, Any]]] = {}
    for span in sent.spans():
        if "request_id" in span and "output_tokens" in span:
            # vLLM adds the number of the prompt to the id of a completion.
            request_id = re.sub(r"^(cmpl-\w+)-\d+$", r"\1", span["request_id"])
            by_request.setdefault(request_id, []).append(span)
    equal = 0
    for answer in sent.truth:
        usage = usage_of(answer)
        if usage is None:
            continue
        of_one = by_request.get(answer.get("id", ""), [])
        if len(of_one) > 1:
            equal += sum(span["output_tokens"] for span in of_one) == usage[1]
        elif found[usage]:
            found[usage] -= 1
            equal += 1
    assert equal >= checked
