"""TLS and mutual TLS for gRPC: which clients can connect, and how a tracer reacts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from infertrace.collector.server import Collector
from infertrace.collector.tls import TlsFileError, TlsFiles
from infertrace.generated.span_pb2 import SendSpanBatchRequest
from infertrace.generated.span_pb2_grpc import CollectorServiceStub

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
    with pytest.raises(TlsFileError, match=getattr(tls, spoiled).name) as failure:
        tls.credentials()
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
