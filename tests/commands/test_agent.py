"""`infertrace agent` on the command line: its options, its metrics, and what the doctor says."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from agent_process import AgentProcess
from grpc_receiver import Receiver
from traced_program import NOBODY, wait_until

TOKEN = "of-sixteen-characters"
DEPLOY = Path(__file__).parents[2] / "deploy"


@pytest.fixture
def new_agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Any]]:
    """Starts one, to which all tracers connect."""
    started: list[AgentProcess] = []
    path = tmp_path / "agent.sock"
    monkeypatch.setenv("INFERTRACE_AGENT", f"unix://{path}")

    def start(*options: str) -> AgentProcess:
        started.append(AgentProcess(path, *options, log=tmp_path / "agent.log"))
        return started[-1]

    yield start
    for agent in started:
        agent.kill()


def infertrace(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "infertrace", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, **environ},
    )


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--socket", "agent.sock"], "--socket: expected unix:///PATH, got 'agent.sock'"),
        (["--socket", "unix:///nowhere/agent.sock"], "No such file or directory"),
        (["--socket-mode", "9"], "expected an octal mode from 0 to 777, got '9'"),
        (["--spool-mib", "0"], "expected an integer from 1 to 1048576, got '0'"),
        (["--spool-dir", "/proc/spool"], "/proc/spool"),
        (["--forward", "nowhere"], "--forward: expected HOST:PORT, http://HOST:PORT"),
        (["--forward", "file:///spans"], "--forward: expected an address of a collector"),
        (["--protocol", "otlp/grpc"], "--protocol: expected --forward with it"),
        (["--http", "8080"], "--http: expected HOST:PORT"),
        (["--http", "0.0.0.0:0"], "--http: 0.0.0.0:0 is not loopback: give a token"),
        (["--http", "192.0.2.1:0", "--token-file", "TOKEN"], "cannot listen on 192.0.2.1:0"),
        (["--token-file", "/nowhere"], "--token-file: [Errno 2] No such file"),
    ],
)
def test_options_that_cannot_be(tmp_path: Path, options: list[str], said: str) -> None:
    (tmp_path / "TOKEN").write_text(TOKEN)
    given = [str(tmp_path / it) if it == "TOKEN" else it for it in options]
    done = infertrace("agent", *given, INFERTRACE_AGENT=f"unix://{tmp_path}/agent.sock")
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_no_socket_where_a_file_is(tmp_path: Path) -> None:
    path = tmp_path / "agent.sock"
    path.write_text("mine")
    done = infertrace("agent", "--socket", f"unix://{path}")
    assert done.returncode == 2
    assert "something else than a socket is there" in done.stderr
    assert path.read_text() == "mine"


def test_the_socket_is_its_groups(new_agent: Any, tmp_path: Path) -> None:
    agent = new_agent()
    path = tmp_path / "agent.sock"
    assert path.stat().st_mode & 0o777 == 0o660
    assert agent.terminate() == 0
    assert not path.exists()
    new_agent("--socket-mode", "0600")
    assert path.stat().st_mode & 0o777 == 0o600


def test_metrics_and_health(
    new_agent: Any, new_tracer: Any, receiver: Receiver, tmp_path: Path
) -> None:
    agent = new_agent("--http", "127.0.0.1:0", "--spool-dir", str(tmp_path / "spool"))
    wait_until(lambda: agent.get("/health").status_code == 200)
    assert agent.get("/health").json() == {"status": "ok"}
    gone = new_tracer(NOBODY, headers={"x-key": "hidden"})
    gone.start_span("m").end()
    assert gone.shutdown(60)
    tracer = new_tracer(receiver.endpoint)
    for _ in range(3):
        tracer.start_span("m").end()
    assert tracer.flush(60)
    held = f'{{target="{NOBODY}",wire="infertrace"}}'
    wait_until(lambda: f"infertrace_agent_held_spans{held}" in agent.metrics())
    wait_until(lambda: agent.metrics()["infertrace_agent_clients"] == 1)
    found = agent.metrics()
    assert found[f"infertrace_agent_held_spans{held}"] == 1
    assert found[f"infertrace_agent_held_processes{held}"] == 1
    assert found["infertrace_agent_spans_delivered_total"] == 3
    assert found["infertrace_agent_spool_max_bytes"] == 256 * 1024 * 1024
    assert found["infertrace_agent_spool_bytes"] == found[f"infertrace_agent_held_bytes{held}"] > 0
    text = agent.get("/metrics").text
    families = {family.name for family in text_string_to_metric_families(text)}
    assert {"infertrace_agent_spans_delivered", "infertrace_agent_unreadable"} <= families
    assert "hidden" not in text
    assert agent.get("/").status_code == 404


def test_the_metrics_want_the_token(new_agent: Any, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text(TOKEN)
    agent = new_agent("--http", "127.0.0.1:0", "--token-file", str(token))
    assert agent.get("/metrics").status_code == 401
    assert agent.get("/metrics", authorization="Bearer x").status_code == 401
    assert agent.get("/metrics", authorization=f"Bearer {TOKEN}").status_code == 200
    wait_until(lambda: agent.get("/health").status_code == 200)
    assert TOKEN not in (tmp_path / "agent.log").read_text()


def test_a_request_that_does_not_end_holds_nobody_up(new_agent: Any) -> None:
    import socket

    agent = new_agent("--http", "127.0.0.1:0")
    host, _, port = agent.http.removeprefix("http://").rpartition(":")
    with socket.create_connection((host, int(port))) as slow:
        slow.sendall(b"GET /metr")
        wait_until(lambda: agent.get("/health").status_code == 200)


def test_the_doctor(new_agent: Any, new_tracer: Any, receiver: Receiver, tmp_path: Path) -> None:
    done = infertrace(
        "doctor",
        "--endpoint",
        receiver.endpoint,
        "--timeout",
        "1",
        "--json",
        INFERTRACE_AGENT=f"unix://{tmp_path}/none.sock",
    )
    found = {finding["check"]: finding for finding in json.loads(done.stdout)}
    assert found["agent"]["state"] == "problem"
    assert "nobody listens at unix://" in found["agent"]["detail"]
    assert done.returncode == 1
    agent = new_agent("--spool-dir", str(tmp_path / "spool"), "--forward", receiver.endpoint)
    tracer = new_tracer(NOBODY, service_name="chat", headers={"x-key": "hidden"})
    tracer.start_span("m").end()
    assert tracer.flush(60)
    done = infertrace("doctor", "--endpoint", receiver.endpoint, "--json")
    assert done.returncode == 0, done.stdout
    found = {finding["check"]: finding for finding in json.loads(done.stdout)}
    said = found["agent"]["detail"]
    assert f"process {agent.pid}," in said
    assert f"1 clients ({os.getpid()} chat)" in said
    assert f"all spans go to {receiver.endpoint}" in said
    assert "of 268435456 bytes of its spool in use" in said
    assert "hidden" not in done.stdout


def given_in_systemd() -> list[str]:
    (line,) = re.findall(
        r"^ExecStart=(.*)$", (DEPLOY / "systemd/infertrace-agent.service").read_text(), re.MULTILINE
    )
    return shlex.split(line)


def given_in_kubernetes() -> list[str]:
    text = (DEPLOY / "kubernetes/agent-daemonset.yaml").read_text()
    _, _, command = text.partition("command:\n")
    return re.findall(r"- (\S+)\n", command.partition("env:")[0])


@pytest.mark.parametrize("given", [given_in_systemd, given_in_kubernetes])
def test_what_is_deployed_starts(
    given: Callable[[], list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With its own options, at places of this test."""
    program, command, *options = given()
    assert (program, command) == ("/opt/infertrace/bin/infertrace", "agent")
    (tmp_path / "token").write_text(TOKEN)
    monkeypatch.setenv("INFERTRACE_TOKEN_FILE", str(tmp_path / "token"))
    text = " ".join(options).replace("=", " ")
    for place, ours in (
        ("/var/lib", str(tmp_path)),
        ("/run/infertrace", str(tmp_path)),
        ("/run/secrets/infertrace/metrics-token", str(tmp_path / "token")),
        (":9464", ":0"),
    ):
        text = text.replace(place, ours)
    agent = AgentProcess(tmp_path / "agent.sock", *text.split(), log=tmp_path / "agent.log")
    try:
        assert f"listening at unix://{tmp_path}/agent.sock, spool " in agent.said
        wait_until(lambda: agent.get("/health").status_code == 200)
        assert agent.terminate() == 0
    finally:
        agent.kill()
