"""gRPC channels of both kinds, of all four kinds of calls, to a traced server on a real socket."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest

import infertrace
from infertrace.testing import RecordedSpan, SpanRecorder
from traced_program import wait_until

Ended = Callable[[int], list[RecordedSpan]]
FAR = "00-" + "ab" * 16 + "-" + "cd" * 8 + "-01"


def unary(request: bytes, context: Any) -> bytes:
    if request == b"aborts":
        context.abort(grpc.StatusCode.NOT_FOUND, "no such model")
    if request == b"waits":
        while context.is_active():
            time.sleep(0.01)
    return b" ".join(value.encode() for key, value in context.invocation_metadata() if key == "x")


def stream(request: bytes, context: Any) -> Iterator[bytes]:
    for number in range(3 if request != b"endless" else 100_000):
        yield b"%d" % number
        time.sleep(0.002)
    if request == b"aborts":
        context.abort(grpc.StatusCode.NOT_FOUND, "in the middle")


def gather(requests: Iterator[bytes], context: Any) -> bytes:
    return b"".join(requests)


def echo(requests: Iterator[bytes], context: Any) -> Iterator[bytes]:
    yield from requests


@pytest.fixture
def address(recorded_spans: SpanRecorder) -> Iterator[str]:
    infertrace.instrument("grpc")
    server = grpc.server(ThreadPoolExecutor(8))
    server.add_registered_method_handlers(
        "chat.Chat",
        {
            "unary": grpc.unary_unary_rpc_method_handler(unary),
            "stream": grpc.unary_stream_rpc_method_handler(stream),
            "gather": grpc.stream_unary_rpc_method_handler(gather),
            "echo": grpc.stream_stream_rpc_method_handler(echo),
        },
    )
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None).wait()


def asking(channel: grpc.Channel) -> Any:
    """gRPC's types know no bytes as requests."""
    return channel


class Threads:
    """Asks as a program with threads does."""

    def __init__(self, address: str) -> None:
        self._address = address

    def unary(self, request: bytes, **keywords: Any) -> Any:
        with grpc.insecure_channel(self._address) as channel:
            return asking(channel).unary_unary("/chat.Chat/unary")(request, **keywords)

    def stream(self, request: bytes, most: int = 100_000) -> list[bytes]:
        with grpc.insecure_channel(self._address) as channel:
            call = asking(channel).unary_stream("/chat.Chat/stream")(request)
            answers = [answer for answer, _ in zip(call, range(most), strict=False)]
            call.cancel()
            return answers

    def gather(self, requests: list[bytes]) -> Any:
        with grpc.insecure_channel(self._address) as channel:
            return asking(channel).stream_unary("/chat.Chat/gather")(iter(requests))

    def echo(self, requests: list[bytes]) -> list[Any]:
        with grpc.insecure_channel(self._address) as channel:
            return list(asking(channel).stream_stream("/chat.Chat/echo")(iter(requests)))

    def give_up(self) -> None:
        with grpc.insecure_channel(self._address) as channel:
            future = asking(channel).unary_unary("/chat.Chat/unary").future(b"waits")
            future.cancel()


class Tasks:
    """Asks as a program with an event loop does."""

    def __init__(self, address: str) -> None:
        self._address = address

    def _run(self, asking: Callable[[Any], Any]) -> Any:
        async def main() -> Any:
            async with grpc.aio.insecure_channel(self._address) as channel:
                return await asking(channel)

        return asyncio.run(main())

    def unary(self, request: bytes, **keywords: Any) -> Any:
        async def ask(channel: Any) -> Any:
            return await channel.unary_unary("/chat.Chat/unary")(request, **keywords)

        return self._run(ask)

    def stream(self, request: bytes, most: int = 100_000) -> Any:
        async def ask(channel: Any) -> list[bytes]:
            call, answers = channel.unary_stream("/chat.Chat/stream")(request), []
            async for answer in call:
                answers.append(answer)
                if len(answers) == most:
                    break
            call.cancel()
            return answers

        return self._run(ask)

    def gather(self, requests: list[bytes]) -> Any:
        async def ask(channel: Any) -> Any:
            return await channel.stream_unary("/chat.Chat/gather")(iter(requests))

        return self._run(ask)

    def echo(self, requests: list[bytes]) -> Any:
        async def given() -> AsyncIterator[bytes]:
            for request in requests:
                yield request

        async def ask(channel: Any) -> list[Any]:
            return [answer async for answer in channel.stream_stream("/chat.Chat/echo")(given())]

        return self._run(ask)

    def give_up(self) -> None:
        async def ask(channel: Any) -> None:
            call = channel.unary_unary("/chat.Chat/unary")(b"waits")
            await asyncio.sleep(0.05)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call

        self._run(ask)


@pytest.fixture(params=[Threads, Tasks])
def client(request: pytest.FixtureRequest, address: str) -> Any:
    return request.param(address)


def sides(recorded: SpanRecorder, method: str) -> tuple[RecordedSpan, RecordedSpan]:
    """The span of the client and the one of the server."""
    wait_until(lambda: len(recorded.find(f"chat.Chat/{method}")) == 2)
    found = {span.span_id: span for span in recorded.find(f"chat.Chat/{method}")}
    (server,) = (span for span in found.values() if span.parent_span_id in found)
    return found[server.parent_span_id or ""], server


def test_the_four_kinds(client: Any, recorded_spans: SpanRecorder) -> None:
    with recorded_spans.tracer.start_span("m", "around") as around:
        assert client.unary(b"x", metadata=(("x", "1"),)) == b"1"
        assert client.stream(b"x") == [b"0", b"1", b"2"]
        assert client.gather([b"a", b"b"]) == b"ab"
        assert client.echo([b"a", b"b"]) == [b"a", b"b"]
    for method, tokens in {"unary": None, "stream": 3, "gather": None, "echo": 2}.items():
        asked, _ = sides(recorded_spans, method)
        assert (asked.parent_span_id, asked.status) == (around.span_id, "OK")
        assert asked.fields.get("output_tokens") == tokens
        assert asked.attributes == {"rpc.system": "grpc"}


def test_an_error(client: Any, recorded_spans: SpanRecorder) -> None:
    with pytest.raises(grpc.RpcError):
        client.unary(b"aborts")
    with pytest.raises(grpc.RpcError):
        client.stream(b"aborts")
    for method, message in (("unary", "no such model"), ("stream", "in the middle")):
        asked, _ = sides(recorded_spans, method)
        assert (asked.status, asked.status_message) == ("ERROR", f"NOT_FOUND: {message}")


def test_a_program_that_wants_no_more(client: Any, recorded_spans: SpanRecorder) -> None:
    assert client.stream(b"endless", 2) == [b"0", b"1"]
    client.give_up()
    wait_until(lambda: len(recorded_spans.find("chat.Chat/stream")) == 2)
    asked, _ = sides(recorded_spans, "stream")
    assert asked.status == "CANCELLED"
    # One that is cancelled early never reaches the server.
    wait_until(lambda: bool(recorded_spans.find("chat.Chat/unary")))
    assert {span.status for span in recorded_spans.find("chat.Chat/unary")} == {"CANCELLED"}


def test_a_trace_that_the_program_sends(client: Any, recorded_spans: SpanRecorder) -> None:
    client.unary(b"x", metadata=(("traceparent", FAR),))
    wait_until(lambda: len(recorded_spans.find("chat.Chat/unary")) == 2)
    parents = {span.parent_span_id for span in recorded_spans.find("chat.Chat/unary")}
    assert "cd" * 8 in parents


def test_a_server_that_is_not_there(recorded_spans: SpanRecorder) -> None:
    infertrace.instrument("grpc")
    for kind in (Threads, Tasks):
        with pytest.raises(grpc.RpcError):
            kind("127.0.0.1:1").unary(b"x")
    wait_until(lambda: len(recorded_spans.find("chat.Chat/unary")) == 2)
    for span in recorded_spans.find("chat.Chat/unary"):
        assert (span.status, (span.status_message or "")[:11]) == ("ERROR", "UNAVAILABLE")


def test_interceptors_of_the_program_run_too(address: str, recorded_spans: SpanRecorder) -> None:
    seen: list[str] = []

    class Theirs(grpc.aio.UnaryUnaryClientInterceptor):
        async def intercept_unary_unary(
            self, continuation: Any, client_call_details: Any, request: Any
        ) -> Any:
            seen.extend(key for key, _ in client_call_details.metadata)
            return await continuation(client_call_details, request)

    async def main() -> None:
        channel: Any = grpc.aio.insecure_channel(address, interceptors=[Theirs()])
        await channel.unary_unary("/chat.Chat/unary")(b"x")
        await channel.close()

    asyncio.run(main())
    assert seen == ["traceparent"]
