"""OpenTelemetry's real SDK beside ours: one trace, and its spans by our road."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import fastapi
import grpc
import httpx
import openai
import pytest
from opentelemetry import context, trace
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
from opentelemetry.instrumentation.grpc import GrpcInstrumentorClient, GrpcInstrumentorServer
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

import infertrace
from grpc_receiver import Receiver
from infertrace.collector.ingest.otlp.export_request import read_export_request
from infertrace.generated.span_pb2 import SendSpanBatchRequest, Span, SpanKind
from infertrace.integrations.opentelemetry_exporter import (
    ImmediateSpanExporter,
    InfertraceSpanExporter,
    InfertraceSpanProcessor,
)
from infertrace.integrations.opentelemetry_spans import encode
from infertrace.testing import RecordedSpan, SpanRecorder
from openai_server import Server
from served_app import served
from traced_program import environment, wait_until

Ended = Callable[[int], list[RecordedSpan]]
FAR = "00-" + "ab" * 16 + "-" + "cd" * 8 + "-01"


@pytest.fixture
def provider(recorded_spans: SpanRecorder) -> Iterator[TracerProvider]:
    """Of OpenTelemetry, whose spans go where ours do."""
    infertrace.instrument("opentelemetry")
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(InfertraceSpanProcessor(recorded_spans.tracer))
    yield provider
    provider.shutdown()


@pytest.fixture
def theirs(provider: TracerProvider) -> trace.Tracer:
    return provider.get_tracer("theirs")


def test_whichever_was_entered_last_is_the_parent(
    theirs: trace.Tracer, recorded_spans: SpanRecorder
) -> None:
    ours = recorded_spans.tracer
    with theirs.start_as_current_span("a"):
        with ours.start_span("m", "b"):
            ours.start_span("m", "c").end()
            with theirs.start_as_current_span("d"):
                with theirs.start_as_current_span("e"), ours.start_span("m", "f"):
                    pass
                ours.start_span("m", "g").end()
            theirs.start_span("h").end()
        theirs.start_span("i").end()
        ours.start_span("m", "j").end()
    ours.start_span("m", "k").end()
    theirs.start_span("l").end()
    assert recorded_spans.text_tree() == textwrap.dedent("""\
        a
        ├─ b m
        │  ├─ c m
        │  ├─ d
        │  │  ├─ e
        │  │  │  └─ f m
        │  │  └─ g m
        │  └─ h
        ├─ i
        └─ j m
        k m
        l""")


def test_their_headers_and_ours(theirs: trace.Tracer, recorded_spans: SpanRecorder) -> None:
    propagator = TraceContextTextMapPropagator()
    token = context.attach(propagator.extract({"traceparent": FAR}))
    with recorded_spans.tracer.start_span("m", "request") as request:
        headers: dict[str, str] = {}
        propagator.inject(headers)
        assert headers == {"traceparent": request.traceparent}
        assert (request.trace_id, request.parent_span_id) == ("ab" * 16, "cd" * 8)
    context.detach(token)
    assert not infertrace.current_span().trace_id.strip("0")


def test_what_else_a_context_holds_stays(
    theirs: trace.Tracer, recorded_spans: SpanRecorder
) -> None:
    key = context.create_key("key")
    with recorded_spans.tracer.start_span("m", "request") as request:
        token = context.attach(context.set_value(key, "value"))
        assert infertrace.current_span() is request
        assert context.get_value(key) == "value"
        with theirs.start_as_current_span("theirs"):
            assert context.get_value(key) == "value"
        context.detach(token)
        assert context.get_value(key) is None
        token = context.attach(context.Context())  # so a library leaves the trace
        recorded_spans.tracer.start_span("m", "alone").end()
        context.detach(token)
        assert infertrace.current_span() is request
    assert recorded_spans.one("alone").parent_span_id is None
    assert recorded_spans.one("theirs").parent_span_id == request.span_id


def test_tasks_and_threads(theirs: trace.Tracer, recorded_spans: SpanRecorder) -> None:
    async def request(number: int) -> None:
        with theirs.start_as_current_span(f"theirs {number}"):
            await asyncio.sleep(0)
            with recorded_spans.tracer.start_span("m", "ours"):
                await asyncio.sleep(0)
                theirs.start_span("inside").end()

    async def serve() -> None:
        await asyncio.gather(*(request(number) for number in range(8)))

    asyncio.run(serve())
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda number: asyncio.run(request(number)), range(8)))
    assert len(recorded_spans.roots) == 16
    for root in recorded_spans.roots:
        (ours,) = root.children
        (inside,) = ours.children
        assert (ours.operation, inside.operation) == ("ours", "inside")


def test_what_they_do_not_sample_we_do_not(recorded_spans: SpanRecorder, backend: Any) -> None:
    infertrace.instrument("opentelemetry")
    off = TracerProvider(sampler=ALWAYS_OFF, shutdown_on_exit=False).get_tracer("off")
    with off.start_as_current_span("theirs"):
        recorded_spans.tracer.start_span("m", "ours").end()
    assert recorded_spans.spans == []


def test_switched_off(theirs: trace.Tracer, recorded_spans: SpanRecorder) -> None:
    with theirs.start_as_current_span("theirs"):
        infertrace.uninstrument("opentelemetry")
    with theirs.start_as_current_span("other"):
        recorded_spans.tracer.start_span("m", "ours").end()
    assert recorded_spans.one("ours").parent_span_id is None


@pytest.fixture
def _their_instrumentation(provider: TracerProvider) -> Iterator[None]:
    FastAPIInstrumentor().instrument(tracer_provider=provider)
    yield
    FastAPIInstrumentor().uninstrument()


@pytest.mark.usefixtures("_their_instrumentation")
def test_what_they_trace_is_not_counted_twice(recorded_spans: SpanRecorder) -> None:
    infertrace.instrument("starlette")
    app = fastapi.FastAPI()

    @app.get("/hello")
    def hello() -> str:
        recorded_spans.tracer.start_span("m", "ours").end()
        return "hello"

    with served(app) as url:
        assert httpx.get(f"{url}/hello").text
        wait_until(lambda: bool(recorded_spans.roots))
    (request,) = recorded_spans.roots
    assert request.attributes["http.route"] == "/hello"
    assert len(recorded_spans.find("GET /hello")) == 1
    assert recorded_spans.one("ours").parent_span_id == request.span_id


NATIVE = """
import socket, threading
import httpx, uvicorn
from fastapi import FastAPI
import infertrace
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from infertrace.integrations.opentelemetry_exporter import InfertraceSpanProcessor

infertrace.instrument("starlette")
provider = TracerProvider()
provider.add_span_processor(InfertraceSpanProcessor())
{how}

@app.get("/hello")
def hello():
    return "hello"

listener = socket.create_server(("127.0.0.1", 0))
server = uvicorn.Server(uvicorn.Config(app, log_level="critical"))
thread = threading.Thread(target=server.run, args=([listener],))
thread.start()
while not server.started:
    pass
print(httpx.get(f"http://127.0.0.1:{{listener.getsockname()[1]}}/hello").text)
server.should_exit = True
thread.join()
"""
WAYS = {
    "FastAPI's own": "trace.set_tracer_provider(provider); app = FastAPI()",
    "middleware": """
from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
app = FastAPI()
app.add_middleware(OpenTelemetryMiddleware, tracer_provider=provider)
""",
}


@pytest.mark.parametrize("way", WAYS)
def test_however_they_trace_a_request_it_is_not_counted_twice(
    backend: Any, receiver: Receiver, way: str
) -> None:
    outcome = subprocess.run(
        [sys.executable, "-c", NATIVE.format(how=WAYS[way])],
        env=environment(backend) | {"INFERTRACE_ENDPOINT": receiver.endpoint},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert outcome.stdout == '"hello"\n', outcome.stderr
    wait_until(lambda: bool(receiver.spans))
    servers = [span for span in receiver.spans if span.kind == SpanKind.SPAN_KIND_SERVER]
    # An older FastAPI does not trace, so there it is ours.
    assert len(servers) == 1
    assert servers[0].operation_name == "GET /hello"


def test_calls_of_grpc_that_they_trace_are_not_counted_twice(
    provider: TracerProvider, recorded_spans: SpanRecorder
) -> None:
    infertrace.instrument("grpc")
    theirs = (GrpcInstrumentorServer(), GrpcInstrumentorClient())
    for instrumentor in theirs:
        instrumentor.instrument(tracer_provider=provider)
    handler: Any = grpc.unary_unary_rpc_method_handler(lambda request, context: request)
    server = grpc.server(ThreadPoolExecutor(1))
    server.add_registered_method_handlers("chat.Chat", {"Ask": handler})
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            ask: Any = channel.unary_unary("/chat.Chat/Ask")
            assert ask(b"hello") == b"hello"
    finally:
        server.stop(None).wait()
        for instrumentor in theirs:
            instrumentor.uninstrument()
    wait_until(lambda: bool(recorded_spans.spans))
    kinds = [span.kind for span in recorded_spans.spans]
    assert kinds.count("server") == 1
    assert all("rpc.method" in span.attributes for span in recorded_spans.spans)  # ours have none


@pytest.mark.nightly
def test_a_chat_that_they_trace_is_not_counted_twice(
    provider: TracerProvider, recorded_spans: SpanRecorder
) -> None:
    from opentelemetry.instrumentation.openai_v2 import OpenAIInstrumentor

    infertrace.instrument("openai")
    OpenAIInstrumentor().instrument(tracer_provider=provider)
    try:
        with (
            served(Server().app) as url,
            openai.OpenAI(base_url=f"{url}/v1", api_key="secret") as client,
        ):
            client.chat.completions.create(
                model="gpt-4", messages=[{"role": "user", "content": "hello"}]
            )
            wait_until(lambda: bool(recorded_spans.spans))
    finally:
        OpenAIInstrumentor().uninstrument()
    spans = recorded_spans.spans
    (chat,) = (span for span in spans if "gen_ai.operation.name" in span.attributes)
    assert (chat.operation, chat.attributes["gen_ai.usage.output_tokens"]) == ("chat gpt-4", 7)
    assert not recorded_spans.find("chat")  # ours would have that name


def full_spans() -> list[ReadableSpan]:
    """Spans of the SDK with all that they can have."""
    memory = InMemorySpanExporter()
    resource = Resource.create({"service.name": "chat", "host.name": "gpu-1"})
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(memory))
    tracer = provider.get_tracer("scope", "1.2", attributes={"scope.key": "value"})
    parent = TraceContextTextMapPropagator().extract({"traceparent": FAR, "tracestate": "a=1"})
    with tracer.start_as_current_span(
        "chat gpt-4",
        parent,
        kind=trace.SpanKind.SERVER,
        attributes={
            "gen_ai.request.model": "gpt-4",
            "gen_ai.usage.input_tokens": 11,
            "gen_ai.usage.output_tokens": 7,
            "gen_ai.response.finish_reasons": ["stop", "length"],
            "text": "ü\U0001f600",
            "bool": True,
            "int": -(2**63),
            "float": 0.1,
            "texts": ["a", "b"],
            "ints": [1, -2],
            "floats": [0.5],
            "bools": [True, False],
            "empty": [],
        },
    ) as span:
        span.add_event("gen_ai.content.completion", {"number": 1})
        span.record_exception(KeyError("of the program"))
        span.set_status(trace.StatusCode.ERROR, "failed")
        with tracer.start_as_current_span("child", links=[trace.Link(span.get_span_context())]):
            pass
        with tracer.start_as_current_span("fine") as fine:
            fine.set_status(trace.StatusCode.OK)
    return list(memory.get_finished_spans())


def test_a_span_is_what_the_collector_makes_of_it_in_otlp(backend: Any) -> None:
    spans = full_spans()
    exported = read_export_request(encode_spans(spans).SerializeToString())
    referee = SendSpanBatchRequest.FromString(exported.spans).spans
    for link in (link for span in referee for link in span.links):
        link.trace_state = "a=1"  # which OpenTelemetry's own encoder leaves out
    assert [Span.FromString(encode(span)) for span in spans] == list(referee)


def test_text_that_is_no_unicode(recorded_spans: SpanRecorder, provider: TracerProvider) -> None:
    with provider.get_tracer("t").start_as_current_span("a\ud800b", attributes={"k": "\udc00"}):
        pass
    assert recorded_spans.one().operation == "a\ufffdb"
    assert recorded_spans.one().attributes == {"k": "\ufffd"}


def test_every_span_is_delivered_and_counted(backend: Any, receiver: Receiver) -> None:
    provider = TracerProvider(
        resource=Resource.create({"service.name": "chat"}), shutdown_on_exit=False
    )
    tracer = infertrace.Tracer(receiver.endpoint, resource_interval_s=0)
    provider.add_span_processor(InfertraceSpanProcessor(tracer))
    theirs = provider.get_tracer("t")

    def work(number: int) -> None:
        for _ in range(200):
            theirs.start_span(str(number)).end()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    assert provider.force_flush()
    stats = tracer.stats()
    assert stats["produced"] == stats["delivered"] == 800
    assert {span.service_name for span in receiver.spans} == {"chat"}
    assert len({span.span_id for span in receiver.spans}) == 800
    tracer.shutdown()
    theirs.start_span("late").end()
    assert tracer.stats()["dropped"] == {"shutdown": 1}


def test_a_span_that_is_too_large_is_counted(backend: Any, recorded_spans: SpanRecorder) -> None:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(InfertraceSpanProcessor(recorded_spans.tracer))
    provider.get_tracer("t").start_span("large", attributes={"text": "x" * 5_000_000}).end()
    stats = recorded_spans.tracer.stats()
    assert (stats["produced"], stats["dropped"]) == (1, {"oversize": 1})


def test_one_variable(backend: Any, receiver: Receiver) -> None:
    """OpenTelemetry finds the exporter by its entry point, and its resource is ours."""
    program = """
        from opentelemetry.sdk._configuration import _initialize_components
        from opentelemetry import trace
        _initialize_components()
        with trace.get_tracer("t").start_as_current_span("theirs"):
            pass
        """
    outcome = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        env=environment(backend)
        | {
            "OTEL_TRACES_EXPORTER": "infertrace",
            "OTEL_METRICS_EXPORTER": "none",
            "OTEL_LOGS_EXPORTER": "none",
            "OTEL_RESOURCE_ATTRIBUTES": "service.name=chat,host.name=gpu-2",
            "INFERTRACE_ENDPOINT": receiver.endpoint,
        },
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert outcome.returncode == 0, outcome.stderr
    wait_until(lambda: bool(receiver.spans))
    (span,) = receiver.spans
    assert (span.operation_name, span.service_name) == ("theirs", "chat")
    (sent,) = [request for request in receiver.requests if request.spans]
    resource = {key: value.string_value for key, value in sent.resource.attributes.items()}
    assert resource["host.name"] == "gpu-2"


def test_a_span_that_has_ended_outlives_its_process(backend: Any, receiver: Receiver) -> None:
    """With the variable too, where it would wait for five seconds in OpenTelemetry's queue."""
    program = """
        import os, signal
        from opentelemetry.sdk._configuration import _initialize_components
        from opentelemetry import trace
        _initialize_components()
        with trace.get_tracer("t").start_as_current_span("theirs"):
            pass
        os.kill(os.getpid(), signal.SIGTERM)
        """
    variables = {
        "OTEL_TRACES_EXPORTER": "infertrace",
        "OTEL_METRICS_EXPORTER": "none",
        "OTEL_LOGS_EXPORTER": "none",
        "INFERTRACE_ENDPOINT": receiver.endpoint,
        "INFERTRACE_FLUSH_ON_SIGTERM": "true",
    }
    outcome = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        env=environment(backend) | variables,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert outcome.returncode == -signal.SIGTERM, outcome.stderr
    wait_until(lambda: bool(receiver.spans))
    (span,) = receiver.spans
    assert span.operation_name == "theirs"


# It knows nothing of tracing.
UNTRACED = """
import socket, threading
import httpx, uvicorn
from fastapi import FastAPI

app = FastAPI()

@app.get("/items/{item}")
async def item(item: int) -> int:
    return item

def ask():
    while not server.started:
        pass
    for number in range(3):
        httpx.get(f"http://127.0.0.1:{listener.getsockname()[1]}/items/{number}")
    server.should_exit = True

listener = socket.create_server(("127.0.0.1", 0))
server = uvicorn.Server(uvicorn.Config(app, log_level="critical"))
threading.Thread(target=ask).start()
server.run([listener])
"""


def test_the_console_script(backend: Any, receiver: Receiver, tmp_path: Path) -> None:
    """As docs/integrations/opentelemetry.md has it, over a program without a changed line."""
    (tmp_path / "app.py").write_text(UNTRACED)
    outcome = subprocess.run(
        [Path(sys.executable).with_name("opentelemetry-instrument"), sys.executable, "app.py"],
        cwd=tmp_path,
        env=environment(backend)
        | {
            "OTEL_TRACES_EXPORTER": "infertrace",
            "OTEL_METRICS_EXPORTER": "none",
            "OTEL_LOGS_EXPORTER": "none",
            "OTEL_SERVICE_NAME": "chat",
            "INFERTRACE_ENDPOINT": receiver.endpoint,
        },
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (outcome.returncode, outcome.stderr) == (0, "")
    servers = [span for span in receiver.spans if span.kind == SpanKind.SPAN_KIND_SERVER]
    clients = {s.span_id for s in receiver.spans if s.kind == SpanKind.SPAN_KIND_CLIENT}
    assert [span.operation_name for span in servers] == ["GET /items/{item}"] * 3
    assert {span.parent_span_id for span in servers} == clients
    assert {span.service_name for span in receiver.spans} == {"chat"}
    assert not any(span.invalid_field_count for span in receiver.spans)


# Where the program has no provider, the one that a variable names is like the other.
@pytest.mark.parametrize("kind", [InfertraceSpanExporter, ImmediateSpanExporter])
def test_a_tracer_for_each_resource(
    kind: type[InfertraceSpanExporter], backend: Any, receiver: Receiver, monkeypatch: Any
) -> None:
    monkeypatch.setenv("INFERTRACE_ENDPOINT", receiver.endpoint)
    exporter = kind()
    for service in ("one", "two"):
        provider = TracerProvider(
            resource=Resource.create({"service.name": service}), shutdown_on_exit=False
        )
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        provider.get_tracer("t").start_span(service).end()
    assert exporter.force_flush()
    assert {span.service_name for span in receiver.spans} == {"one", "two"}
    assert len(exporter.tracers) == 2
    for tracer in exporter.tracers:
        tracer.shutdown()
