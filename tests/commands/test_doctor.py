"""`infertrace doctor` against a real collector, and against other servers at an endpoint."""

from __future__ import annotations

import http.server
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from grpc_receiver import Receiver
from infertrace.collector.server import Collector
from infertrace.distribution import DISTRIBUTION
from otlp_receiver import GrpcOtlpReceiver, HttpOtlpReceiver
from traced_program import sender_of, wait_until


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


def test_the_gpus_and_who_reads_them(
    receiver: Receiver,
    fake_driver: Path,
    new_tracer: Callable[..., Any],
    sender_directory: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    place = sender_directory / "gpus"
    place.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(place))
    monkeypatch.setenv("LD_LIBRARY_PATH", str(fake_driver.parent))
    monkeypatch.setenv("FAKE_NVML_GPUS", "2")
    monkeypatch.setenv("FAKE_NVML_MIG", "1")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-1")
    tracer = new_tracer(receiver.endpoint, resource_interval_s=1)
    wait_until(lambda: _has_gpu(tracer))
    code, found, printed = doctor("--endpoint", receiver.endpoint)
    assert code == 0
    assert "gpu_device_id GPU-10000000-fake" in found["GPU"]["detail"]
    assert found["GPU, devices"]["detail"] == (
        "GPU 0 Fake 0 GPU-5f0c7a52-fake; "
        "MIG instance of GPU 0 Fake 0 MIG 1g.10gb MIG-00000000-fake; "
        "GPU 1 Fake 0 GPU-10000000-fake"
    )
    assert found["GPU, read by"]["detail"] == "the shared sender process, for all its clients"
    assert "reads 2 GPUs and 1 MIG instances every 1 s for 1 clients" in printed
    assert "MIG-00000000-fake: utilization: " in printed
    code, found, _ = doctor("--endpoint", receiver.endpoint, INFERTRACE_SENDER_PROCESS="none")
    assert found["GPU, read by"]["detail"] == "each traced process"
    code, found, _ = doctor("--endpoint", receiver.endpoint, CUDA_VISIBLE_DEVICES="-1")
    assert "CUDA_VISIBLE_DEVICES hides all GPUs" in found["GPU"]["detail"]


def _has_gpu(tracer: Any) -> bool:
    tracer.start_span("m").end()
    sample = tracer._recorder.sample
    return sample is not None and b"GPU-10000000-fake" in sample[0]


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
    # A tracer would deliver it once the token is right, but doctor does not wait for that.
    assert found["test span"]["detail"] == "not accepted: no answer in time"


@pytest.fixture(params=[GrpcOtlpReceiver, HttpOtlpReceiver])
def otlp(request: pytest.FixtureRequest) -> Iterator[GrpcOtlpReceiver | HttpOtlpReceiver]:
    receiver = request.param()
    yield receiver
    receiver.stop()


def test_a_receiver_of_otlp(otlp: GrpcOtlpReceiver | HttpOtlpReceiver) -> None:
    code, found, _ = doctor("--endpoint", otlp.endpoint, "--protocol", otlp.protocol)
    assert code == 0
    way = "gRPC" if otlp.protocol == "otlp/grpc" else "HTTP"
    assert found["protocol"]["detail"] == f"OTLP over {way}"
    assert found["configuration, protocol"]["detail"] == f"'{otlp.protocol}' (argument)"
    assert found["test span"]["state"] == "ok"
    assert [span.name for span in otlp.spans] == ["doctor"]


def test_a_receiver_of_otlp_that_only_opentelemetry_names(
    otlp: GrpcOtlpReceiver | HttpOtlpReceiver,
) -> None:
    protocol = "grpc" if otlp.protocol == "otlp/grpc" else "http/protobuf"
    code, found, _ = doctor(
        OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{otlp.port}",
        OTEL_EXPORTER_OTLP_PROTOCOL=protocol,
    )
    assert code == 0
    assert "(OTEL_EXPORTER_OTLP_ENDPOINT)" in found["configuration, endpoint"]["detail"]
    shown = found["configuration, protocol"]["detail"]
    assert shown == f"'{otlp.protocol}' (OTEL_EXPORTER_OTLP_PROTOCOL)"
    assert found["test span"]["state"] == "ok"


@pytest.mark.parametrize("otlp", [GrpcOtlpReceiver], indirect=True)
def test_a_collector_of_another_protocol(otlp: GrpcOtlpReceiver) -> None:
    code, found, _ = doctor("--endpoint", otlp.endpoint)
    assert code == 0
    assert found["protocol"]["state"] == "note"
    assert "spans go there by OTLP" in found["protocol"]["detail"]
    assert found["test span"]["state"] == "ok"


def test_a_path_that_takes_no_otlp(receiver: Receiver) -> None:
    code, found, _ = doctor("--endpoint", receiver.endpoint, "--protocol", "otlp/http")
    assert code == 1
    assert found["protocol"]["state"] == "problem"


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


def test_the_http_side_of_a_collector() -> None:
    with Collector("127.0.0.1:0", "127.0.0.1:0", "memory:") as collector:
        code, found, _ = doctor("--endpoint", collector.http_address, "--timeout", "2")
    assert code == 1
    assert (
        "it answers HTTP/1.1, not gRPC: the HTTP side of a collector of infertrace; spans go to "
        "a collector's gRPC port, 4317 by default" in found["protocol"]["detail"]
    )


@pytest.mark.parametrize(
    ("port", "hint"),
    [("4318", "the port of OTLP over HTTP"), ("8080", "on which a collector answers over HTTP")],
)
def test_a_port_that_is_given_for_the_right_one(port: str, hint: str) -> None:
    # A loopback address on which nothing listens.
    code, found, _ = doctor("--endpoint", f"127.83.29.7:{port}", "--timeout", "1")
    assert code == 1
    assert hint in found["endpoint"]["detail"]
    assert "spans go to a collector's gRPC port, 4317" in found["endpoint"]["detail"]


def test_variables_that_say_nothing() -> None:
    _, found, printed = doctor(
        "--endpoint",
        "127.0.0.1:1",
        INFERTRACE_SEVICE_NAME="a",
        infertrace_headers="x-key=hidden",
        INFERTRCE_ENDPOINT="b",
        INFERTRACE_COLLECTOR_SPOONS="c",
        INFERTRACE_WHATEVER_ELSE_THERE_IS="d",
        INFERTRACE_COLLECTOR_STORE="memory:",
    )
    notes = {
        check.removeprefix("variable, "): finding
        for check, finding in found.items()
        if check.startswith("variable, ")
    }
    assert {finding["state"] for finding in notes.values()} == {"note"}
    assert {name: finding["detail"] for name, finding in notes.items()} == {
        "INFERTRACE_SEVICE_NAME": "no such variable: INFERTRACE_SERVICE_NAME may be meant",
        "infertrace_headers": "no such variable: INFERTRACE_HEADERS may be meant",
        "INFERTRCE_ENDPOINT": "no such variable: INFERTRACE_ENDPOINT may be meant",
        "INFERTRACE_COLLECTOR_SPOONS": (
            "no such variable: INFERTRACE_COLLECTOR_STORE may be meant"
        ),
        "INFERTRACE_WHATEVER_ELSE_THERE_IS": "infertrace has no such variable",
    }
    assert "hidden" not in printed


def test_an_endpoint_of_opentelemetry_that_does_not_count(receiver: Receiver) -> None:
    check = "variable, OTEL_EXPORTER_OTLP_ENDPOINT"
    given = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}
    _, found, _ = doctor(INFERTRACE_ENDPOINT=receiver.endpoint, **given)
    assert found[check]["state"] == "note"
    assert "(INFERTRACE_ENDPOINT)" in found[check]["detail"]
    _, found, _ = doctor("--timeout", "1", **given)
    assert check not in found


def install(folder: Path, name: str, version: str, files: dict[str, str]) -> None:
    """pip's metadata of a distribution that claims our files, as they are here."""
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (info / "RECORD").write_text(
        "".join(f"{path},sha256=x,{len(text)}\n" for path, text in files.items())
    )


def test_files_of_the_other_project(tmp_path: Path) -> None:
    (tmp_path / "infertrace").mkdir()
    own = {"infertrace/__init__.py": "ours", "infertrace/tracer.py": "tracer"}
    install(tmp_path, DISTRIBUTION, "9.9", own)
    for path, text in own.items():
        (tmp_path / path).write_text(text)
    # The package still comes from where the tests run; the check judges what is installed.
    probe = "from infertrace.commands.installation_check import check_installation as check; "
    probe += "print(*check()[1:], sep='|')"

    def judged() -> str:
        done = subprocess.run(
            [
                sys.executable,
                "-c",
                f"import infertrace, sys; sys.path.insert(0, sys.argv[1]); {probe}",
                str(tmp_path),
            ],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        return done.stdout.strip()

    assert judged() == f"ok|{DISTRIBUTION} 9.9"
    install(tmp_path, "infertrace", "0.1.0", {})
    assert judged().startswith("note|infertrace 0.1.0, another project, is installed too; pip un")
    (tmp_path / "infertrace" / "__init__.py").write_text("of the other project")
    assert (
        "problem|infertrace 0.1.0, another project, is installed too; missing or not ours: "
        "infertrace/__init__.py; pip uninstall infertrace, then" in judged()
    )


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


def test_a_sender_its_clients_and_what_it_holds(
    new_tracer: Any, receiver: Receiver, sender_directory: Path
) -> None:
    nowhere = new_tracer("127.0.0.1:1", headers={"x-key": "hidden"})
    nowhere.start_span("m").end()
    assert nowhere.shutdown(60)
    tracer = new_tracer(receiver.endpoint, service_name="chat")
    tracer.start_span("m").end()
    assert tracer.flush(60)
    _, found, printed = doctor("--endpoint", receiver.endpoint)
    assert str(sender_directory) in found["sender process"]["detail"]
    (said,) = (
        finding["detail"]
        for check, finding in found.items()
        if check.startswith("sender process, ")
        and f"process {sender_of(tracer)}," in finding["detail"]
    )
    assert f"{os.getpid()} chat" in said
    assert "holds 1 spans of 1 processes that have ended, for 127.0.0.1:1" in said
    assert "hidden" not in printed
