"""What do integrations add to a request of an application, a chat of a client, a run of a model?

The work: one call, less the same call untraced; both alternate in one process. The application
and the server answer at once, without a socket, with what they had ready: a JSON of known length,
or 100 chunks. The model, in ONNX Runtime, returns its input. A chat of the client takes 20 times
what tracing adds, so the real client, on a transport that answers in the process, asks in pairs,
traced and untraced in alternating order, and gets the chunks of both by turns. The untraced client
calls what was there before the instrumentation: nothing is switched on and off meanwhile, which
would have the interpreter learn all paths anew. Each call and each place of a chunk is timed by
itself, in processor time of the calling thread; what counts is the sum of the medians of the
differences, the mean of both orders. The garbage collector, whose passes would always meet the same
place, runs between the pairs, and each client asks once after it, untimed. A pair during which the
machine was slowed is repeated (`bench/full_speed.py`). Spans of the rival go through its SDK's
batch processor to an exporter that only counts; for ONNX Runtime it has no instrumentation, so
there a program makes its span by hand, with the same three attributes.
"""

from __future__ import annotations

import gc
import json
import statistics
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from pathlib import Path
from time import thread_time
from typing import Any

from bench import contenders, full_speed
from bench.harness import (
    SMALLEST_DIFFERENCE_S,
    Answer,
    Row,
    differences,
    measure_rows,
    ratios,
    time_rows,
    verdict,
)
from bench.loops import Loop, async_loop_of, loop_of
from bench.markdown import median_and_spread, table
from bench.receiver import running_receiver

MOST_OF_OPENTELEMETRY = 0.33
CHUNKS = 100
CALLS_PER_BURST, STREAMS_PER_BURST = 200, 10  # the chunks' spans of OpenTelemetry fit its queue
BURSTS = 5
CHAT_PAIRS, STREAMED_CHAT_PAIRS = 100, 20
CHATS_BEFORE = 100  # of each kind, until the interpreter has learned both paths
PLACES = CHUNKS + 2  # with the usage, and the end

USAGE = {
    "prompt_tokens": contenders.INPUT_TOKENS,
    "completion_tokens": contenders.OUTPUT_TOKENS,
    "total_tokens": contenders.INPUT_TOKENS + contenders.OUTPUT_TOKENS,
}
ANSWER: dict[str, Any] = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1,
    "model": contenders.MODEL,
    "choices": [
        {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "hi"}}
    ],
    "usage": USAGE,
}


def chunk(**changes: Any) -> bytes:
    """One of a streamed answer, as a server-sent event."""
    choice = {"index": 0, "finish_reason": None, "delta": {"content": "token"}}
    it = {**ANSWER, "object": "chat.completion.chunk", "choices": [choice], "usage": None}
    return b"data: " + json.dumps({**it, **changes}).encode() + b"\n\n"


STREAM = chunk() * CHUNKS + chunk(choices=[], usage=USAGE) + b"data: [DONE]\n\n"

# One request, after another of the same connection; the parent is on another host.
ASGI = """
scope = {
    "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "GET",
    "scheme": "http", "path": "/chat", "raw_path": b"/chat", "query_string": b"", "root_path": "",
    "headers": [
        (b"host", b"localhost:8000"), (b"user-agent", b"bench"), (b"accept", b"*/*"),
        (b"traceparent", b"00-" + b"ab" * 16 + b"-" + b"cd" * 8 + b"-01"),
    ],
    "client": ("127.0.0.1", 40000), "server": ("127.0.0.1", 8000),
}
async def receive():
    return {"type": "http.request", "body": b"", "more_body": False}
async def send(message):
    pass
"""
ANSWERING = """
async def app(scope, receive, send):
    await receive()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"2")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"{}"})
"""
STREAMING = f"""
async def app(scope, receive, send):
    await receive()
    headers = [(b"content-type", b"text/event-stream")]
    await send({{"type": "http.response.start", "status": 200, "headers": headers}})
    for _ in range({CHUNKS}):
        await send({{"type": "http.response.body", "body": b"data: x", "more_body": True}})
    await send({{"type": "http.response.body", "body": b""}})
"""
OUR_ASGI = """
from infertrace.integrations.asgi import TracingMiddleware
app = TracingMiddleware(app, tracer)
"""
THEIR_ASGI = """
from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
app = OpenTelemetryMiddleware(app, tracer_provider=tracer)
"""

MESSAGES = [{"role": "user", "content": "hello"}]
STREAMED_CHAT = {"stream": True, "stream_options": {"include_usage": True}}


def trace_by_us(tracer: Any) -> None:
    import infertrace

    infertrace.instrument("openai", tracer=tracer)


def trace_by_them(provider: Any) -> None:
    from opentelemetry.instrumentation.openai_v2 import OpenAIInstrumentor

    OpenAIInstrumentor().instrument(tracer_provider=provider)


# A model of one node, Identity, of batches of 16 numbers: ONNX's protobuf.
MODEL = bytes.fromhex(
    "08083a500a100a017812017922084964656e7469747912086964656e746974795a180a017812130a110801120d0a0712"
    "0562617463680a02081062180a017912130a110801120d0a07120562617463680a0208104202100d"
)
ONNX = f"""
import numpy, onnxruntime
session = onnxruntime.InferenceSession(content)
inputs = {{"x": numpy.zeros(({contenders.BATCH_SIZE}, 16), numpy.float32)}}
"""
RUN = "session.run(None, inputs)"
OUR_ONNX = """
import infertrace
infertrace.instrument("onnxruntime", tracer=tracer)
"""
UNTRACED_ONNX = """
import infertrace
infertrace.uninstrument("onnxruntime")
"""
BY_HAND = """
by_hand = tracer.get_tracer("bench")
"""
RUN_BY_HAND = f"""with by_hand.start_as_current_span("inference identity") as span:
    span.set_attribute("infertrace.framework", "onnx")
    span.set_attribute("infertrace.batch_size", len(inputs["x"]))
    span.set_attribute("onnxruntime.provider", "CPUExecutionProvider")
    {RUN}"""


class OpenTelemetryProvider(contenders.OpenTelemetry):
    """Its instrumentations want the provider."""

    def __init__(self) -> None:
        super().__init__()
        self.tracer = self.provider


def asgi(application: str, middleware: str) -> Loop:
    return async_loop_of(
        "await app(dict(scope), receive, send)", setup=ASGI + application + middleware
    )


@dataclass
class Chats:
    """A client of the OpenAI protocol, which is traced, and one that is not."""

    streamed: bool
    trace: Callable[[Any], None]
    _asked: dict[bool, Callable[[], Any]] = field(default_factory=dict)

    def __call__(self, tracer: Any, count: int) -> float:
        """The seconds that tracing adds to `count` chats, from that many pairs."""
        if not self._asked:
            self._begin(tracer)
        gc.disable()
        pairs = [full_speed.timed(partial(self._pair, turn)) for turn in range(count)]
        gc.enable()
        # By order: whoever comes first in a pair is slower, so the two kinds of pairs differ.
        seconds = statistics.mean(
            sum(map(statistics.median, zip(*pairs[first::2], strict=True))) for first in (0, 1)
        )
        return count * max(seconds, SMALLEST_DIFFERENCE_S)

    def _begin(self, tracer: Any) -> None:
        import openai
        from openai.resources.chat.completions import Completions

        class Untraced(openai.OpenAI):
            request = openai.OpenAI.request

        create = Completions.create
        untraced = Untraced(**self._options()).chat.completions
        self.trace(tracer)
        traced = openai.OpenAI(**self._options()).chat.completions
        chat: dict[str, Any] = {"model": contenders.MODEL, "messages": MESSAGES}
        chat |= STREAMED_CHAT if self.streamed else {}
        self._asked = {
            False: lambda: create(untraced, **chat),
            True: lambda: traced.create(**chat),
        }
        for ask in list(self._asked.values()) * CHATS_BEFORE:
            list(ask())

    def _options(self) -> dict[str, Any]:
        import openai

        content, kind = json.dumps(ANSWER).encode(), "application/json"
        if self.streamed:
            content, kind = STREAM, "text/event-stream"
        # The transport of whichever httpx the client uses.
        httpx = import_module(openai.DefaultHttpxClient.__mro__[1].__module__.partition(".")[0])
        transport = httpx.MockTransport(
            lambda request: httpx.Response(200, content=content, headers={"content-type": kind})
        )
        return {
            "api_key": "none",
            "base_url": "http://localhost/v1",
            "http_client": openai.DefaultHttpxClient(transport=transport),
        }

    def _pair(self, turn: int) -> list[float]:
        """What tracing adds to the call, and to each chunk; every other pair begins untraced."""
        order = (True, False) if turn % 2 == 0 else (False, True)
        times: dict[bool, list[float]] = {}
        gc.collect()
        for ask in self._asked.values():  # it has driven from the caches what all calls need
            list(ask())
        streams = {}
        for is_traced in order:
            ask = self._asked[is_traced]
            began = thread_time()
            answer = ask()
            times[is_traced] = [thread_time() - began]
            streams[is_traced] = iter(answer)
        for _ in range(PLACES if self.streamed else 0):
            for is_traced in order:
                began = thread_time()
                next(streams[is_traced], None)
                times[is_traced].append(thread_time() - began)
        return differences(times[True], times[False])


def onnx(run: str, switch: str) -> Loop:
    return loop_of(run, setup=ONNX + switch, content=MODEL)


SIDES = (
    ("native", contenders.native, OUR_ASGI, trace_by_us),
    ("pure", contenders.pure, OUR_ASGI, trace_by_us),
    ("OpenTelemetry", OpenTelemetryProvider, THEIR_ASGI, trace_by_them),
)
TRACED_ONNX = {
    "native": onnx(RUN, OUR_ONNX),
    "pure": onnx(RUN, OUR_ONNX),
    "OpenTelemetry": onnx(RUN_BY_HAND, BY_HAND),
}
ANSWERED, STREAMED = "answer", f"{CHUNKS} chunks"
RUNS = "ONNX Runtime, run"
KINDS = (
    *(f"{what}, {how}" for what in ("ASGI", "OpenAI") for how in (ANSWERED, STREAMED)),
    RUNS,
)


def _rows() -> list[Row]:
    rows = []
    for side, make, middleware, trace in SIDES:
        for how, application in ((ANSWERED, ANSWERING), (STREAMED, STREAMING)):
            streams = how == STREAMED
            rows += [
                Row(
                    f"{side}: ASGI, {how}",
                    f"one request, {how}",
                    make,
                    asgi(application, middleware),
                    asgi(application, ""),
                    STREAMS_PER_BURST if streams else CALLS_PER_BURST,
                    BURSTS,
                ),
                Row(
                    f"{side}: OpenAI, {how}",
                    f"one chat, {how}",
                    make,
                    Chats(streams, trace),
                    burst=STREAMED_CHAT_PAIRS if streams else CHAT_PAIRS,
                    bursts=1,
                ),
            ]
        rows.append(
            Row(
                f"{side}: {RUNS}",
                "one run of a model",
                make,
                TRACED_ONNX[side],
                onnx(RUN, UNTRACED_ONNX if make is not OpenTelemetryProvider else ""),
                CALLS_PER_BURST,
                BURSTS,
            )
        )
    return rows


ROWS = _rows()


def measure(folder: Path, fast: bool) -> Answer:
    rounds, values = (1, 2) if fast else (5, 5)
    with running_receiver() as addresses:
        seconds = measure_rows(
            "bench.integration_cost",
            ROWS,
            folder,
            rounds=rounds,
            values=values,
            addresses=addresses,
        )
    tables = table(
        ["", "work", "µs added", "rounds, µs"],
        [[row.name, row.work, *median_and_spread(seconds[row.name], 1e6, 1)] for row in ROWS],
    )
    verdicts = [
        verdict(
            f"{kind}, native",
            ratios(seconds[f"native: {kind}"], seconds[f"OpenTelemetry: {kind}"]),
            "x",
            at_most=MOST_OF_OPENTELEMETRY,
            of="what OpenTelemetry's adds",
        )
        for kind in KINDS
    ]
    return Answer({"rounds": rounds, "seconds": seconds}, tables, verdicts)


if __name__ == "__main__":
    time_rows("bench.integration_cost", ROWS)
