"""Every test of the exporter runs with gRPC in a shared sender, and with it in this one."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True, params=["shared sender", "this process"])
def sender(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv(
        "INFERTRACE_SENDER_PROCESS", "shared" if request.param == "shared sender" else "none"
    )
    return str(request.param)
