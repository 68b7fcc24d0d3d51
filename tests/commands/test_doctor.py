"""`infertrace doctor` against a real collector, and against what else may be at an endpoint."""

from __future__ import annotations

import http.server
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
import pytest

from grpc_receiver import Receiver


def doctor(*arguments: str, **environ: str) -> tuple[int, dict[str, Any], str]:
    done = subprocess.run(
        [sys.executable, "-m", "infertrace", "doctor", "--json", "--timeout", "5", *arguments],
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        timeout=120,
    )
    found = {finding["check"]: finding for finding in json.loads(done.stdout)}
    return done.returncode, found, done.stdout + done.stderr


def test_a_collector(receiver: Receiver) -> None:
    code, found, _ = doctor("--endpoint", receiver.endpoint)
    assert code == 0
    assert {finding["state"] for finding in found.values()} <= {"ok", "note"}
    for check in ("versions", "backend", "clock", "GPU", "sender process"):
        assert found[check]["detail"]
    assert found["protocol"]["detail"] == "infertrace's over gRPC"
    assert found["test span"]["state"] == "ok"
    assert [span.inference.model_name for span in receiver.spans] == ["infertrace-doctor"]


def test_the_configuration_and_where_it_comes_from(receiver: Receiver, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("s3cret")
    code, found, printed = doctor(
        "--endpoint",
        receiver.endpoint,
        OTEL_SERVICE_NAME="from-otel",
        INFERTRACE_HEADERS="x-key=hidden",
        INFERTRACE_TOKEN_FILE=str(token),
    )
    assert code == 0
    assert found["configuration, endpoint"]["detail"] == f"'{receiver.endpoint}' (argument)"
    assert found["configuration, service_name"]["detail"] == "'from-otel' (OTEL_SERVICE_NAME)"
    assert found["configuration, headers"]["detail"] == "(not shown) (INFERTRACE_HEADERS)"
    assert found["configuration, sample_rate"]["detail"] == "1.0 (default)"
    assert not any(secret in printed for secret in ("hidden", "s3cret"))


def test_a_bad_setting() -> None:
    code, found, _ = doctor(INFERTRACE_SAMPLE_RATE="2")
    assert code == 1
    assert (
        "INFERTRACE_SAMPLE_RATE: expected a number from 0 to 1"
        in (found["configuration"]["detail"])
    )


def test_switched_off() -> None:
    code, found, _ = doctor(OTEL_SDK_DISABLED="true")
    assert code == 1
    assert found["tracing"]["detail"] == "switched off by OTEL_SDK_DISABLED"


def test_nobody_there() -> None:
    code, found, _ = doctor("--endpoint", "127.0.0.1:1")
    assert code == 1
    assert found["endpoint"]["state"] == "problem"
    assert "test span" not in found


def test_a_wrong_token(receiver: Receiver) -> None:
    def answer(request: Any, context: grpc.ServicerContext) -> Any:
        context.abort(grpc.StatusCode.UNAUTHENTICATED, "wrong token")

    receiver.answer = answer
    code, found, _ = doctor("--endpoint", receiver.endpoint, INFERTRACE_TOKEN="guess")
    assert code == 1
    assert "UNAUTHENTICATED: wrong token" in found["protocol"]["detail"]
    assert found["test span"]["detail"] == "not accepted: rejected"


@pytest.fixture
def otlp() -> Iterator[str]:
    def export(request: bytes, context: grpc.ServicerContext) -> bytes:
        return b""

    server = grpc.server(futures.ThreadPoolExecutor(2))
    handler = grpc.unary_unary_rpc_method_handler(export)
    server.add_generic_rpc_handlers(
        (
            grpc.method_handlers_generic_handler(
                "opentelemetry.proto.collector.trace.v1.TraceService", {"Export": handler}
            ),
        )
    )
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(0).wait()


def test_a_collector_of_another_protocol(otlp: str) -> None:
    code, found, _ = doctor("--endpoint", otlp)
    assert code == 1
    assert "UNIMPLEMENTED" in found["protocol"]["detail"]
    assert "it answers OTLP" in found["protocol"]["detail"]
    assert found["test span"]["state"] == "problem"


def test_a_web_server() -> None:
    with http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        code, found, _ = doctor("--endpoint", f"127.0.0.1:{server.server_port}", "--timeout", "2")
        server.shutdown()
        thread.join()
    assert code == 1
    assert found["endpoint"]["state"] == "ok"
    assert found["protocol"]["state"] == "problem"


def test_for_people(receiver: Receiver) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "infertrace", "doctor", "--endpoint", receiver.endpoint],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0
    assert "ok       test span: stored as a span of model infertrace-doctor\n" in done.stdout


def test_a_file(tmp_path: Path) -> None:
    code, found, _ = doctor("--endpoint", f"file://{tmp_path}/spans")
    assert (code, found["test span"]["state"]) == (0, "ok")
    code, found, printed = doctor("--endpoint", "file:///nowhere/spans", "--timeout", "1")
    assert (code, found["test span"]["state"]) == (1, "problem")
    assert "No such file or directory: '/nowhere/spans'" in printed
