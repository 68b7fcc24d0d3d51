"""The OpenAI client, and a server that speaks its protocol on a real socket."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from pydantic import BaseModel

import infertrace
from infertrace.integrations import openai as integration
from infertrace.testing import RecordedSpan, SpanRecorder
from openai_server import Server
from served_app import served

Ended = Callable[[int], list[RecordedSpan]]
MESSAGES: Any = [{"role": "user", "content": "hello"}]


@pytest.fixture(scope="module")
def running() -> Iterator[tuple[Server, str]]:
    server = Server()
    with served(server.app) as url:
        yield server, url


@pytest.fixture
def server(running: tuple[Server, str]) -> Server:
    running[0].asked.clear()
    return running[0]


@pytest.fixture
def client(server: Server, running: tuple[Server, str]) -> Iterator[OpenAI]:
    infertrace.instrument("openai")
    with OpenAI(base_url=f"{running[1]}/v1", api_key="secret") as client:
        yield client


@pytest.fixture
def new_client(server: Server, running: tuple[Server, str]) -> Callable[[], AsyncOpenAI]:
    """Of the asynchronous kind; one for each event loop."""
    infertrace.instrument("openai")
    return lambda: AsyncOpenAI(base_url=f"{running[1]}/v1", api_key="secret")


def places(client: Any) -> dict[str, Any]:
    url = urlsplit(str(client.base_url))
    return {"server.address": url.hostname, "server.port": url.port}


def test_a_chat(client: OpenAI, server: Server, ended: Ended) -> None:
    with infertrace.configure().start_span(None, "around") as around:
        answer = client.chat.completions.create(model="m", messages=MESSAGES)
        assert infertrace.current_span() is around
    assert answer.choices[0].message.content
    _, span = ended(2)
    assert (span.operation, span.model, span.status) == ("chat", "m", "OK")
    assert span.kind == "client"
    assert span.fields == {
        "input_tokens": 11,
        "output_tokens": 7,
        "cached_input_tokens": 4,
        "reasoning_output_tokens": 2,
        "finish_reason": "stop,tool_calls",
        "request_id": "chatcmpl-1",
    }
    assert span.attributes == {**places(client), "gen_ai.response.model": "real"}
    assert span.parent_span_id == around.span_id
    ((headers, body),) = server.asked
    assert headers["traceparent"] == f"00-{span.trace_id}-{span.span_id}-01"
    assert body == {"model": "m", "messages": MESSAGES}


def assert_streamed(span: RecordedSpan, operation: str, **expected: Any) -> None:
    assert (span.operation, span.model, span.status) == (operation, "m", "OK")
    fields = dict(span.fields)
    first_ms, mean_ms = (fields.pop(f"{name}_ms") for name in ("time_to_first_token", MEAN))
    assert isinstance(first_ms, float)
    assert isinstance(mean_ms, float)
    assert 0 < first_ms < first_ms + 2 * mean_ms < span.duration_ns / 1e6
    longest_ms, intervals = fields.pop(f"max_{MEAN}_ms"), fields.pop("token_intervals")
    assert isinstance(longest_ms, float)
    assert isinstance(intervals, list)
    assert mean_ms <= longest_ms * 1.001
    assert sum(intervals[1:]) == 2
    assert fields == expected


MEAN = "inter_token_latency"
COUNTED = {
    "input_tokens": 11,
    "output_tokens": 7,
    "cached_input_tokens": 4,
    "reasoning_output_tokens": 2,
    "finish_reason": "stop",
}


@pytest.mark.parametrize("model", ["m", "llama.cpp"])
def test_a_stream_looks_as_it_would_untraced(
    client: OpenAI, server: Server, ended: Ended, model: str
) -> None:
    traced = list(client.chat.completions.create(model=model, messages=MESSAGES, stream=True))
    infertrace.uninstrument("openai")
    plain = list(client.chat.completions.create(model=model, messages=MESSAGES, stream=True))
    assert traced == plain
    assert [chunk.model_dump() for chunk in traced] == [chunk.model_dump() for chunk in plain]
    (span,) = ended(1)
    if model == "m":
        assert_streamed(span, "chat", request_id="chatcmpl-2", **COUNTED)
    assert [body.get("stream_options") for _, body in server.asked] == [
        {"include_usage": True},
        None,
    ]


def test_a_usage_that_was_asked_for_is_seen(client: OpenAI, ended: Ended) -> None:
    *_, last = client.chat.completions.create(
        model="m", messages=MESSAGES, stream=True, stream_options={"include_usage": True}
    )
    assert last.usage is not None
    (span,) = ended(1)
    assert_streamed(span, "chat", request_id="chatcmpl-2", **COUNTED)


@pytest.mark.parametrize("way", ["option", "said", "old server"])
def test_without_usage_chunks_are_tokens(
    client: OpenAI, server: Server, ended: Ended, way: str
) -> None:
    said: dict[str, Any] = {}
    if way == "option":
        infertrace.uninstrument("openai")
        integration.instrument(include_usage=False)
    elif way == "said":
        said = {"stream_options": {"include_usage": False}}
    model = "old" if way == "old server" and not said else "m"
    for _ in range(2):
        if way == "said":
            model = "m"
        assert (
            len(
                list(
                    client.chat.completions.create(
                        model=model, messages=MESSAGES, stream=True, **said
                    )
                )
            )
            == 5
        )
    for span in ended(2):
        assert span.status == "OK"
        assert span.fields["output_tokens"] == 3
        assert "input_tokens" not in span.fields
    # A server that does not know it is asked once.
    assert len(server.asked) == (3 if way == "old server" else 2)


def test_completions_embeddings_and_responses(client: OpenAI, ended: Ended) -> None:
    client.completions.create(model="m", prompt="hello")
    list(client.completions.create(model="m", prompt="hello", stream=True))
    client.embeddings.create(model="m", input=["a", "b", "c"])
    client.responses.create(model="m", input="hello")
    list(client.responses.create(model="m", input="hello", stream=True))
    plain, streamed, embedding, response, streamed_response = ended(5)
    assert plain.fields == {
        **COUNTED,
        "finish_reason": "stop,tool_calls",
        "request_id": "chatcmpl-1",
    }
    assert_streamed(streamed, "text_completion", request_id="chatcmpl-2", **COUNTED)
    assert (embedding.operation, embedding.fields) == (
        "embeddings",
        {"batch_size": 3, "input_tokens": 5},
    )
    assert response.operation == "responses"
    assert response.fields == {**COUNTED, "request_id": "resp_1"}
    assert_streamed(streamed_response, "responses", request_id="resp_1", **COUNTED)


def test_llama_cpp_and_vllm_say_more(client: OpenAI, ended: Ended) -> None:
    client.chat.completions.create(model="vllm", messages=MESSAGES)
    list(client.chat.completions.create(model="llama.cpp", messages=MESSAGES, stream=True))
    infertrace.uninstrument("openai")
    integration.instrument(include_usage=False)
    list(client.chat.completions.create(model="llama.cpp", messages=MESSAGES, stream=True))
    vllm, llama, without_usage = ended(3)
    assert vllm.fields["queue_wait_time_ms"] == 12.5
    assert vllm.attributes["vllm.metrics.mean_itl_ms"] == 0.25
    assert llama.attributes["llama_cpp.timings.prompt_ms"] == 1.5
    assert (llama.fields["input_tokens"], llama.fields["output_tokens"]) == (11, 7)
    fields = without_usage.fields
    assert (fields["input_tokens"], fields["cached_input_tokens"]) == (11, 3)
    assert fields["output_tokens"] == 4


def test_helpers_and_raw_responses(client: OpenAI, ended: Ended) -> None:
    class Person(BaseModel):
        name: str

    parsed = client.chat.completions.parse(model="m", messages=MESSAGES, response_format=Person)
    assert parsed.choices[0].message.parsed == Person(name="Ada")
    with client.chat.completions.stream(model="m", messages=MESSAGES) as events:
        assert events.get_final_completion().choices[0].message.content == "onetwothree"
    raw = client.chat.completions.with_raw_response.create(model="m", messages=MESSAGES)
    assert raw.parse().usage
    raw_stream = client.chat.completions.with_raw_response.create(
        model="m", messages=MESSAGES, stream=True
    )
    assert len(list(raw_stream.parse())) == 5
    with client.chat.completions.with_streaming_response.create(
        model="m", messages=MESSAGES
    ) as response:
        assert response.json()
    *others, body = ended(5)
    for span in others:
        assert (span.status, span.fields["output_tokens"]) == ("OK", 7), span
    assert body.status == "OK"


def test_an_error(client: OpenAI, ended: Ended) -> None:
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(model="refused", messages=MESSAGES)
    (span,) = ended(1)
    assert (span.status, span.attributes["http.response.status_code"]) == ("ERROR", 404)
    assert span.status_message is not None
    assert span.status_message.startswith("NotFoundError")


def test_an_error_in_a_stream(client: OpenAI, ended: Ended) -> None:
    with pytest.raises(openai.APIError):
        list(client.chat.completions.create(model="breaks", messages=MESSAGES, stream=True))
    (span,) = ended(1)
    assert (span.status, span.status_message) == ("ERROR", "APIError: out of memory")
    assert span.fields["output_tokens"] == 3


def test_an_error_after_the_last_chunk(client: OpenAI, ended: Ended) -> None:
    stream = client.chat.completions.create(
        model="breaks at the end", messages=MESSAGES, stream=True
    )
    seen: list[str | None] = []

    def read() -> None:
        for chunk in stream:
            seen.append(chunk.choices[0].finish_reason)

    with pytest.raises(openai.APIError):
        read()
    assert seen[-1] == "stop"
    (span,) = ended(1)
    assert span.status == "ERROR"


def test_retries_are_one_request(client: OpenAI, server: Server, ended: Ended) -> None:
    client.chat.completions.create(model="busy at first", messages=MESSAGES)
    (span,) = ended(1)
    assert len(server.asked) == 3
    assert span.status == "OK"
    assert span.attributes["http.request.resend_count"] == 2
    assert [(event.name, event.attributes) for event in span.events] == [
        ("retry", {"http.response.status_code": 503})
    ] * 2


@pytest.mark.parametrize("way", ["close", "with", "helper", "drop"])
def test_a_stream_that_is_closed_early(client: OpenAI, ended: Ended, way: str) -> None:
    if way == "helper":
        with client.chat.completions.stream(model="endless", messages=MESSAGES) as events:
            for event in events:
                if event.type == "content.delta":
                    break
    else:
        stream = client.chat.completions.create(model="endless", messages=MESSAGES, stream=True)
        next(stream), next(stream)
        if way == "close":
            stream.close()
        elif way == "with":
            with stream:
                pass
        else:
            del stream
            gc.collect()
    (span,) = ended(1)
    assert span.status == "CANCELLED"
    assert span.fields["output_tokens"] == 1


@pytest.mark.parametrize("model", ["m", "breaks"])
def test_a_stream_that_was_read_is_not_kept(client: OpenAI, ended: Ended, model: str) -> None:
    """Not by itself either: only a garbage collection would end that."""

    def is_kept() -> bool:
        gc.disable()
        try:
            stream: Any = client.chat.completions.create(
                model=model, messages=MESSAGES, stream=True
            )
            response = weakref.ref(stream.response)
            with contextlib.suppress(openai.APIError):
                list(stream)
            assert next(stream, None) is None
            del stream
            return response() is not None
        finally:
            gc.enable()

    infertrace.uninstrument("openai")
    is_kept_untraced = is_kept()  # by some older clients
    infertrace.instrument("openai")
    assert is_kept() == is_kept_untraced
    ended(1)


def test_a_stream_that_is_closed_after_its_end_was_said(client: OpenAI, ended: Ended) -> None:
    with client.chat.completions.create(model="m", messages=MESSAGES, stream=True) as stream:
        for chunk in stream:
            if chunk.choices[0].finish_reason:
                break
    (span,) = ended(1)
    assert (span.status, span.fields["finish_reason"]) == ("OK", "stop")


def test_asynchronous(new_client: Callable[[], AsyncOpenAI], ended: Ended) -> None:
    async def ask() -> None:
        async with new_client() as client:

            async def stream() -> None:
                with infertrace.configure().start_span(None, "around"):
                    answer = await client.chat.completions.create(
                        model="m", messages=MESSAGES, stream=True
                    )
                    assert len([chunk async for chunk in answer]) == 5

            await asyncio.gather(
                *(stream() for _ in range(8)),
                client.chat.completions.create(model="m", messages=MESSAGES),
            )
            with pytest.raises(openai.NotFoundError):
                await client.chat.completions.create(model="refused", messages=MESSAGES)
            closed = await client.chat.completions.create(
                model="endless", messages=MESSAGES, stream=True
            )
            async with closed:
                await closed.__anext__()

    asyncio.run(ask())
    spans = ended(19)
    around = [span for span in spans if span.operation == "around"]
    for span in around:
        (child,) = span.children
        assert_streamed(child, "chat", request_id="chatcmpl-2", **COUNTED)
    statuses = [span.status for span in spans if span.operation == "chat" and not span.parent]
    assert statuses == ["OK", "ERROR", "CANCELLED"]


def test_cancelled(new_client: Callable[[], AsyncOpenAI], server: Server, ended: Ended) -> None:
    async def ask() -> None:
        async with new_client() as client:
            asking = client.chat.completions.create(model="slow", messages=MESSAGES, timeout=60)
            task = asyncio.ensure_future(asking)
            while not server.asked:
                await asyncio.sleep(0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(ask())
    (span,) = ended(1)
    assert span.status == "CANCELLED"


def test_threads_at_once(client: OpenAI, ended: Ended) -> None:
    def ask(number: int) -> None:
        list(client.chat.completions.create(model="m", messages=MESSAGES, stream=True))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(ask, range(16)))
    for span in ended(16):
        assert_streamed(span, "chat", request_id="chatcmpl-2", **COUNTED)


def test_a_header_of_the_program_stays(client: OpenAI, server: Server, ended: Ended) -> None:
    own = "00-" + "ab" * 16 + "-" + "cd" * 8 + "-01"
    client.chat.completions.create(model="m", messages=MESSAGES, extra_headers={"Traceparent": own})
    assert server.asked[0][0]["traceparent"] == own
    ended(1)


def test_what_is_not_sampled_is_as_it_was(
    client: OpenAI, server: Server, recorded_spans: SpanRecorder
) -> None:
    recorded_spans.tracer.configure(sample_rate=0)
    list(client.chat.completions.create(model="m", messages=MESSAGES, stream=True))
    ((headers, body),) = server.asked
    assert "traceparent" not in headers
    assert "stream_options" not in body
    assert recorded_spans.spans == []
