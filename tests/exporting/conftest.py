"""Every test of the exporter runs with gRPC in the sender process, and with it in this one."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True, params=["sender process", "this process"])
def sender(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    own = request.param == "sender process"
    monkeypatch.setenv("INFERTRACE_SENDER_PROCESS", str(own).lower())
    return str(request.param)
