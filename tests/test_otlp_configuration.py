"""Settings of OTLP: which protocol and endpoint count, and what OpenTelemetry's variables mean."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from infertrace.configuration import Settings, resolve, resolve_with_sources
from infertrace.exporting.target import Target

PREFIX = "OTEL_EXPORTER_OTLP_"
HTTP = "http://collector:4318"


def otel(**values: str) -> dict[str, str]:
    return {f"{PREFIX}{name}": value for name, value in values.items()}


def where(settings: Settings) -> tuple[str, str]:
    return settings.protocol, settings.endpoint


CHOICES: list[tuple[dict[str, Any], dict[str, str], tuple[str, str]]] = [
    ({}, {}, ("infertrace", "localhost:4317")),
    ({"protocol": "otlp/grpc"}, {}, ("otlp/grpc", "http://localhost:4317")),
    ({"protocol": "otlp/http"}, {}, ("otlp/http", "http://localhost:4318/v1/traces")),
    ({}, {"INFERTRACE_PROTOCOL": "otlp/grpc"}, ("otlp/grpc", "http://localhost:4317")),
    (
        {"protocol": "infertrace"},
        {"INFERTRACE_PROTOCOL": "otlp/grpc"},
        ("infertrace", "localhost:4317"),
    ),
    # Only OpenTelemetry names an endpoint.
    ({}, otel(ENDPOINT=HTTP), ("otlp/http", f"{HTTP}/v1/traces")),
    ({}, otel(ENDPOINT=f"{HTTP}/"), ("otlp/http", f"{HTTP}/v1/traces")),
    ({}, otel(ENDPOINT=f"{HTTP}/base/"), ("otlp/http", f"{HTTP}/base/v1/traces")),
    ({}, otel(TRACES_ENDPOINT=HTTP), ("otlp/http", f"{HTTP}/")),
    ({}, otel(TRACES_ENDPOINT=f"{HTTP}/own"), ("otlp/http", f"{HTTP}/own")),
    ({}, otel(ENDPOINT="http://a:1", TRACES_ENDPOINT="http://b:2"), ("otlp/http", "http://b:2/")),
    ({}, otel(ENDPOINT="https://a"), ("otlp/http", "https://a:443/v1/traces")),
    ({}, otel(ENDPOINT=HTTP, PROTOCOL="http/protobuf"), ("otlp/http", f"{HTTP}/v1/traces")),
    ({}, otel(ENDPOINT="http://a:1", PROTOCOL="grpc"), ("otlp/grpc", "http://a:1")),
    ({}, otel(ENDPOINT="http://a:1/x", PROTOCOL="grpc"), ("otlp/grpc", "http://a:1")),
    ({}, otel(ENDPOINT="grpc://a:1", PROTOCOL="grpc"), ("otlp/grpc", "http://a:1")),
    (
        {},
        otel(ENDPOINT="http://a:1", PROTOCOL="http/protobuf", TRACES_PROTOCOL="grpc"),
        ("otlp/grpc", "http://a:1"),
    ),
    # Without a scheme gRPC is secure, unless it is said not to be.
    ({}, otel(ENDPOINT="a:1", PROTOCOL="grpc"), ("otlp/grpc", "https://a:1")),
    ({}, otel(ENDPOINT="a:1", PROTOCOL="grpc", INSECURE="true"), ("otlp/grpc", "http://a:1")),
    (
        {},
        otel(ENDPOINT="a:1", PROTOCOL="grpc", INSECURE="true", TRACES_INSECURE="false"),
        ("otlp/grpc", "https://a:1"),
    ),
    # What is ours counts first.
    ({"endpoint": "a:1"}, otel(ENDPOINT=HTTP), ("infertrace", "a:1")),
    ({}, {"INFERTRACE_ENDPOINT": "a:1", **otel(ENDPOINT=HTTP)}, ("infertrace", "a:1")),
    ({"protocol": "infertrace"}, otel(ENDPOINT=HTTP), ("infertrace", "localhost:4317")),
    ({"protocol": "otlp/http"}, otel(ENDPOINT=HTTP), ("otlp/http", f"{HTTP}/v1/traces")),
    (
        {"protocol": "otlp/grpc"},
        {"INFERTRACE_ENDPOINT": "a:1", **otel(ENDPOINT=HTTP)},
        ("otlp/grpc", "http://a:1"),
    ),
    ({}, otel(PROTOCOL="grpc"), ("infertrace", "localhost:4317")),
    # Our own endpoint as a URL.
    ({"endpoint": "a:1", "protocol": "otlp/http"}, {}, ("otlp/http", "http://a:1/v1/traces")),
    ({"endpoint": f"{HTTP}/b", "protocol": "otlp/http"}, {}, ("otlp/http", f"{HTTP}/b/v1/traces")),
    (
        {"endpoint": f"{HTTP}/b/v1/traces", "protocol": "otlp/http"},
        {},
        ("otlp/http", f"{HTTP}/b/v1/traces"),
    ),
    (
        {"endpoint": "https://[::1]:9", "protocol": "otlp/grpc"},
        {},
        ("otlp/grpc", "https://[::1]:9"),
    ),
]


@pytest.mark.parametrize(("arguments", "environ", "expected"), CHOICES)
def test_protocol_and_endpoint(
    arguments: dict[str, Any], environ: dict[str, str], expected: tuple[str, str]
) -> None:
    settings, _, problems = resolve_with_sources(arguments, environ)
    assert where(settings) == expected
    assert problems == []


def test_where_they_came_from() -> None:
    _, sources, _ = resolve_with_sources({}, otel(ENDPOINT=HTTP))
    assert sources["endpoint"] == sources["protocol"] == f"{PREFIX}ENDPOINT"
    _, sources, _ = resolve_with_sources({}, otel(TRACES_ENDPOINT=HTTP, PROTOCOL="grpc"))
    assert sources["endpoint"] == f"{PREFIX}TRACES_ENDPOINT"
    assert sources["protocol"] == f"{PREFIX}PROTOCOL"


def test_variables_of_otlp_exporters_never_steer_our_own_protocol() -> None:
    """Clusters with OpenTelemetry set them for every program."""
    names = ("HEADERS", "CERTIFICATE", "CLIENT_KEY", "COMPRESSION", "TIMEOUT", "PROTOCOL")
    for value in ("http://collector:4318/v1/traces", "zstd", "/nowhere", "key=value"):
        environ = otel(**dict.fromkeys((*names, *(f"TRACES_{name}" for name in names)), value))
        settings, _, problems = resolve_with_sources({"endpoint": "a:1"}, environ)
        assert settings == resolve({"endpoint": "a:1"}, {})
        assert problems == []


def test_what_the_variables_mean(tmp_path: Path) -> None:
    for name in ("ca", "key", "chain"):
        (tmp_path / name).write_text("pem")
    environ = otel(
        ENDPOINT="https://a:1",
        HEADERS="Authorization=Bearer%20a%2Cb, x-b = 2,",
        COMPRESSION="gzip",
        TIMEOUT="2500",
        CERTIFICATE=str(tmp_path / "ca"),
        CLIENT_KEY=str(tmp_path / "key"),
        CLIENT_CERTIFICATE=str(tmp_path / "chain"),
    )
    settings, sources, problems = resolve_with_sources({}, environ)
    assert problems == []
    assert settings.headers == {"authorization": "Bearer a,b", "x-b": "2"}
    assert (settings.compression, settings.timeout_s) == ("gzip", 2.5)
    assert settings.certificate_file == str(tmp_path / "ca")
    assert settings.client_key_file == str(tmp_path / "key")
    assert settings.client_certificate_file == str(tmp_path / "chain")
    assert sources["timeout_s"] == f"{PREFIX}TIMEOUT"
    environ |= otel(TRACES_TIMEOUT="1000", TRACES_HEADERS="c=d", TRACES_COMPRESSION="none")
    settings = resolve({}, environ)
    assert (settings.headers, settings.timeout_s) == ({"c": "d"}, 1.0)
    assert settings.compression == "none"
    environ |= {"INFERTRACE_HEADERS": "e=f", "INFERTRACE_TIMEOUT_S": "7"}
    settings = resolve({}, environ)
    assert (settings.headers, settings.timeout_s) == ({"e": "f"}, 7.0)
    assert resolve({"timeout_s": 3}, environ).timeout_s == 3


@pytest.mark.parametrize(
    ("environ", "message", "expected"),
    [
        (otel(ENDPOINT="a:1"), "ENDPOINT: expected http://HOST", ("infertrace", "localhost:4317")),
        (
            otel(ENDPOINT="http://user:pass@a:1"),
            "ENDPOINT: expected .* without a user and a password.* got a value not shown here",
            ("infertrace", "localhost:4317"),
        ),
        (
            otel(ENDPOINT=HTTP, TRACES_ENDPOINT="ftp://x"),
            "TRACES_ENDPOINT: expected",
            ("otlp/http", f"{HTTP}/v1/traces"),
        ),
        (
            otel(ENDPOINT=HTTP, PROTOCOL="http/json"),
            "PROTOCOL: expected grpc or http/protobuf, got 'http/json'",
            ("otlp/http", f"{HTTP}/v1/traces"),
        ),
        (
            otel(ENDPOINT=HTTP, TIMEOUT="ten"),
            "TIMEOUT: expected milliseconds from 1 to 3600000",
            ("otlp/http", f"{HTTP}/v1/traces"),
        ),
        (
            otel(ENDPOINT=HTTP, HEADERS="secret"),
            "HEADERS: expected key=value,key=value, got a value not shown here",
            ("otlp/http", f"{HTTP}/v1/traces"),
        ),
        (
            otel(ENDPOINT=HTTP, COMPRESSION="zstd"),
            "COMPRESSION: expected none or gzip",
            ("otlp/http", f"{HTTP}/v1/traces"),
        ),
        (
            {"INFERTRACE_PROTOCOL": "otlp"},
            "INFERTRACE_PROTOCOL: expected infertrace, otlp/grpc, otlp/http, got 'otlp'",
            ("infertrace", "localhost:4317"),
        ),
        (
            {"INFERTRACE_CONVENTIONS": "otel,what"},
            "INFERTRACE_CONVENTIONS: expected some of otel, openinference, langfuse, got 'what'",
            ("infertrace", "localhost:4317"),
        ),
    ],
)
def test_a_bad_variable_is_one_problem(
    environ: dict[str, str], message: str, expected: tuple[str, str]
) -> None:
    settings, _, (problem,) = resolve_with_sources({}, environ)
    assert where(settings) == expected
    assert re.search(message, problem), problem
    assert "secret" not in problem
    assert "pass@" not in problem


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"protocol": "grpc"}, "protocol: expected infertrace, otlp/grpc, otlp/http, got 'grpc'"),
        (
            {"protocol": "otlp/grpc", "endpoint": "http://a:1/x"},
            r"endpoint: expected HOST:PORT, .*",
        ),
        ({"protocol": "otlp/http", "endpoint": "file:///a"}, "endpoint: expected HOST:PORT, http"),
        ({"protocol": "otlp/http", "endpoint": "http://a:1?x=1"}, "without a query"),
        ({"protocol": "otlp/http", "endpoint": "a"}, "endpoint: expected HOST:PORT"),
        ({"protocol": "otlp/http", "endpoint": "http://a:0"}, "endpoint: expected HOST:PORT"),
        ({"protocol": "otlp/http", "endpoint": "http://a b:1"}, "endpoint: expected HOST:PORT"),
        ({"protocol": "otlp/http", "endpoint": "http://a:1/é"}, "of printable ASCII"),
        ({"endpoint": "https://user:pass@a:1"}, "endpoint: .* got a value not shown here"),
        ({"conventions": "x"}, "conventions: expected some of otel, openinference, langfuse"),
        ({"conventions": ()}, "conventions: expected at least one name"),
        ({"timeout_s": 0}, "timeout_s: expected a number from 0.05 to 3600"),
        ({"headers": {"a\nb": "c"}}, "headers: expected names of letters, .* not shown here"),
        ({"headers": {"a": "c\r\nd: e"}}, "headers: expected names of letters, .* not shown here"),
    ],
)
def test_a_bad_argument_raises(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as raised:
        resolve(arguments, {})
    assert "pass@" not in str(raised.value)


def test_conventions() -> None:
    assert resolve({}, {}).conventions == ("otel",)
    names = ("langfuse", "otel")
    assert resolve({"conventions": list(names)}, {}).conventions == names
    assert resolve({}, {"INFERTRACE_CONVENTIONS": "langfuse, otel,otel"}).conventions == names


def test_batches_are_smaller_where_they_grow() -> None:
    assert resolve({}, {}).max_batch_bytes == 1024 * 1024
    assert resolve({"protocol": "otlp/grpc"}, {}).max_batch_bytes == 256 * 1024
    given = {"protocol": "otlp/grpc", "max_batch_bytes": 4096}
    assert resolve(given, {}).max_batch_bytes == 4096


def test_targets() -> None:
    target = Target.of(resolve({"endpoint": "https://a/x", "protocol": "otlp/http"}, {}))
    assert (target.address, target.tls, target.path) == ("a:443", True, "/x/v1/traces")
    target = Target.of(resolve({"endpoint": "http://a:1/"}, {}))
    assert (target.address, target.tls, target.wire) == ("a:1", False, "infertrace")
