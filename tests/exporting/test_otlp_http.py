"""What a receiver of OTLP over HTTP may answer, and what becomes of the spans."""

from __future__ import annotations

import contextlib
import email.utils
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTracePartialSuccess,
    ExportTraceServiceResponse,
)

from backend_recording import assert_closed
from drawn_otlp_spans import encode, envelope
from infertrace.exporting.answer import Overloaded, Retryable, Stumbled
from infertrace.exporting.choice import open_here
from infertrace.exporting.http_proxy import find_proxy
from infertrace.exporting.target import Target
from otlp_receiver import PROTOBUF, HttpAnswer, HttpOtlpReceiver, spans_of
from traced_program import run_program

SPAN = envelope(
    encode({"trace_id": b"t" * 16, "span_id": b"s" * 8, "start_time_unix_nano": 1, "status": "OK"})
)


@pytest.fixture
def receiver() -> Iterator[HttpOtlpReceiver]:
    receiver = HttpOtlpReceiver()
    yield receiver
    receiver.stop()


@pytest.fixture
def tracer(new_tracer: Any, receiver: HttpOtlpReceiver) -> Any:
    return new_tracer(receiver.endpoint, protocol="otlp/http")


def answers(receiver: HttpOtlpReceiver, *first: HttpAnswer) -> None:
    """Give these answers first, and then accept."""
    left = list(first)
    receiver.answer = lambda request, headers: left.pop(0) if left else HttpAnswer()


def test_spans_arrive(tracer: Any, receiver: HttpOtlpReceiver) -> None:
    for number in range(3):
        with tracer.start_span("gpt-4") as span:
            span.set_tokens(input=24, output=number)
        assert tracer.flush(30)
    assert tracer.stats()["delivered"] == 3
    assert [span.name for span in receiver.spans] == ["text_completion gpt-4"] * 3
    assert set(receiver.paths) == {"/v1/traces"}
    assert receiver.connections == 1
    headers = receiver.metadata[0]
    assert headers["content-type"] == PROTOBUF
    assert headers["user-agent"].startswith("infertrace/")
    (group,) = receiver.requests[0].resource_spans
    resource = {it.key: it.value.string_value for it in group.resource.attributes}
    assert resource["service.name"] == "tests"
    assert len(resource["service.instance.id"]) == 36
    assert tracer.shutdown(30)
    assert len(receiver.requests) == 3  # no goodbye


def test_headers_token_compression_and_path(new_tracer: Any, receiver: HttpOtlpReceiver) -> None:
    tracer = new_tracer(
        f"{receiver.endpoint}/api/public/otel",
        protocol="otlp/http",
        headers={"X-Scope": "a b"},
        token="secret",
        compression="gzip",
    )
    tracer.start_span("m").end()
    assert tracer.flush(30)
    headers = receiver.metadata[0]
    assert (headers["x-scope"], headers["authorization"]) == ("a b", "Bearer secret")
    assert headers["content-encoding"] == "gzip"
    assert receiver.paths == ["/api/public/otel/v1/traces"]


RETRIED = {
    429: Overloaded,
    500: Stumbled,
    **dict.fromkeys((301, 401, 403, 404, 405, 408, 415, 501, 502, 503, 504), Retryable),
}


@pytest.mark.parametrize("status", RETRIED)
def test_statuses_that_are_retried(receiver: HttpOtlpReceiver, status: int) -> None:
    receiver.answer = lambda request, headers: HttpAnswer(status, b"\x12\x03why")
    target = Target(f"127.0.0.1:{receiver.port}", tls=False, headers={}, wire="otlp/http")
    transport = open_here(target)
    with pytest.raises(Retryable, match=f"HTTP {status}: why") as raised:
        transport.send((SPAN,), 1, 30)
    assert type(raised.value) is RETRIED[status]
    receiver.answer = receiver.accept
    assert transport.send((SPAN,), 1, 30) == (1, 0, "")
    transport.close()


def test_a_closed_transport_sends_nothing(receiver: HttpOtlpReceiver) -> None:
    target = Target(f"127.0.0.1:{receiver.port}", tls=False, headers={}, wire="otlp/http")
    transport = open_here(target)
    transport.close()
    with pytest.raises(Retryable, match="closed"):
        transport.send((SPAN,), 1, 30)
    assert not receiver.requests


@pytest.mark.parametrize("status", [400, 422])
def test_statuses_that_are_not_retried(
    tracer: Any, receiver: HttpOtlpReceiver, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    answers(receiver, HttpAnswer(status, b"\x08\x03\x12\x06odd id"))
    tracer.start_span("m").end()
    assert tracer.flush(30)
    assert len(receiver.requests) == 1
    assert tracer.stats()["dropped"] == {"rejected": 1}
    assert f"HTTP {status}: odd id" in caplog.text


TOO_LARGE = [
    HttpAnswer(413),
    HttpAnswer(400, b"http: request body too large", {"Content-Type": "text/plain"}),
]


@pytest.mark.parametrize("answer", TOO_LARGE)
def test_a_batch_that_is_too_large_is_split(
    tracer: Any, receiver: HttpOtlpReceiver, answer: HttpAnswer
) -> None:
    def judge(request: Any, headers: Any) -> HttpAnswer:
        found = spans_of(request)
        is_bad = len(found) > 3 or any(span.name == "bad m" for span in found)
        return answer if is_bad or any(span.name == "bad" for span in found) else HttpAnswer()

    receiver.answer = judge
    for number in range(20):
        tracer.start_span("m", "bad" if number == 7 else "good").end()
    assert tracer.flush(30)
    stats = tracer.stats()
    assert (stats["delivered"], stats["dropped"]) == (19, {"rejected": 1})


@pytest.mark.parametrize("kind", ["seconds", "date", "retry info"])
def test_a_time_to_come_again_is_kept(tracer: Any, receiver: HttpOtlpReceiver, kind: str) -> None:
    times = []

    def judge(request: Any, headers: Any) -> HttpAnswer:
        times.append(time.time())
        if len(times) > 1:
            return HttpAnswer()
        if kind == "retry info":
            from infertrace.wire.retry_info import retry_details

            return HttpAnswer(503, retry_details("slow", 1))
        moment = email.utils.formatdate(times[0] + 2, usegmt=True)
        after = "1" if kind == "seconds" else moment
        return HttpAnswer(429, b"", {"Retry-After": after, "Content-Type": PROTOBUF})

    receiver.answer = judge
    tracer.start_span("m").end()
    assert tracer.flush(30)
    assert times[1] - times[0] >= 0.9  # what the receiver asked for, not a speed
    assert tracer.stats()["delivered"] == 1


@pytest.mark.parametrize("text", ["soon", "-1", "1e400", "Thu, 99 Foo 2026", "9" * 400])
def test_a_time_that_is_none_is_no_error(
    tracer: Any, receiver: HttpOtlpReceiver, text: str
) -> None:
    answers(receiver, HttpAnswer(503, b"", {"Retry-After": text}))
    tracer.start_span("m").end()
    tracer.flush(0.1)
    tracer.shutdown(0)
    assert_closed(tracer.stats())


def test_a_partial_success_is_counted_and_not_retried(
    tracer: Any, receiver: HttpOtlpReceiver, caplog: pytest.LogCaptureFixture
) -> None:
    partial = ExportTracePartialSuccess(rejected_spans=1, error_message="odd id")
    body = ExportTraceServiceResponse(partial_success=partial).SerializeToString()
    answers(receiver, HttpAnswer(body=body), HttpAnswer(body=body))
    for _ in range(2):
        tracer.start_span("m").end()
        tracer.start_span("m").end()
        assert tracer.flush(30)
    stats = tracer.stats()
    assert stats["dropped"] == {"rejected": len(receiver.requests[:2])}
    assert sum("odd id" in message for message in caplog.messages) == 1


def test_a_warning_is_said_once(
    tracer: Any, receiver: HttpOtlpReceiver, caplog: pytest.LogCaptureFixture
) -> None:
    partial = ExportTracePartialSuccess(error_message="slow down")
    body = ExportTraceServiceResponse(partial_success=partial).SerializeToString()
    receiver.answer = lambda request, headers: HttpAnswer(body=body)
    for _ in range(2):
        tracer.start_span("m").end()
        assert tracer.flush(30)
    assert tracer.stats()["delivered"] == 2
    assert sum("slow down" in message for message in caplog.messages) == 1


@pytest.mark.parametrize("rejected", [-5, 10**6])
def test_nonsense_in_the_answer_keeps_the_ledger_closed(
    tracer: Any, receiver: HttpOtlpReceiver, rejected: int
) -> None:
    partial = ExportTracePartialSuccess(rejected_spans=rejected)
    body = ExportTraceServiceResponse(partial_success=partial).SerializeToString()
    receiver.answer = lambda request, headers: HttpAnswer(body=body)
    tracer.start_span("m").end()
    assert tracer.flush(30)
    assert_closed(tracer.stats())


JSON = {"Content-Type": "application/json; charset=utf-8"}


@pytest.mark.parametrize(
    ("body", "delivered"),
    [
        (b"{}", 1),
        (b'{"partialSuccess":{}}', 1),
        (b'{"partialSuccess":{"rejectedSpans":"1","errorMessage":"odd"}}', 0),
    ],
)
def test_an_answer_in_json(
    tracer: Any, receiver: HttpOtlpReceiver, body: bytes, delivered: int
) -> None:
    receiver.answer = lambda request, headers: HttpAnswer(200, body, JSON)
    tracer.start_span("m").end()
    assert tracer.flush(30)
    assert tracer.stats()["delivered"] == delivered


NO_ANSWERS = [
    HttpAnswer(200, b"<html>Sign in</html>", {"Content-Type": "text/html"}),
    HttpAnswer(200, b"[]", JSON),
    HttpAnswer(200, b"{", JSON),
    HttpAnswer(200, b"", {"Content-Length": "50", "Connection": "close"}, cut=False),
    HttpAnswer(cut=True),
]


@pytest.mark.parametrize("answer", NO_ANSWERS)
def test_what_is_no_answer_of_a_receiver_delivers_nothing(
    tracer: Any, receiver: HttpOtlpReceiver, answer: HttpAnswer
) -> None:
    receiver.answer = lambda request, headers: answer
    tracer.start_span("m").end()
    assert not tracer.flush(0.5)
    assert tracer.stats()["pending"] == 1
    receiver.answer = receiver.accept
    assert tracer.flush(30)
    assert tracer.stats()["delivered"] == 1


def test_an_idle_connection_that_the_receiver_has_ended(
    tracer: Any, receiver: HttpOtlpReceiver
) -> None:
    answers(receiver, HttpAnswer(), HttpAnswer(cut=True))
    for _ in range(2):
        tracer.start_span("m").end()
        assert tracer.flush(30)
    assert tracer.stats()["delivered"] == 2
    assert receiver.connections == 2


@pytest.fixture
def dripping() -> Iterator[str]:
    """Answers one byte at a time, and never to the end."""
    ended = threading.Event()

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                connection.sendall(b"HTTP/1.1 200 OK\r\n")
                while not ended.wait(0.05):
                    try:
                        connection.sendall(b"a: b\r\n")
                    except OSError:
                        break

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        ended.set()
        listener.shutdown(socket.SHUT_RDWR)
    thread.join()


def test_an_answer_that_drips_has_a_deadline(
    new_tracer: Any, dripping: str, caplog: pytest.LogCaptureFixture
) -> None:
    tracer = new_tracer(dripping, protocol="otlp/http", timeout_s=0.3)
    tracer.start_span("m").end()
    wait_for_warning(tracer, caplog)
    assert "cannot deliver" in caplog.text
    assert_closed(tracer.stats())


def wait_for_warning(tracer: Any, caplog: pytest.LogCaptureFixture) -> None:
    deadline = time.monotonic() + 30
    while not caplog.messages:
        assert not tracer.flush(0.2)
        assert time.monotonic() < deadline


def test_nobody_listens(new_tracer: Any, caplog: pytest.LogCaptureFixture) -> None:
    tracer = new_tracer("http://127.0.0.1:1", protocol="otlp/http")
    tracer.start_span("m").end()
    wait_for_warning(tracer, caplog)
    assert tracer.stats()["pending"] == 1
    assert "ConnectionRefusedError" in caplog.text


def test_a_token_that_is_rotated(
    new_tracer: Any, receiver: HttpOtlpReceiver, tmp_path: Path
) -> None:
    token = tmp_path / "token"
    token.write_text("old")

    def judge(request: Any, headers: dict[str, str]) -> HttpAnswer:
        token.write_text("a new one")
        return HttpAnswer(200 if headers["authorization"] == "Bearer a new one" else 401)

    receiver.answer = judge
    tracer = new_tracer(receiver.endpoint, protocol="otlp/http", token_file=str(token))
    tracer.start_span("m").end()
    assert tracer.flush(30)
    assert [it["authorization"] for it in receiver.metadata] == ["Bearer old", "Bearer a new one"]


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def trusted(authority: trustme.CA, tmp_path: Path) -> str:
    path = tmp_path / "authority.pem"
    authority.cert_pem.write_to_path(path)
    return str(path)


@pytest.fixture
def tls_receiver(authority: trustme.CA) -> Iterator[HttpOtlpReceiver]:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost", "receiver.test").configure_cert(context)
    authority.configure_trust(context)
    context.verify_mode = ssl.CERT_OPTIONAL
    receiver = HttpOtlpReceiver(tls=context)
    yield receiver
    receiver.stop()


def test_tls_with_a_certificate_of_ours(
    new_tracer: Any,
    tls_receiver: HttpOtlpReceiver,
    authority: trustme.CA,
    trusted: str,
    tmp_path: Path,
) -> None:
    client = authority.issue_cert("client")
    client.cert_chain_pems[0].write_to_path(tmp_path / "chain.pem")
    client.private_key_pem.write_to_path(tmp_path / "key.pem")
    tracer = new_tracer(
        f"https://localhost:{tls_receiver.port}",
        protocol="otlp/http",
        certificate_file=trusted,
        client_certificate_file=tmp_path / "chain.pem",
        client_key_file=tmp_path / "key.pem",
    )
    for _ in range(2):
        tracer.start_span("m").end()
        assert tracer.flush(30)
    assert tracer.stats()["delivered"] == 2
    assert tls_receiver.connections == 1
    assert tls_receiver.metadata[0]["x-client"] == "client"


def test_an_authority_that_is_not_trusted(
    new_tracer: Any, tls_receiver: HttpOtlpReceiver, caplog: pytest.LogCaptureFixture
) -> None:
    tracer = new_tracer(f"https://localhost:{tls_receiver.port}", protocol="otlp/http")
    tracer.start_span("m").end()
    wait_for_warning(tracer, caplog)
    assert "certificate verify failed" in caplog.text
    assert tracer.stats()["pending"] == 1


def test_a_proxy_in_the_clear(
    new_tracer: Any, receiver: HttpOtlpReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", f"http://user:p%40ss@127.0.0.1:{receiver.port}")
    tracer = new_tracer("http://receiver.test:4318", protocol="otlp/http")
    tracer.start_span("m").end()
    assert tracer.flush(30)
    assert receiver.paths == ["http://receiver.test:4318/v1/traces"]
    assert receiver.metadata[0]["host"] == "receiver.test:4318"
    assert receiver.metadata[0]["proxy-authorization"] == "Basic dXNlcjpwQHNz"


@pytest.fixture
def tunnel(tls_receiver: HttpOtlpReceiver) -> Iterator[tuple[str, list[bytes]]]:
    """A proxy that takes one tunnel, and what it was asked for."""
    asked: list[bytes] = []

    def serve() -> None:
        client, _ = listener.accept()
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += client.recv(1)
        asked.append(head)
        with client, socket.create_connection(("127.0.0.1", tls_receiver.port)) as server:
            client.sendall(b"HTTP/1.1 200 Connected\r\n\r\n")
            back = threading.Thread(target=copy, args=(server, client))
            back.start()
            copy(client, server)
            back.join()

    def copy(source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while piece := source.recv(65536):
                sink.sendall(piece)
            sink.shutdown(socket.SHUT_RDWR)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        yield f"127.0.0.1:{listener.getsockname()[1]}", asked
    thread.join()


def test_a_proxy_with_tls_through_it(
    new_tracer: Any,
    tunnel: tuple[str, list[bytes]],
    tls_receiver: HttpOtlpReceiver,
    trusted: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    address, asked = tunnel
    monkeypatch.setenv("https_proxy", address)
    tracer = new_tracer("https://receiver.test", protocol="otlp/http", certificate_file=trusted)
    tracer.start_span("m").end()
    assert tracer.flush(30)
    assert len(tls_receiver.spans) == 1
    assert asked[0].startswith(b"CONNECT receiver.test:443 HTTP/1.")
    tracer.shutdown(10)


def test_no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://proxy:1")
    monkeypatch.setenv("no_proxy", "direct.test")
    assert find_proxy("direct.test", 4318, tls=False) is None
    assert find_proxy("127.0.0.1", 4318, tls=False) is None
    assert find_proxy("other.test", 4318, tls=False) == ("proxy", 1, {})


def test_the_traced_process_loads_nothing_of_it(backend: Any, receiver: HttpOtlpReceiver) -> None:
    done = run_program(
        backend,
        f"""
        import sys
        tracer = infertrace.Tracer("{receiver.endpoint}", protocol="otlp/http")
        tracer.start_span("m").end()
        assert tracer.flush(60)
        heavy = {{"grpc", "google.protobuf", "http.client", "ssl"}}
        heavy |= {{"infertrace.generated.otlp_attributes"}}
        print(sys.modules.keys() & heavy)
        """,
        INFERTRACE_SENDER_PROCESS="true",
    )
    assert (done.stdout, done.returncode) == ("set()\n", 0), done.stderr
    assert len(receiver.spans) == 1


def test_it_needs_no_grpc(backend: Any, receiver: HttpOtlpReceiver, sender: str) -> None:
    done = run_program(
        backend,
        f"""
        tracer = infertrace.Tracer("{receiver.endpoint}", protocol="otlp/http")
        tracer.start_span("m").end()
        assert tracer.flush(60), tracer.stats()
        """,
        first="import sys; sys.modules['grpc'] = None",
    )
    assert done.returncode == 0, done.stderr
    assert len(receiver.spans) == 1
