"""gRPC servers of both kinds on a real socket, of all four kinds of calls."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest

import infertrace
from infertrace.testing import RecordedSpan, SpanRecorder

Ended = Callable[[int], list[RecordedSpan]]
FAR = "00-" + "ab" * 16 + "-" + "cd" * 8 + "-01"


def inside() -> None:
    infertrace.configure().start_span("m", "inside").end()


class Threads:
    """Handlers for `grpc.server`."""

    def unary(self, request: bytes, context: Any) -> bytes:
        inside()
        if request == b"fails":
            raise KeyError("of the program")
        if request == b"aborts":
            context.abort(grpc.StatusCode.NOT_FOUND, "no such model")
        if request == b"sets":
            context.set_code(grpc.StatusCode.INTERNAL)
        return request

    def stream(self, request: bytes, context: Any) -> Iterator[bytes]:
        inside()
        for number in range(3 if request != b"endless" else 100_000):
            yield b"%d" % number
            time.sleep(0.005)
            if request == b"fails":
                raise KeyError("in the middle")

    def gather(self, requests: Iterator[bytes], context: Any) -> bytes:
        inside()
        return b"".join(requests)

    def echo(self, requests: Iterator[bytes], context: Any) -> Iterator[bytes]:
        inside()
        yield from requests


class Tasks:
    """The same for `grpc.aio.server`."""

    async def unary(self, request: bytes, context: Any) -> bytes:
        inside()
        if request == b"fails":
            raise KeyError("of the program")
        if request == b"aborts":
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such model")
        if request == b"sets":
            context.set_code(grpc.StatusCode.INTERNAL)
        return request

    async def stream(self, request: bytes, context: Any) -> Any:
        inside()
        for number in range(3 if request != b"endless" else 100_000):
            yield b"%d" % number
            await asyncio.sleep(0.005)
            if request == b"fails":
                raise KeyError("in the middle")

    async def gather(self, requests: Any, context: Any) -> bytes:
        inside()
        return b"".join([request async for request in requests])

    async def echo(self, requests: Any, context: Any) -> Any:
        inside()
        async for request in requests:
            yield request


def handlers(of: Any) -> Any:
    return grpc.method_handlers_generic_handler(
        "chat.Chat",
        {
            "unary": grpc.unary_unary_rpc_method_handler(of.unary),
            "stream": grpc.unary_stream_rpc_method_handler(of.stream),
            "gather": grpc.stream_unary_rpc_method_handler(of.gather),
            "echo": grpc.stream_stream_rpc_method_handler(of.echo),
        },
    )


def serve_tasks(ports: list[int], is_over: threading.Event) -> None:
    async def serve() -> None:
        server = grpc.aio.server()
        server.add_generic_rpc_handlers((handlers(Tasks()),))
        ports.append(server.add_insecure_port("127.0.0.1:0"))
        await server.start()
        while not is_over.is_set():
            await asyncio.sleep(0.01)
        await server.stop(None)

    asyncio.run(serve())


@pytest.fixture(params=["threads", "tasks"])
def channel(request: pytest.FixtureRequest, recorded_spans: SpanRecorder) -> Iterator[Any]:
    open_channel = grpc.insecure_channel  # untraced; test_grpc_clients.py has traced ones
    infertrace.instrument("grpc")
    if request.param == "threads":
        server = grpc.server(ThreadPoolExecutor(8), [handlers(Threads())])
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        with open_channel(f"127.0.0.1:{port}") as channel:
            yield channel
        server.stop(None).wait()
        return
    ports: list[int] = []
    is_over = threading.Event()
    thread = threading.Thread(target=serve_tasks, args=(ports, is_over))
    thread.start()
    while not ports:
        time.sleep(0.01)
    with open_channel(f"127.0.0.1:{ports[0]}") as channel:
        yield channel
    is_over.set()
    thread.join()


def test_the_four_kinds(channel: Any, ended: Ended, recorded_spans: SpanRecorder) -> None:
    metadata = (("traceparent", FAR),)
    requests = [b"a", b"b"]
    assert channel.unary_unary("/chat.Chat/unary")(b"x", metadata=metadata) == b"x"
    assert list(channel.unary_stream("/chat.Chat/stream")(b"x")) == [b"0", b"1", b"2"]
    assert channel.stream_unary("/chat.Chat/gather")(iter(requests)) == b"ab"
    assert list(channel.stream_stream("/chat.Chat/echo")(iter(requests))) == requests
    ended(8)
    unary, *_ = recorded_spans.find("chat.Chat/unary")
    assert (unary.trace_id, unary.parent_span_id) == ("ab" * 16, "cd" * 8)
    assert unary.attributes == {"rpc.system": "grpc"}
    tokens = {"unary": None, "stream": 3, "gather": None, "echo": 2}
    for name, count in tokens.items():
        span = recorded_spans.one(f"chat.Chat/{name}")
        assert (span.status, span.fields.get("output_tokens")) == ("OK", count)
        assert span.kind == "server"
        assert [child.operation for child in span.children] == ["inside"]


@pytest.mark.parametrize(
    ("request_bytes", "message"),
    [
        (b"fails", "KeyError: 'of the program'"),
        (b"aborts", "NOT_FOUND: no such model"),
        (b"sets", "INTERNAL"),
    ],
)
def test_an_error(
    channel: Any,
    ended: Ended,
    recorded_spans: SpanRecorder,
    request_bytes: bytes,
    message: str,
) -> None:
    with pytest.raises(grpc.RpcError):
        channel.unary_unary("/chat.Chat/unary")(request_bytes)
    ended(2)
    span = recorded_spans.one("chat.Chat/unary")
    assert (span.status, span.status_message) == ("ERROR", message)


def test_an_error_in_a_stream(channel: Any, ended: Ended, recorded_spans: SpanRecorder) -> None:
    with pytest.raises(grpc.RpcError):
        list(channel.unary_stream("/chat.Chat/stream")(b"fails"))
    ended(2)
    span = recorded_spans.one("chat.Chat/stream")
    assert (span.status, span.fields["output_tokens"]) == ("ERROR", 1)


def test_a_client_that_goes(channel: Any, ended: Ended, recorded_spans: SpanRecorder) -> None:
    call = channel.unary_stream("/chat.Chat/stream")(b"endless")
    next(call)
    call.cancel()
    ended(2)
    assert recorded_spans.one("chat.Chat/stream").status == "CANCELLED"


def test_calls_at_once(channel: Any, ended: Ended) -> None:
    ask = channel.unary_unary("/chat.Chat/unary")
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: ask(b"x"), range(24)))
    for span in ended(48):
        if span.operation != "inside":
            assert [child.operation for child in span.children] == ["inside"]


def test_what_is_not_there_and_what_is_ours(channel: Any, recorded_spans: SpanRecorder) -> None:
    for method in ("/chat.Chat/nothing", "/infertrace.v1.CollectorService/SendSpanBatch"):
        with pytest.raises(grpc.RpcError):
            channel.unary_unary(method)(b"")
    assert recorded_spans.spans == []
