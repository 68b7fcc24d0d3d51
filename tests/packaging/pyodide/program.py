"""Runs in Pyodide: no compiled backend, no threads, no processes, no grpcio, no NVML."""

import base64
import json
import logging
import sys
from importlib.util import find_spec
from pathlib import Path

import infertrace

messages = []


class Kept(logging.Handler):
    def emit(self, record):
        messages.append(record.getMessage())


logging.getLogger("infertrace").addHandler(Kept())

tracer = infertrace.Tracer("file:///tmp/spans.binpb", service_name="page")


@tracer.trace_inference(model="function")
def function(text):
    infertrace.current_span().set_tokens(len(text), 1)
    return text.upper()


@tracer.trace_inference(model="generator")
def generator(text):
    yield from text


@tracer.trace_inference(model="coroutine")
async def coroutine(text):
    return text.upper()


@tracer.trace_inference(model="async generator")
async def async_generator(text):
    for letter in text:
        yield letter


results = [
    function("abc"),
    *generator("de"),
    await coroutine("f"),  # noqa: F704 - Pyodide runs this file as a coroutine
    *[letter async for letter in async_generator("gh")],
]
with tracer.start_span("outer") as outer, tracer.start_span("inner", batch_size=2):
    pass
try:
    with tracer.start_span("failed"):
        raise ValueError("no weights")
except ValueError as error:
    results.append(str(error))
flushed = tracer.flush(5)
written = tracer.stats()
closed = tracer.shutdown(5)

unreachable = infertrace.Tracer("localhost:4317")
with unreachable.start_span("m"):
    pass
unreachable_flushed = unreachable.flush(0.2)
waiting = unreachable.stats()
unreachable.configure(endpoint="file:///tmp/later.binpb")
rescued = unreachable.flush(5)

json.dumps(
    {
        "platform": sys.platform,
        "backend": infertrace.BACKEND,
        "missing": [name for name in ("grpc", "google", "pynvml") if find_spec(name) is None],
        "gpu": infertrace.get_gpu_metrics(),
        "results": results,
        "outer": outer.span_id,
        "flushed": flushed,
        "written": written,
        "closed": closed,
        "file": base64.b64encode(Path("/tmp/spans.binpb").read_bytes()).decode(),
        "unreachable_flushed": unreachable_flushed,
        "waiting": waiting,
        "rescued": rescued,
        "messages": messages,
    }
)
