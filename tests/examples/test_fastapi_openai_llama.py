"""examples/fastapi_openai_llama.py under `infertrace run`: one trace from client to engine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from running_collector import Collector

EXAMPLE = Path(__file__).parents[2] / "examples" / "fastapi_openai_llama.py"
MAX_TOKENS = 12
DEADLINE_S = 240
# From the client to the engine: each is the parent of the next.
CHAIN = [*["chat", "POST /v1/chat/completions"] * 2, "chat"]


def test_one_trace_from_the_client_to_the_engine(
    collector: Collector, backend_name: str, tmp_path: Path
) -> None:
    code = EXAMPLE.read_text().partition('"""\n\n')[2]
    assert "infertrace" not in code
    assert "trace" not in code
    report = tmp_path / "report.json"
    words = [sys.executable, str(EXAMPLE), "--max-tokens", str(MAX_TOKENS), "--json", str(report)]
    done = subprocess.run(
        [sys.executable, "-m", "infertrace", "run", "--", *words],
        env={
            **os.environ,
            "INFERTRACE_BACKEND": backend_name,
            "INFERTRACE_ENDPOINT": collector.grpc_address,
            "INFERTRACE_SENDER_PROCESS": "own",  # all has arrived when it has ended
            "INFERTRACE_EXIT_TIMEOUT_S": "60",
        },
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
    )
    assert done.returncode == 0, done.stderr
    reports = json.loads(report.read_text())
    spans: list[dict[str, Any]] = collector.get("/spans", limit=1000)
    requests = sorted(
        (span for span in spans if not span.get("parent_span_id")),
        key=lambda span: span["start_time"],
    )
    assert len(spans) == len(CHAIN) * len(reports)
    assert len(requests) == len(reports)
    for request, said in zip(requests, reports, strict=True):
        check_chain(request, [s for s in spans if s["trace_id"] == request["trace_id"]], said)


def check_chain(span: dict[str, Any], trace: list[dict[str, Any]], said: dict[str, Any]) -> None:
    timings = said["timings"]
    first_ms = {operation: float("inf") for operation in CHAIN}
    for number, operation in enumerate(CHAIN):
        assert (span["operation_name"], span["status"]) == (operation, "OK")
        if operation == "chat":
            # The engine itself names its file.
            assert span["model_name"].removesuffix(".Q4_1") == "SmolLM2-135M-Instruct"
            assert span["output_tokens"] == timings["predicted_n"]
            assert span["input_tokens"] == timings["prompt_n"] + timings["cache_n"]
            is_cut_off = timings["predicted_n"] == MAX_TOKENS  # the model may end sooner
            assert span["finish_reason"] == ("length" if is_cut_off else "stop")
            assert span["attributes"]["llama_cpp.timings.predicted_ms"] == timings["predicted_ms"]
        # The nearer to the engine, the sooner it comes: a server's first chunk, which may have no
        # text, and a client's first token.
        assert span["time_to_first_token_ms"] < first_ms[operation]
        first_ms[operation] = span["time_to_first_token_ms"]
        if number + 1 < len(CHAIN):
            (span,) = [s for s in trace if s.get("parent_span_id") == span["span_id"]]
    assert span["duration_ms"] >= timings["predicted_ms"]
