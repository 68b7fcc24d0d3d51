"""What `--forward` takes."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from infertrace.collector.forwarding.forward_target import parse_forward, parse_forwards
from infertrace.collector.options import OptionError, add_arguments, resolve
from infertrace.collector.server import Collector


@pytest.mark.parametrize(
    ("url", "name", "expected"),
    [
        ("otlp/grpc://a", "otlp/grpc://a:4317", ("a:4317", False, "otlp/grpc", "/")),
        ("otlp/grpcs://[::1]:1", "otlp/grpcs://[::1]:1", ("[::1]:1", True, "otlp/grpc", "/")),
        (
            "otlp/http://a",
            "otlp/http://a:4318/v1/traces",
            ("a:4318", False, "otlp/http", "/v1/traces"),
        ),
        ("otlp/https://a:1/b/", "otlp/https://a:1/b/", ("a:1", True, "otlp/http", "/b/")),
        ("infertrace://a:1", "infertrace://a:1", ("a:1", False, "infertrace", "/")),
        ("infertraces://a:1/", "infertraces://a:1", ("a:1", True, "infertrace", "/")),
    ],
)
def test_urls(url: str, name: str, expected: tuple[str, bool, str, str]) -> None:
    forward = parse_forward(url)
    target = forward.target
    assert (forward.name, forward.share) == (name, 1.0)
    assert (target.address, target.tls, target.wire, target.path) == expected


def test_parameters(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("secret")
    url = f"otlp/http://a?share=0.1&token-file={token}&certificate={token}&compression=gzip"
    forward = parse_forward(url)
    assert forward.name == "otlp/http://a:4318/v1/traces"
    assert forward.share == 0.1
    assert forward.target.token_file == forward.target.certificate_file == str(token)
    assert forward.target.compression == "gzip"


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("a:1", "expected otlp/grpc://HOST:PORT"),
        ("http://a:1", "expected otlp/grpc://HOST:PORT"),
        ("otlp/grpc://", "expected otlp/grpc://HOST:PORT"),
        ("otlp/grpc://a:0", "expected otlp/grpc://HOST:PORT"),
        ("otlp/grpc://a:b", "expected otlp/grpc://HOST:PORT"),
        ("otlp/grpc://a:1/b", "only HTTP has a path"),
        ("otlp/http://user:secret@a", "token-file=PATH names a file"),
        ("otlp/http://a?share=0", "share: expected a number above 0 and up to 1"),
        ("otlp/http://a?share=nan", "share: expected a number above 0 and up to 1"),
        ("otlp/http://a?share=2", "share: expected a number above 0 and up to 1"),
        ("otlp/http://a?token=secret", "expected the parameters share, token-file"),
        ("otlp/http://a?share", "expected parameters such as"),
        ("otlp/http://a?compression=br", "compression: expected none or gzip"),
        ("otlp/http://a?token-file=/nowhere", "token-file: no such file: '/nowhere'"),
        ("otlp/http://a,otlp/http://a?share=0.5", "otlp/http://a:4318/v1/traces is given twice"),
    ],
)
def test_wrong_urls(url: str, message: str) -> None:
    with pytest.raises(ValueError, match=r"\w") as raised:
        parse_forwards(url)
    assert message in str(raised.value)
    assert "secret" not in str(raised.value)


def test_the_option() -> None:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    args = parser.parse_args(["--forward", "infertrace://a:1", "--forward", "infertrace://b:1"])
    options = resolve(args, {})
    assert options.forward is not None
    assert [it.name for it in options.forward] == ["infertrace://a:1", "infertrace://b:1"]
    listed = resolve(
        parser.parse_args([]),
        {"INFERTRACE_COLLECTOR_FORWARD": "infertrace://a:1, otlp/grpc://b:1?share=0.5"},
    )
    assert listed.forward is not None
    assert [it.share for it in listed.forward] == [1.0, 0.5]
    with pytest.raises(OptionError, match="--forward: expected otlp/grpc"):
        resolve(parser.parse_args(["--forward", "b:1"]), {})


def test_a_collector_does_not_forward_to_itself() -> None:
    collector = Collector(
        "127.0.0.1:4999",
        "127.0.0.1:0",
        "memory:",
        forward=parse_forwards("otlp/grpc://localhost:4999"),
    )
    with pytest.raises(ValueError, match="otlp/grpc://localhost:4999 is this collector itself"):
        collector.start()
