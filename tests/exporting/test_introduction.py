"""What a process tells a sender of itself, also one of another version."""

from __future__ import annotations

import json

import pytest

from infertrace.exporting.introduction import Introduction
from infertrace.exporting.target import Target

TARGET = Target("collector:4317", tls=True, headers={"x-key": "1"}, conventions=["otel"])


def test_the_same_comes_back() -> None:
    given = Introduction(TARGET, "chat", 4096, "/spool")
    assert Introduction.decode(given.encode()) == given


def test_what_a_newer_version_adds_is_left_out() -> None:
    given = Introduction(TARGET, "chat")
    newer = json.loads(given.encode())
    newer["priority"] = newer["target"]["compression_level"] = 3
    assert Introduction.decode(json.dumps(newer).encode()) == given


@pytest.mark.parametrize(
    "body", [b"", b"{}", b"[]", b"null", b'"x"', b'{"target": {}}', b'{"target": [1]}', b"\xff"]
)
def test_what_is_none(body: bytes) -> None:
    with pytest.raises((ValueError, TypeError, KeyError)):
        Introduction.decode(body)
