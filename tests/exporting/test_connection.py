"""What a connection may want: TLS, mutual TLS, tokens, compression, and notice when it is dead."""

from __future__ import annotations

import datetime
import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme

from grpc_receiver import Receiver
from tcp_proxy import TcpProxy


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def trusted(authority: trustme.CA, tmp_path: Path) -> str:
    """The file of the authority's certificate."""
    path = tmp_path / "authority.pem"
    authority.cert_pem.write_to_path(path)
    return str(path)


@pytest.fixture
def new_tls_receiver() -> Iterator[Callable[..., Receiver]]:
    started: list[Receiver] = []

    def start(
        certificate: trustme.LeafCert, client_authority: trustme.CA | None = None
    ) -> Receiver:
        chain = b"".join(part.bytes() for part in certificate.cert_chain_pems)
        credentials = grpc.ssl_server_credentials(
            [(certificate.private_key_pem.bytes(), chain)],
            client_authority.cert_pem.bytes() if client_authority else None,
            client_authority is not None,
        )
        started.append(Receiver(credentials=credentials))
        return started[-1]

    yield start
    for receiver in started:
        receiver.stop()


def endpoint_of(receiver: Receiver) -> str:
    return f"https://localhost:{receiver.port}"


def flushed_until_said(tracer: Any, caplog: pytest.LogCaptureFixture) -> bool:
    """Whether a flush came through before the log says that one cannot."""
    deadline = time.monotonic() + 30
    while not caplog.messages:
        assert time.monotonic() < deadline
        if tracer.flush(0.2):
            return True
    return bool(tracer.flush(0.5))


def test_tls(new_tracer: Any, new_tls_receiver: Any, authority: trustme.CA, trusted: str) -> None:
    receiver = new_tls_receiver(authority.issue_cert("localhost"))
    tracer = new_tracer(endpoint_of(receiver), certificate_file=trusted)
    tracer.start_span("m").end()
    assert tracer.flush(30)
    assert len(receiver.spans) == 1


@pytest.mark.parametrize("why", ["wrong authority", "expired", "wrong name"])
def test_a_server_that_is_not_trusted(
    new_tracer: Any,
    new_tls_receiver: Any,
    authority: trustme.CA,
    trusted: str,
    caplog: pytest.LogCaptureFixture,
    why: str,
) -> None:
    """Nothing is sent, nothing is lost, and the log says it once."""
    past = datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(days=1)
    certificate = {
        "wrong authority": lambda: trustme.CA().issue_cert("localhost"),
        "expired": lambda: authority.issue_cert("localhost", not_after=past),
        "wrong name": lambda: authority.issue_cert("elsewhere.example"),
    }[why]()
    receiver = new_tls_receiver(certificate)
    tracer = new_tracer(endpoint_of(receiver), certificate_file=trusted)
    with caplog.at_level(logging.WARNING, "infertrace"):
        for _ in range(10):
            tracer.start_span("m").end()
        assert not flushed_until_said(tracer, caplog)
    assert receiver.spans == []
    assert tracer.stats()["pending"] == 10
    assert len(caplog.messages) == 1
    assert "cannot deliver spans, will keep trying: UNAVAILABLE" in caplog.messages[0]


def test_mutual_tls(
    new_tracer: Any, new_tls_receiver: Any, authority: trustme.CA, trusted: str, tmp_path: Path
) -> None:
    receiver = new_tls_receiver(authority.issue_cert("localhost"), authority)
    stranger = new_tracer(endpoint_of(receiver), certificate_file=trusted)
    stranger.start_span("m").end()
    assert not stranger.flush(0.5)
    ours = authority.issue_cert("client.example")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    ours.private_key_pem.write_to_path(key)
    ours.cert_chain_pems[0].write_to_path(certificate)
    tracer = new_tracer(
        endpoint_of(receiver),
        certificate_file=trusted,
        client_certificate_file=certificate,
        client_key_file=str(key),
    )
    tracer.start_span("m").end()
    assert tracer.flush(30)
    assert len(receiver.spans) == 1


def test_a_key_that_is_none_is_told_of(
    new_tracer: Any, trusted: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    nonsense = tmp_path / "key.pem"
    nonsense.write_text("no key")
    tracer = new_tracer(
        "https://localhost:1",
        certificate_file=trusted,
        client_certificate_file=nonsense,
        client_key_file=nonsense,
    )
    with caplog.at_level(logging.WARNING, "infertrace"):
        tracer.start_span("m").end()
        assert not flushed_until_said(tracer, caplog)
    assert tracer.stats()["pending"] == 1
    assert len(caplog.messages) == 1


def requires(token: str) -> Callable[..., Any]:
    def answer(request: Any, context: grpc.ServicerContext) -> Any:
        if dict(context.invocation_metadata()).get("authorization") != f"Bearer {token}":
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "wrong token")
        return Receiver.accept(request, context)

    return answer


def test_a_token(new_tracer: Any, receiver: Receiver, caplog: pytest.LogCaptureFixture) -> None:
    receiver.answer = requires("s3cret")
    tracer = new_tracer(receiver.endpoint, token="guess")
    with caplog.at_level(logging.WARNING, "infertrace"):
        tracer.start_span("m").end()
        assert not flushed_until_said(tracer, caplog)
    assert "UNAUTHENTICATED" in caplog.messages[0]
    assert tracer.stats()["pending"] == 1  # it is no fault of the span
    tracer.configure(token="s3cret")
    assert tracer.flush(30)
    assert tracer.stats()["delivered"] == 1


def test_a_token_file_that_is_rotated(new_tracer: Any, receiver: Receiver, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("first\n")
    receiver.answer = requires("first")
    tracer = new_tracer(receiver.endpoint, token_file=file)
    tracer.start_span("m").end()
    assert tracer.flush(30)
    replacement = tmp_path / "new"
    replacement.write_text("second\n")
    replacement.replace(file)
    receiver.answer = requires("second")
    tracer.start_span("m").end()
    assert tracer.flush(30)
    assert tracer.stats()["delivered"] == 2


def test_a_token_that_is_rotated_amid_a_request(
    new_tracer: Any, receiver: Receiver, tmp_path: Path
) -> None:
    """The collector has the new one first: what it refuses meanwhile is sent again."""
    file = tmp_path / "token"
    file.write_text("first")

    def rotate(request: Any, context: grpc.ServicerContext) -> Any:
        file.write_text("second")
        receiver.answer = requires("second")
        context.abort(grpc.StatusCode.UNAUTHENTICATED, "expired")

    receiver.answer = rotate
    tracer = new_tracer(receiver.endpoint, token_file=file)
    tracer.start_span("m").end()
    assert tracer.flush(30)
    assert tracer.stats()["delivered"] == 1


def test_a_token_file_that_goes_away(
    new_tracer: Any, receiver: Receiver, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "token"
    file.write_text("s3cret")
    tracer = new_tracer(receiver.endpoint, token_file=file)
    file.unlink()
    with caplog.at_level(logging.WARNING, "infertrace"):
        tracer.start_span("m").end()
        assert not flushed_until_said(tracer, caplog)
    assert f"cannot read the token file {file}" in caplog.messages[0]
    file.write_text("s3cret")
    assert tracer.flush(30)
    assert receiver.metadata[-1]["authorization"] == "Bearer s3cret"


def test_secrets_are_in_no_log(
    new_tracer: Any, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    receiver.answer = requires("another")
    with caplog.at_level(logging.DEBUG):
        tracer = new_tracer(receiver.endpoint, token="s3cret", headers={"x-key": "hidden"})
        tracer.start_span("m").end()
        assert not flushed_until_said(tracer, caplog)
        tracer.shutdown(0.1)
    assert caplog.messages
    assert not any(word in caplog.text for word in ("s3cret", "hidden"))


def test_compression(new_tracer: Any, receiver: Receiver, proxy: TcpProxy) -> None:
    sizes = []
    for compression in ("none", "gzip"):
        before = proxy.sent_bytes
        tracer = new_tracer(proxy.endpoint, compression=compression)
        for _ in range(2_000):
            tracer.start_span("m").end()
        assert tracer.flush(30)
        sizes.append(proxy.sent_bytes - before)
    assert len(receiver.spans) == 4_000
    assert sizes[1] < sizes[0] * 0.7  # ids are random and make up half of such a span
