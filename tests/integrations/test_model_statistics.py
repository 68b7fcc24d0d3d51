"""What is traced inside of a traced request is in the statistics of its model, and once."""

from __future__ import annotations

import time
from typing import Any, Final

import httpx
import openai
from fastapi import FastAPI

import infertrace
from infertrace.collector.server import Collector
from openai_server import Server
from running_collector import Collector as Stored
from served_app import served

A_SECOND_NS: Final = 10**9
TOKENS: Final = 7  # as the server of the tests counts them


def new_app(url: str) -> FastAPI:
    app = FastAPI()
    client = openai.OpenAI(base_url=f"{url}/v1", api_key="secret")

    @app.get("/ask")
    def ask() -> Any:
        question: Any = [{"role": "user", "content": "hello"}]
        return client.chat.completions.create(model="m", messages=question).id

    return app


def test_a_call_inside_of_a_request(backend: Any) -> None:
    engine = Server()
    with Collector("127.0.0.1:0", "127.0.0.1:0", "memory:") as collector:
        tracer = infertrace.Tracer(collector.grpc_address, service_name="app")
        infertrace.instrument("starlette", "openai", tracer=tracer)
        with served(engine.app) as model_url, served(new_app(model_url)) as url:
            assert httpx.get(f"{url}/ask").status_code == 200
        ((headers, _),) = engine.asked
        # The engine tells of the same call, under another service.
        other = infertrace.Tracer(collector.grpc_address, service_name="engine")
        other.record(
            "m",
            "request",
            start_ns=time.time_ns(),
            duration_ns=A_SECOND_NS,
            parent=headers["traceparent"],
            kind="server",
            input_tokens=11,
            output_tokens=TOKENS,
        )
        assert other.flush()
        assert tracer.flush()
        stored = Stored(collector.grpc_address, collector.http_address)
        (found,) = stored.get("/models")
        spans = {(one["service_name"], one["operation_name"]): one for one in stored.get("/spans")}
        stored.close()
        tracer.shutdown()
        other.shutdown()
    chat = spans["app", "chat"]
    assert spans["engine", "request"]["parent_span_id"] == chat["span_id"]
    kinds = {name: span["kind"] for name, span in spans.items()}
    assert kinds.pop(("app", "GET /ask")) == "SERVER"
    assert kinds.pop(("app", "chat")) == "CLIENT"
    # Both tell of the call; its tokens count once.
    assert found["sample_count"] == 2
    assert found["tokens_per_second"] <= TOKENS
