"""A server that speaks OpenAI's protocol; what it answers follows from the name of the model."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, StreamingResponse

USAGE = {
    "prompt_tokens": 11,
    "completion_tokens": 7,
    "total_tokens": 18,
    "prompt_tokens_details": {"cached_tokens": 4},
    "completion_tokens_details": {"reasoning_tokens": 2},
}
TIMINGS = {"cache_n": 3, "prompt_n": 8, "prompt_ms": 1.5, "predicted_n": 4, "predicted_ms": 2.5}
METRICS = {"queue_time_ms": 12.5, "mean_itl_ms": 0.25}


class Server:
    """Answers by the name of the model, and keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[dict[str, str], dict[str, Any]]] = []
        self.app = FastAPI()
        for path in ("chat/completions", "completions", "embeddings", "responses"):
            self.app.post(f"/v1/{path}")(self.answer)

    async def answer(self, request: Request) -> Any:
        body = await request.json()
        self.asked.append((dict(request.headers), body))
        model, path = body["model"], request.url.path
        if model == "refused":
            return JSONResponse({"error": {"message": "no such model"}}, 404)
        if model == "busy at first" and len(self.asked) < 3:
            return JSONResponse({"error": {"message": "busy"}}, 503, {"retry-after-ms": "1"})
        if model == "old" and "stream_options" in body:
            return JSONResponse({"error": {"message": "unknown: stream_options"}}, 400)
        if model == "slow":
            while not await request.is_disconnected():
                await asyncio.sleep(0.01)
        if path.endswith("embeddings"):
            data = [
                {"object": "embedding", "index": index, "embedding": [0.5]}
                for index, _ in enumerate(body["input"])
            ]
            usage = {"prompt_tokens": 5, "total_tokens": 5}
            return {"object": "list", "model": "real", "data": data, "usage": usage}
        if path.endswith("responses"):
            return self.respond(body)
        if body.get("stream"):
            return StreamingResponse(self.chunks(body), media_type="text/event-stream")
        text = '{"name": "Ada"}'
        said: dict[str, Any] = {"message": {"role": "assistant", "content": text}}
        if path.endswith("/v1/completions"):
            said = {"text": text}
        return {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 1,
            "model": "real",
            "choices": [
                {"index": 0, "finish_reason": "stop", **said},
                {"index": 1, "finish_reason": "tool_calls", **said},
            ],
            "usage": USAGE,
            **({"timings": TIMINGS} if model == "llama.cpp" else {}),
            **({"metrics": METRICS} if model == "vllm" else {}),
        }

    async def chunks(self, body: dict[str, Any]) -> AsyncIterator[str]:
        def event(choices: Any, **more: Any) -> str:
            chunk = {"id": "chatcmpl-2", "object": "chat.completion.chunk", "model": "real", **more}
            chunk |= {"created": 1, "choices": choices}
            return f"data: {json.dumps(chunk)}\n\n"

        def choice(reason: str | None = None, **delta: str) -> list[Any]:
            return [{"index": 0, "delta": delta, "finish_reason": reason, **delta}]

        yield event(choice(role="assistant"))
        while True:
            for word in ("one", "two", "three"):
                yield event(choice(content=word, text=word))
                await asyncio.sleep(0.01)
            if body["model"] != "endless":
                break
        if body["model"] == "breaks":
            yield 'data: {"error": {"message": "out of memory"}}\n\n'
            return
        more = {"timings": TIMINGS} if body["model"] == "llama.cpp" else {}
        if body.get("stream_options", {}).get("include_usage"):
            yield event(choice("stop"))
            yield event([], usage=USAGE, **more)  # as llama.cpp does
        else:
            yield event(choice("stop"), **more)
        if body["model"] == "breaks at the end":
            yield 'data: {"error": {"message": "out of memory"}}\n\n'
        yield "data: [DONE]\n\n"

    def respond(self, body: dict[str, Any]) -> Any:
        response = {
            "id": "resp_1",
            "object": "response",
            "created_at": 1,
            "model": "real",
            "status": "completed",
            "output": [],
            "parallel_tool_calls": True,
            "tool_choice": "auto",
            "tools": [],
            "usage": {
                "input_tokens": 11,
                "input_tokens_details": {"cached_tokens": 4},
                "output_tokens": 7,
                "output_tokens_details": {"reasoning_tokens": 2},
                "total_tokens": 18,
            },
        }
        if not body.get("stream"):
            return response
        where = {"item_id": "i", "output_index": 0, "content_index": 0, "logprobs": []}
        events: list[dict[str, Any]] = [
            {"type": "response.created", "response": {**response, "status": "in_progress"}},
            *({"type": "response.output_text.delta", "delta": "x", **where} for _ in range(3)),
            {"type": "response.completed", "response": response},
        ]

        async def stream() -> AsyncIterator[str]:
            for number, event in enumerate(events):
                yield f"event: {event['type']}\n"
                yield f"data: {json.dumps(event | {'sequence_number': number})}\n\n"
                await asyncio.sleep(0.005)

        return StreamingResponse(stream(), media_type="text/event-stream")
