"""TLS and mutual TLS: which clients can connect, and how a tracer reacts."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from infertrace.collector.query import http_server
from infertrace.collector.server import Collector
from infertrace.collector.tls import TlsFileError, TlsFiles
from infertrace.generated.span_pb2 import SendSpanBatchRequest
from infertrace.generated.span_pb2_grpc import CollectorServiceStub
from otlp_requests import export_request, otlp_span

RPC_TIMEOUT_S = 30


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


def files(folder: Path, authority: trustme.CA, clients: trustme.CA | None = None) -> TlsFiles:
    leaf = authority.issue_cert("localhost", "127.0.0.1")
    certificate, key = folder / "collector.pem", folder / "collector.key"
    leaf.private_key_pem.write_to_path(str(key))
    certificate.write_bytes(b"".join(blob.bytes() for blob in leaf.cert_chain_pems))
    if clients is None:
        return TlsFiles(certificate, key)
    trusted = folder / "clients.pem"
    clients.cert_pem.write_to_path(str(trusted))
    return TlsFiles(certificate, key, trusted)


def send(address: str, span: Any, credentials: grpc.ChannelCredentials | None) -> int:
    channel = (
        grpc.insecure_channel(address)
        if credentials is None
        else grpc.secure_channel(address, credentials)
    )
    with channel:
        request = SendSpanBatchRequest(spans=[span])
        answer = CollectorServiceStub(channel).SendSpanBatch(request, timeout=RPC_TIMEOUT_S)
        return int(answer.accepted_count)


def credentials(authority: trustme.CA, clients: trustme.CA | None = None) -> Any:
    root = authority.cert_pem.bytes()
    if clients is None:
        return grpc.ssl_channel_credentials(root)
    leaf = clients.issue_cert("producer")
    chain = b"".join(blob.bytes() for blob in leaf.cert_chain_pems)
    return grpc.ssl_channel_credentials(root, leaf.private_key_pem.bytes(), chain)


def assert_refused(address: str, span: Any, given: grpc.ChannelCredentials | None) -> None:
    with pytest.raises(grpc.RpcError) as failure:
        send(address, span, given)
    assert failure.value.code() is grpc.StatusCode.UNAVAILABLE


def test_tls(tmp_path: Path, authority: trustme.CA, new_span: Any) -> None:
    tls = files(tmp_path, authority)
    with Collector("127.0.0.1:0", "127.0.0.1:0", "memory:", tls=tls) as collector:
        address = collector.grpc_address
        assert send(address, new_span(), credentials(authority)) == 1
        assert_refused(address, new_span(), None)
        assert_refused(address, new_span(), credentials(trustme.CA()))


def test_mutual_tls(tmp_path: Path, authority: trustme.CA, new_span: Any) -> None:
    producers = trustme.CA()
    tls = files(tmp_path, authority, producers)
    with Collector("127.0.0.1:0", "127.0.0.1:0", "memory:", tls=tls) as collector:
        address = collector.grpc_address
        assert send(address, new_span(), credentials(authority, producers)) == 1
        assert_refused(address, new_span(), credentials(authority))
        assert_refused(address, new_span(), credentials(authority, trustme.CA()))


@contextmanager
def running(tls: TlsFiles) -> Iterator[Collector]:
    addresses = ("127.0.0.1:0", "127.0.0.1:0")
    with Collector(*addresses, "memory:", tls=tls, otlp_http_address="127.0.0.1:0") as collector:
        yield collector


def https(authority: trustme.CA, clients: trustme.CA | None = None) -> httpx.Client:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    if clients is not None:
        clients.issue_cert("reader").configure_cert(context)
    return httpx.Client(verify=context, trust_env=False, timeout=RPC_TIMEOUT_S)


def sent_and_read(collector: Collector, client: httpx.Client) -> int:
    """Send a span over HTTP and count what is stored."""
    answer = client.post(
        f"https://{collector.otlp_http_address}/v1/traces",
        content=export_request(otlp_span()).SerializeToString(),
        headers={"content-type": "application/x-protobuf"},
    )
    assert answer.status_code == 200
    return len(client.get(f"https://{collector.http_address}/spans").json())


def test_tls_over_http(tmp_path: Path, authority: trustme.CA) -> None:
    with running(files(tmp_path, authority)) as collector:
        with https(authority) as client:
            assert sent_and_read(collector, client) == 1
        for address in (collector.http_address, collector.otlp_http_address):
            with https(trustme.CA()) as client, pytest.raises(httpx.ConnectError):
                client.get(f"https://{address}/health")
            with pytest.raises(httpx.HTTPError):
                httpx.get(f"http://{address}/health", trust_env=False)


def test_mutual_tls_over_http(tmp_path: Path, authority: trustme.CA) -> None:
    clients = trustme.CA()
    with running(files(tmp_path, authority, clients)) as collector:
        with https(authority, clients) as client:
            assert sent_and_read(collector, client) == 1
        for address in (collector.http_address, collector.otlp_http_address):
            for wrong in (None, trustme.CA()):
                with https(authority, wrong) as client, pytest.raises(httpx.HTTPError):
                    client.get(f"https://{address}/health")


def test_a_handshake_that_does_not_come_to_its_end(
    tmp_path: Path, authority: trustme.CA, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_server, "HANDSHAKE_TIMEOUT_S", 0.2)
    with running(files(tmp_path, authority)) as collector:
        for address in (collector.http_address, collector.otlp_http_address):
            host, _, port = str(address).rpartition(":")
            connection = socket.create_connection((host, int(port)), RPC_TIMEOUT_S)
            with connection, suppress(ConnectionResetError):
                assert connection.recv(1) == b""


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    missing = TlsFiles(tmp_path / "none.pem", tmp_path / "none.key")
    with pytest.raises(TlsFileError, match=r"none\.key") as failure:
        Collector("127.0.0.1:0", "127.0.0.1:0", "memory:", tls=missing).start()
    assert failure.value.file == "key"


@pytest.mark.parametrize(
    ("file", "spoiled"),
    [("certificate", "certificate"), ("certificate", "key"), ("client_authority",) * 2],
)
def test_a_file_that_is_not_what_it_should_be(
    tmp_path: Path, authority: trustme.CA, file: str, spoiled: str
) -> None:
    tls = files(tmp_path, authority, trustme.CA())
    getattr(tls, spoiled).write_text("nonsense")
    for load in (tls.credentials, tls.context):
        with pytest.raises(TlsFileError, match=getattr(tls, spoiled).name) as failure:
            load()
        assert failure.value.file == file


def test_a_key_of_another_certificate_or_with_a_password(
    tmp_path: Path, authority: trustme.CA
) -> None:
    tls = files(tmp_path, authority)
    other = authority.issue_cert("localhost").private_key_pem.bytes()
    locked = load_pem_private_key(other, None).private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"a password")
    )
    for key in (other, locked):
        tls.key.write_bytes(key)
        with pytest.raises(TlsFileError, match="not of that key"):
            tls.credentials()
