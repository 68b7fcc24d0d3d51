"""The real vLLM on the CPU, traced by being installed; its own numbers are the referee."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import pytest

from infertrace.collector.server import Collector
from infertrace.integrations.catalog import INTEGRATIONS
from peer_programs import NotInstalled
from running_collector import Collector as Stored
from traced_program import wait_until
from vllm_program import MODEL, VARIABLES, Server, environment, model

pytestmark = [pytest.mark.nightly, pytest.mark.timeout(3600)]  # it may install vLLM

LIBRARY, *_ = INTEGRATIONS["vllm"].libraries
NEWEST: Final = LIBRARY.newest
PAGE = Path(__file__).parents[2] / "docs" / "integrations" / "vllm.md"
TRACE: Final = "ab" * 16
TRACEPARENT: Final = f"00-{TRACE}-{'cd' * 8}-01"
CHAT: Final = "/v1/chat/completions"
COMPLETIONS: Final = "/v1/completions"
FEW_TOKENS: Final = 20
BURST: Final = 24  # three times what a step takes


class Served:
    """A vLLM, the collector that it sends to, and both of their views."""

    def __init__(self, version: str, folder: Path, *options: str, **variables: str) -> None:
        self._collector = Collector("127.0.0.1:0", "127.0.0.1:0", "memory:")
        self._collector.__enter__()
        self.grpc_address = self._collector.grpc_address
        self.stored = Stored(self.grpc_address, self._collector.http_address)
        options = tuple(one.format(collector=self.grpc_address) for one in options)
        variables = {"INFERTRACE_ENDPOINT": self.grpc_address, **variables}
        try:
            self.vllm = Server(version, folder, *options, **variables)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self.stored.close()
        self._collector.__exit__(None, None, None)

    def spans(self, operation: str = "request", **parameters: str | int) -> list[dict[str, Any]]:
        found = self.stored.get("/spans", limit=10_000, **parameters)
        return [span for span in found if span["operation_name"] == operation]

    def request(self, answer: Any) -> dict[str, Any]:
        """The one span of an answer's request."""
        wait_until(lambda: bool(self._spans_of(answer)))
        (span,) = self._spans_of(answer)
        return span

    def _spans_of(self, answer: Any) -> list[dict[str, Any]]:
        names = (answer["id"], f"{answer['id']}-0")
        return [span for span in self.spans() if span.get("request_id") in names]

    def complete(self, prompt_tokens: int, seed: int, max_tokens: int = FEW_TOKENS) -> Any:
        prompt = [3 + (seed * 7_919 + place * 31) % 200 for place in range(prompt_tokens)]
        return self.vllm.post(COMPLETIONS, prompt=prompt, max_tokens=max_tokens)


@pytest.fixture(scope="module")
def serve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Served]]:
    opened: list[Served] = []

    def start(version: str = NEWEST, *options: str, **variables: str) -> Served:
        try:
            environment(version)
        except NotInstalled as reason:
            pytest.fail(f"vLLM {version} cannot be installed here: {reason}")
        opened.append(Served(version, tmp_path_factory.mktemp("vllm"), *options, **variables))
        return opened[-1]

    yield start
    for one in opened:
        one.vllm.kill()
        one.close()


@pytest.mark.parametrize("version", [NEWEST, f"{LIBRARY.lowest}.0"])
def test_its_own_numbers_agree(serve: Callable[..., Served], version: str) -> None:
    # vLLM 0.30 passes a traceparent on only while it traces itself.
    served = serve(version, "--otlp-traces-endpoint", "http://{collector}")
    vllm = served.vllm
    before = vllm.metrics()
    question = [{"role": "user", "content": "why is the sky blue"}]
    chat = vllm.post(CHAT, messages=question, max_tokens=9, headers={"traceparent": TRACEPARENT})
    two = vllm.post(CHAT, messages=question, max_tokens=9, n=2)
    served.complete(600, seed=1)
    again = served.complete(600, seed=1)
    leave_early(vllm)
    with ThreadPoolExecutor(BURST) as pool:
        seeds = range(2, BURST + 2)
        burst = list(pool.map(lambda seed: served.complete(FEW_TOKENS, seed, 100), seeds))
    after = vllm.metrics()
    said = {name: after[name] - before.get(name, 0.0) for name in after}
    vllm.stop()
    (ours,) = [one for one in served.stored.get("/ledger")["producers"] if one["numbered"]]
    assert ours["complete"]
    assert (ours["state"], ours["dropped"]) == ("finished", {})

    requests, steps = served.spans(), served.spans("step")
    finished = [span for span in requests if span["status"] == "OK"]
    (left,) = [span for span in requests if span["status"] == "CANCELLED"]
    assert left["finish_reason"] == "abort"
    assert left["output_tokens"] >= 1
    assert len(finished) == said["vllm:request_success_total:length"]
    assert sum(span.get("invalid_field_count", 0) for span in requests + steps) == 0

    def total(field: str, spans: list[dict[str, Any]] = finished) -> float:
        return sum(span.get(field, 0.0) for span in spans)

    assert total("input_tokens", requests) == said["vllm:prompt_tokens_total"]
    assert total("output_tokens", requests) == said["vllm:generation_tokens_total"]
    computed = said["vllm:prompt_tokens_by_source_total:local_compute"]
    assert total("prefill_tokens", steps) == computed
    assert total("input_tokens", requests) - total("cached_input_tokens", requests) == computed
    assert total("preemption_count", requests) == said["vllm:num_preemptions_total"]
    firsts = len([span for span in requests if span["output_tokens"]])
    generated = said["vllm:generation_tokens_total"]
    assert total("decode_tokens", steps) == generated - firsts
    for metric, milliseconds in {
        "e2e_request_latency": total("duration_ms"),
        "request_queue_time": total("queue_wait_time_ms"),
        "request_prefill_time": total("time_to_first_token_ms") - total("scheduled_after_ms"),
        "request_decode_time": sum(
            span["inter_token_latency_ms"] * (span["output_tokens"] - 1) for span in finished
        ),
    }.items():
        assert milliseconds == pytest.approx(said[f"vllm:{metric}_seconds_sum"] * 1e3, rel=1e-3)
    # The engine has a token before its server has it.
    assert total("time_to_first_token_ms") <= said["vllm:time_to_first_token_seconds_sum"] * 1e3

    for answer in (chat, again, *burst):
        span, usage = served.request(answer), answer["usage"]
        assert span["input_tokens"] == usage["prompt_tokens"]
        assert span["output_tokens"] == usage["completion_tokens"]
        assert span["finish_reason"] == answer["choices"][0]["finish_reason"]
        assert (span["model_name"], span["membership"]) == (MODEL, "inferred")
        assert span["step_count"] == usage["completion_tokens"]
        assert span["last_step"] - span["first_step"] + 1 >= span["step_count"]
    assert served.request(again)["cached_input_tokens"] > 500
    assert len([span for span in requests if span["request_id"] == two["id"]]) == 2
    assert_steps(steps, requests)
    assert_joined(served, chat)


def leave_early(vllm: Server) -> None:
    """Read some of a stream, and go."""
    body = {"model": MODEL, "prompt": "a b c", "max_tokens": 2_000, "stream": True}
    with vllm.http.stream("POST", COMPLETIONS, json={**body, "ignore_eos": True}) as it:
        assert next(it.iter_lines()).startswith("data:")
    wait_until(lambda: vllm.metrics()["vllm:num_requests_running"] == 0)


def assert_steps(steps: list[dict[str, Any]], requests: list[dict[str, Any]]) -> None:
    """That they are numbered, and have the members that requests say."""
    by_index = {step["step_index"]: step for step in steps}
    assert sorted(by_index) == list(range(1, len(steps) + 1))
    for index, step in by_index.items():
        members = [one for one in requests if one["first_step"] <= index <= one["last_step"]]
        assert step["batch_size"] == len(members)
        assert step["batch_size"] <= 8
    assert max(step["batch_size"] for step in steps) == 8
    assert max(step["queue_depth"] for step in steps) > 0
    assert max(step["kv_cache_usage"] for step in steps) > 0


def assert_joined(served: Served, chat: Any) -> None:
    """To the spans that vLLM itself has sent, to the same collector."""
    theirs = served.spans("llm_request")
    names = [span["attributes"]["gen_ai.request.id"] for span in theirs]
    ours = [span["request_id"] for span in served.spans() if span["status"] == "OK"]
    assert sorted(names) == sorted(ours)
    of_trace = served.stored.get(f"/traces/{TRACE}")["spans"]
    assert {span["operation_name"] for span in of_trace} == {"request", "llm_request"}
    assert {span["parent_span_id"] for span in of_trace} == {"cd" * 8}
    (model_statistics,) = served.stored.get("/models")
    assert model_statistics["sample_count"] == len(served.spans())
    assert served.stored.get(f"/traces/{TRACE}/why")["request_id"] == chat["id"]


def test_why_is_right(serve: Callable[..., Served]) -> None:
    served = serve(NEWEST, "--max-num-batched-tokens", "8192")
    for seed in range(14):  # what a token of a prompt costs is learned from some that have many
        served.complete(FEW_TOKENS if seed % 2 else 400, seed, 200)
    with ThreadPoolExecutor(BURST) as pool:
        # Long prompts come while another request generates, and are read at once. At times vLLM's
        # server writes nothing, and takes nothing, until a request is over, traced or not.
        body = {"model": MODEL, "prompt": "a b c", "max_tokens": 500, "ignore_eos": True}
        for seed in range(100, 140, 4):
            post = served.vllm.http.stream("POST", COMPLETIONS, json={**body, "stream": True})
            with post as stream:
                lines = stream.iter_lines()
                held_up = json.loads(next(lines).removeprefix("data: "))
                prompts = range(seed, seed + 4)
                long = list(pool.map(lambda seed: served.complete(1_900, seed, 1), prompts))
                assert list(lines)[-2] == "data: [DONE]"
            last_step = served.request(held_up)["last_step"]
            if all(served.request(answer)["first_step"] <= last_step for answer in long):
                break
        names = {served.request(answer)["request_id"] for answer in long}
        slow = served.request(held_up)
        why = served.stored.get(f"/traces/{slow['trace_id']}/why")
        found = {finding["cause"]: finding for finding in why["findings"]}
        assert {span["request_id"] for span in found["prefill_of_others"]["spans"]} == names
        assert any("inferred" in unknown for unknown in why["unknown"])
        companions = served.stored.get(f"/traces/{slow['trace_id']}/companions")["companions"]
        assert {
            (one["request_id"], one["prefill_tokens"], one["membership"]) for one in companions
        } == {(name, 1_900, "inferred") for name in names}

        burst = list(pool.map(lambda seed: served.complete(FEW_TOKENS, seed, 40), range(200, 224)))
    waited = max(map(served.request, burst), key=lambda span: span["queue_wait_time_ms"])
    why = served.stored.get(f"/traces/{waited['trace_id']}/why")
    assert why["findings"][0]["cause"] == "queue"


def test_a_prompt_in_parts_and_preemptions(serve: Callable[..., Served]) -> None:
    options = ("--max-num-batched-tokens", "128", "--num-gpu-blocks-override", "80")
    served = serve(NEWEST, *options)
    long = served.request(served.complete(500, 1, 10))
    assert (long["first_step"], long["last_step"], long["step_count"]) == (1, 13, 13)
    wait_until(lambda: len(served.spans("step")) >= 13)
    parts = [step["prefill_tokens"] for step in served.spans("step")]
    assert sorted(parts, reverse=True)[:5] == [128, 128, 128, 116, 0]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda seed: served.complete(200, seed, 600), range(2, 10)))
    requests = [served.request(answer) for answer in answers]
    preempted = sum(span["preemption_count"] for span in requests)
    assert preempted == served.vllm.metrics()["vllm:num_preemptions_total"] > 0
    assert max(requests, key=lambda span: span["max_inter_token_latency_ms"])["preemption_count"]


def test_under_infertrace_run_the_server_is_in_the_trace(serve: Callable[..., Served]) -> None:
    served = serve(NEWEST, INFERTRACE_INSTRUMENT="all", PYTHONPATH=str(site()))
    answer = served.vllm.post(
        COMPLETIONS, prompt="a", max_tokens=3, headers={"traceparent": TRACEPARENT}
    )
    request = served.request(answer)
    assert request["trace_id"] == TRACE
    wait_until(lambda: bool(served.spans(f"POST {COMPLETIONS}")))
    (server,) = served.spans(f"POST {COMPLETIONS}")
    assert (server["parent_span_id"], request["parent_span_id"]) == ("cd" * 8, server["span_id"])


def site() -> Path:
    import infertrace.program

    return infertrace.program.SITE


def test_the_variable_leaves_it_off(serve: Callable[..., Served]) -> None:
    served = serve(INFERTRACE_VLLM="false")
    served.complete(FEW_TOKENS, 1)
    served.vllm.stop()
    assert served.stored.get("/ledger")["producers"] == []


OFFLINE: Final = """
import sys
from vllm import LLM, SamplingParams

if __name__ == "__main__":
    llm = LLM(model=sys.argv[1], enforce_eager=True, max_model_len=1024, block_size=32)
    params = SamplingParams(max_tokens=8, ignore_eos=True)
    for output in llm.generate(["Hello", "why is the sky blue", "a b c"], params):
        print(output.request_id, len(output.prompt_token_ids), len(output.outputs[0].token_ids))
"""


def run_offline(
    version: str, program: str, folder: Path, *runner: str
) -> tuple[str, list[dict[str, Any]]]:
    """What a program prints that uses vLLM as a library, and its spans.

    runner: a command of the environment, with its options. The program gets the model's folder.
    """
    programs = environment(version)
    (folder / "program.py").write_text(program)
    before = [str(programs / runner[0]), *runner[1:]] if runner else []
    command = [*before, str(programs / "python"), "program.py", str(model(version))]
    with Collector("127.0.0.1:0", "127.0.0.1:0", "memory:") as collector:
        outcome = subprocess.run(
            command,
            cwd=folder,
            env={**VARIABLES, "HOME": str(folder), "PATH": "/usr/bin:/bin"}
            | {"INFERTRACE_ENDPOINT": collector.grpc_address},
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert outcome.returncode == 0, outcome.stderr[-4_000:]
        stored = Stored(collector.grpc_address, collector.http_address)
        spans: list[dict[str, Any]] = stored.get("/spans", limit=1_000)
        stored.close()
    return outcome.stdout, spans


@pytest.mark.parametrize("version", [NEWEST, f"{LIBRARY.lowest}.0"])
def test_the_synchronous_class(version: str, tmp_path: Path) -> None:
    runner = ("infertrace", "run", "--include", "vllm", "--")
    printed, spans = run_offline(version, OFFLINE, tmp_path, *runner)
    said = [line.split() for line in printed.splitlines() if re.fullmatch(r"[\d ]+", line)]
    requests = [span for span in spans if span["operation_name"] == "request"]
    steps = [span for span in spans if span["operation_name"] == "step"]
    assert len(requests) + len(steps) == len(spans)
    assert sorted(said) == sorted(
        [span["request_id"], str(span["input_tokens"]), str(span["output_tokens"])]
        for span in requests
    )
    assert {span["finish_reason"] for span in requests} == {"length"}
    assert sum(step["prefill_tokens"] for step in steps) == sum(int(one[1]) for one in said)
    assert sum(step["decode_tokens"] for step in steps) == 3 * 7
    for step in steps:
        index = step["step_index"]
        members = [one for one in requests if one["first_step"] <= index <= one["last_step"]]
        assert step["batch_size"] == len(members)


def test_the_program_of_the_page(tmp_path: Path) -> None:
    (program,) = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    assert len([line for line in program.splitlines() if line]) <= 10
    program = program.replace('"facebook/opt-125m"', f'"{model(NEWEST)}", enforce_eager=True')
    _, spans = run_offline(NEWEST, program, tmp_path)
    (request,) = [span for span in spans if span["operation_name"] == "request"]
    assert (request["request_id"], request["output_tokens"]) == ("r-1", 8)
    assert len([span for span in spans if span["operation_name"] == "step"]) == 8
