"""Each page of docs/integrations/ has a program of at most ten lines, which does what it says."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from grpc_receiver import Receiver
from infertrace.integrations.catalog import INTEGRATIONS
from openai_server import Server
from page_programs import MAX_LINES, PAGES, PROGRAM, run_program
from served_app import served
from traced_program import wait_until

# What follows the program, where it only defines something.
USE = {
    "starlette": """
from fastapi.testclient import TestClient
TestClient(app).get("/hello/you")
""",
    "grpc": """
server.start()
with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
    assert channel.unary_unary("/chat.Chat/Ask")(b"hello") == b"hello"
server.stop(None).wait()
""",
}
# Those with a model of their own are in test_real_vllm.py, test_xllamacpp.py and the like.
# Operation and, where it has one, operation of the parent.
EXPECTED = {
    "starlette": [("GET /hello/{name}", "")],
    "openai": [("chat", "")],
    "grpc": [("chat.Chat/Ask", ""), ("chat.Chat/Ask", "chat.Chat/Ask")],
    "httpx": [("ask", "")],
    "onnxruntime": [("inference", "")],
    "opentelemetry": [("ours", "theirs"), ("theirs", "")],
    "threads": [("request", ""), ("work", "request")],
}


def onnx_model() -> Path:
    spec = find_spec("magika")
    assert spec is not None
    assert spec.origin is not None
    (found,) = Path(spec.origin).parent.glob("models/*/model.onnx")
    return found


def tree(receiver: Receiver) -> list[tuple[str, str]]:
    names = {span.span_id: span.operation_name for span in receiver.spans}
    return sorted(
        (span.operation_name, names.get(span.parent_span_id, "")) for span in receiver.spans
    )


@pytest.mark.parametrize("name", [name for name in INTEGRATIONS if name in EXPECTED])
def test_the_program_of_a_page(backend: Any, receiver: Receiver, name: str) -> None:
    program, *others = PROGRAM.findall((PAGES / f"{name}.md").read_text())
    assert len([line for line in program.splitlines() if line]) <= MAX_LINES
    server = Server()
    with served(server.app) as url:
        program = program.replace("http://127.0.0.1:8000", url)
        program = program.replace("content-types.onnx", str(onnx_model()))
        openai = {"OPENAI_BASE_URL": f"{url}/v1", "OPENAI_API_KEY": "secret"}
        run_program(backend, receiver, program + USE.get(name, ""), **openai)
    wait_until(lambda: len(receiver.spans) == len(EXPECTED[name]))
    assert tree(receiver) == EXPECTED[name]
    if name == "openai":
        (span,) = receiver.spans
        assert (span.inference.input_tokens, span.inference.output_tokens) == (11, 7)
    for other in others:
        run_program(backend, receiver, other)
        wait_until(lambda: {("first", "request"), ("second", "request")} <= set(tree(receiver)))
