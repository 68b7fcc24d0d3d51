"""What does tracing cost vLLM's server process, for each token and each request?

The real vLLM on the CPU with a tiny model, which the tests install on first use, answers
completions of 64 tokens, 16 at a time. What is measured is the processor time of its server
process, which takes requests and outputs, with all its threads and infertrace's sender process, but
without the engine's, which has nothing of either. Compared are vLLM untraced, traced by
infertrace, which records requests and steps, and with its own `--otlp-traces-endpoint`, which
records requests. Both send to a collector of infertrace.
"""

from __future__ import annotations

import os
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from bench.environment import REPOSITORY
from bench.harness import Answer, differences, run_rounds
from bench.markdown import table, with_spread

UNTRACED, OURS, THEIRS = "untraced", "infertrace", "vLLM's own spans"
REQUESTS, FAST_REQUESTS = 800, 100
ROUNDS = 3
TOKENS = 64
AT_ONCE = 16
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
ENGINE = "EngineCore"  # in the name of the processes that run the model


def measure(results: Path, fast: bool, **_: object) -> Answer:
    requests = FAST_REQUESTS if fast else REQUESTS
    rounds = 1 if fast else ROUNDS
    found = run_rounds((UNTRACED, OURS, THEIRS), rounds, lambda name: _serve(name, requests))
    base = found[UNTRACED]["per_token"]
    rows = [
        [
            name,
            with_spread(found[name]["per_token"], 1e6, 1),
            with_spread(found[name]["per_request"], 1e6, 0),
            "" if name == UNTRACED else _added(found[name]["per_token"], base),
        ]
        for name in (UNTRACED, OURS, THEIRS)
    ]
    header = ["", "µs of processor time per token", "per request", "added per token, µs"]
    return Answer({"rounds": found}, table(header, rows))


def _added(values: list[float], base: list[float]) -> str:
    return with_spread(differences(values, base), 1e6, 1)


def _serve(name: str, requests: int) -> dict[str, float]:
    """Seconds of the server process, for each token and each request."""
    program, collectors = _tests("vllm_program"), _tests("infertrace.collector.server")
    version = _tests("infertrace.integrations.catalog").INTEGRATIONS["vllm"].libraries[0].newest
    with (
        collectors.Collector("127.0.0.1:0", "127.0.0.1:0", "memory:") as collector,
        tempfile.TemporaryDirectory() as folder,
    ):
        options = ()
        if name == THEIRS:
            options = ("--otlp-traces-endpoint", f"http://{collector.grpc_address}")
        server = program.Server(
            version,
            Path(folder),
            "--max-num-seqs",
            str(AT_ONCE),
            *options,
            INFERTRACE_VLLM=str(name == OURS).lower(),
            INFERTRACE_ENDPOINT=collector.grpc_address,
        )
        try:
            _ask(server, AT_ONCE * 4)
            before = _processor_s(server.pid)
            _ask(server, requests)
            spent = _processor_s(server.pid) - before
        finally:
            server.kill()
    return {"per_token": spent / requests / TOKENS, "per_request": spent / requests}


def _ask(server: Any, requests: int) -> None:
    def ask(number: int) -> None:
        prompt = [3 + (number * 7_919 + place * 31) % 200 for place in range(20)]
        server.post("/v1/completions", prompt=prompt, max_tokens=TOKENS)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(ask, range(requests)))


def _processor_s(pid: int) -> float:
    """Of a process and what it has started, but for the engine."""
    stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")
    if ENGINE in stat[0] or ENGINE in Path(f"/proc/{pid}/cmdline").read_text():
        return 0.0
    user, system = stat[2].split()[11:13]
    lists = (path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/children"))
    children = [child for one in lists for child in one.split()]
    own = (int(user) + int(system)) / TICKS_PER_S
    return own + sum(_processor_s(int(child)) for child in children)


def _tests(name: str) -> Any:
    """A module of the tests, or of infertrace."""
    tests = str(REPOSITORY / "tests")
    if tests not in sys.path:
        sys.path.append(tests)
    return __import__(name, fromlist=["_"])
