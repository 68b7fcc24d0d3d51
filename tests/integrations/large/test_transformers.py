"""transformers' `generate` and continuous batching, with a tiny model on the CPU."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    ContinuousBatchingConfig,
    LogitsProcessor,
    TextIteratorStreamer,
)

import infertrace
from grpc_receiver import Receiver
from infertrace.integrations import transformers
from infertrace.testing import RecordedSpan, SpanRecorder
from page_programs import MAX_LINES, PAGES, PROGRAM, run_program
from traced_program import wait_until

Ended = Callable[[int], list[RecordedSpan]]
Requests = Callable[[int], dict[str, RecordedSpan]]
NEW = {"max_new_tokens": 6, "min_new_tokens": 6, "do_sample": False}
TIMES = {
    "time_to_first_token_ms",
    "inter_token_latency_ms",
    "max_inter_token_latency_ms",
    "token_intervals",
}


@pytest.fixture(scope="module")
def model(llama: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(llama)


@pytest.fixture(scope="module")
def tokenizer(llama: Path) -> Any:
    return AutoTokenizer.from_pretrained(llama, padding_side="left")


@pytest.fixture(autouse=True)
def _traced(recorded_spans: SpanRecorder) -> None:
    transformers.instrument(recorded_spans.tracer)


def numbers(span: RecordedSpan) -> dict[str, Any]:
    assert span.invalid_fields == 0
    return {name: value for name, value in span.fields.items() if name not in TIMES}


def test_one_sequence(model: Any, tokenizer: Any, ended: Ended) -> None:
    prompt = tokenizer("a trace of a request", return_tensors="pt")
    sequences = model.generate(**prompt, **NEW)
    (span,) = ended(1)
    assert (span.model, span.operation, span.status) == ("tiny-llama", "generate", "OK")
    length = prompt["input_ids"].shape[1]
    assert sequences.shape == (1, length + 6)
    assert numbers(span) == {
        "framework": "pytorch",
        "batch_size": 1,
        "input_tokens": length,
        "output_tokens": 6,
        "step_count": 6,
    }
    assert span.fields.keys() >= TIMES


class EndsAt(LogitsProcessor):  # type: ignore[misc]  # of any type here
    """Ends each sequence of a batch at its own length."""

    def __init__(self, lengths: list[int], eos_id: int) -> None:
        self._lengths, self._eos_id = lengths, eos_id

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        for row, length in enumerate(self._lengths):
            scores[row, self._eos_id] = 1e9 if input_ids.shape[1] >= length - 1 else -1e9
        return scores


def test_a_batch_whose_sequences_end_early(model: Any, tokenizer: Any, ended: Ended) -> None:
    prompts = tokenizer(["a trace", "a trace of many requests"], return_tensors="pt", padding=True)
    length = prompts["input_ids"].shape[1]
    ends = EndsAt([length + 3, length + 7], tokenizer.eos_token_id)
    sequences = model.generate(**prompts, max_new_tokens=20, logits_processor=[ends])
    assert sequences.shape == (2, length + 7)
    (span,) = ended(1)
    assert numbers(span) == {
        "framework": "pytorch",
        "batch_size": 2,
        "input_tokens": int(prompts["attention_mask"].sum()),
        "output_tokens": 3 + 7,
        "step_count": 7,
    }


def test_beams_and_details(model: Any, tokenizer: Any, ended: Ended) -> None:
    prompt = tokenizer("a trace", return_tensors="pt")
    result = model.generate(
        prompt["input_ids"], None, num_beams=3, num_return_sequences=2,
        return_dict_in_generate=True, **NEW,
    )  # fmt: skip
    assert result.sequences.shape[0] == 2
    (span,) = ended(1)
    assert (span.fields["batch_size"], span.fields["output_tokens"]) == (1, 12)
    assert span.fields["step_count"] == 6


def test_embeddings_as_input(model: Any, ended: Ended) -> None:
    embeddings = model.get_input_embeddings()(torch.tensor([[5, 6, 7, 8]]))
    model.generate(inputs_embeds=embeddings, **NEW)
    (span,) = ended(1)
    assert numbers(span)["input_tokens"] == 4
    assert numbers(span)["output_tokens"] == numbers(span)["step_count"] == 6


def test_the_programs_own_criteria_stay(model: Any, tokenizer: Any, ended: Ended) -> None:
    prompt = tokenizer("a trace", return_tensors="pt")
    lengths: list[int] = []

    def stop_at_three(input_ids: Any, scores: Any, **_: Any) -> Any:
        lengths.append(input_ids.shape[1])
        return torch.full((input_ids.shape[0],), len(lengths) == 3)

    model.generate(
        **prompt, max_new_tokens=20, min_new_tokens=20, stopping_criteria=[stop_at_three]
    )
    assert len(lengths) == 3
    (span,) = ended(1)
    assert (span.fields["output_tokens"], span.fields["step_count"]) == (3, 3)


def test_streamed(model: Any, tokenizer: Any, ended: Ended) -> None:
    streamer = TextIteratorStreamer(tokenizer, skip_prompt=True)
    prompt = tokenizer("a trace", return_tensors="pt")
    thread = threading.Thread(target=model.generate, kwargs={**prompt, **NEW, "streamer": streamer})
    thread.start()
    assert "".join(streamer)
    thread.join()
    (span,) = ended(1)
    assert (span.status, span.fields["output_tokens"]) == ("OK", 6)
    assert span.fields.keys() >= TIMES


class Closed(TextIteratorStreamer):  # type: ignore[misc]
    """One whose reader has gone."""

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        raise BrokenPipeError("nobody reads")


def test_a_stream_that_is_closed_early(model: Any, tokenizer: Any, ended: Ended) -> None:
    prompt = tokenizer("a trace", return_tensors="pt")
    with pytest.raises(BrokenPipeError):
        model.generate(**prompt, **NEW, streamer=Closed(tokenizer, skip_prompt=True))
    (span,) = ended(1)
    assert (span.status, span.status_message) == ("ERROR", "BrokenPipeError: nobody reads")


def test_an_error(model: Any, ended: Ended) -> None:
    with pytest.raises(ValueError, match="max_new_tokens"):
        model.generate(torch.tensor([[5, 6]]), max_new_tokens=-1)
    (span,) = ended(1)
    assert (span.status, span.fields["batch_size"]) == ("ERROR", 1)


def test_threads(model: Any, recorded_spans: SpanRecorder, ended: Ended) -> None:
    def generate(count: int) -> None:
        with recorded_spans.tracer.start_span(operation_name=f"request {count}"):
            ids = torch.tensor([[5, 6, 7]])
            model.generate(ids, max_new_tokens=count, min_new_tokens=count, do_sample=False)

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(generate, (2, 3, 4)))
    for span in ended(6):
        if span.operation == "generate":
            assert span.parent is not None
            assert span.parent.operation == f"request {span.fields['output_tokens']}"


def test_switched_off_there_is_nothing(model: Any, ended: Ended) -> None:
    infertrace.uninstrument("transformers")
    model.generate(torch.tensor([[5, 6, 7]]), **NEW)
    ended(0)


def test_the_program_of_the_page(backend: Any, receiver: Receiver, llama: Path) -> None:
    (program,) = PROGRAM.findall((PAGES / "transformers.md").read_text())
    assert len([line for line in program.splitlines() if line]) <= MAX_LINES
    program = program.replace("HuggingFaceTB/SmolLM2-135M", str(llama))
    run_program(backend, receiver, program)
    wait_until(lambda: len(receiver.spans) == 1)
    (span,) = receiver.spans
    assert (span.operation_name, span.inference.batch_size) == ("generate", 1)
    assert span.inference.step_count >= 1


# Without a number of blocks its cache takes most of the machine's memory.
SMALL = {"num_blocks": 64, "max_batch_tokens": 64}


def batched(model: Any, lengths: list[int], **options: Any) -> Any:
    inputs = [[5 + place % 50 for place in range(length)] for length in lengths]
    options = {"continuous_batching_config": ContinuousBatchingConfig(**SMALL), **options}
    return model.generate_batch(inputs, max_new_tokens=6, **options)


@pytest.fixture
def requests(recorded_spans: SpanRecorder) -> Callable[[int], dict[str, RecordedSpan]]:
    """Waits for so many requests of continuous batching to have ended; gives them by their ids."""

    def wait(count: int) -> dict[str, RecordedSpan]:
        wait_until(lambda: len(recorded_spans.find("generate")) >= count)
        spans = recorded_spans.find("generate")
        assert len(spans) == count
        return {str(span.fields["request_id"]): span for span in spans}

    return wait


def test_continuous_batching(model: Any, recorded_spans: SpanRecorder, requests: Requests) -> None:
    with recorded_spans.tracer.start_span(operation_name="request") as parent:
        outputs = batched(model, [3, 40, 7])
    assert len(outputs) == 3
    spans = requests(3)
    assert spans.keys() == outputs.keys()
    for request_id, output in outputs.items():
        span = spans[request_id]
        assert output.timestamps is None  # as the program asked
        assert (span.model, span.status) == ("tiny-llama", "OK")
        assert span.parent_span_id == parent.span_id
        assert span.fields["input_tokens"] == len(output.prompt_ids)
        assert span.fields["output_tokens"] == len(output.generated_tokens)
        waited_ms = span.fields["scheduled_after_ms"]
        first_ms = span.fields["time_to_first_token_ms"]
        assert isinstance(waited_ms, float)
        assert isinstance(first_ms, float)
        assert 0 <= waited_ms <= first_ms <= span.duration_ns / 1e6
        assert span.fields["preemption_count"] == span.invalid_fields == 0
        if len(output.generated_tokens) > 1:
            assert span.fields.keys() >= TIMES


def test_the_steps_of_continuous_batching(
    model: Any, recorded_spans: SpanRecorder, requests: Requests
) -> None:
    config = ContinuousBatchingConfig(**{**SMALL, "max_batch_tokens": 16})
    first = batched(model, [3, 40, 7], continuous_batching_config=config)
    second = batched(model, [20], continuous_batching_config=config)
    outputs = [*first.values(), *second.values()]
    requests(4)
    spans = recorded_spans.find("generate")  # two of them have the same id
    steps = sorted(recorded_spans.find("step"), key=lambda step: number(step, "step_index"))
    (engine,) = {str(span.fields["engine"]) for span in (*steps, *spans)}
    assert engine.startswith("transformers-")
    indexes = [number(step, "step_index") for step in steps]
    assert indexes == list(range(indexes[0], indexes[0] + len(steps)))
    for step, index in zip(steps, indexes, strict=True):
        assert (step.model, step.parent_span_id, step.status) == ("tiny-llama", None, "OK")
        members = [
            span
            for span in spans
            if number(span, "first_step") <= index <= number(span, "last_step")
        ]
        assert number(step, "batch_size") == len(members)
        assert 0 < number(step, "prefill_tokens") + number(step, "decode_tokens") <= 16
    for step, following in pairwise(steps):
        assert step.start_ns + step.duration_ns <= following.start_ns + 1_000
    prompts = sum(len(output.prompt_ids) for output in outputs)
    generated = sum(len(output.generated_tokens) for output in outputs)
    assert sum(number(step, "prefill_tokens") for step in steps) == prompts
    assert sum(number(step, "decode_tokens") for step in steps) == generated - len(outputs)
    for span in spans:
        length = number(span, "last_step") - number(span, "first_step") + 1
        assert number(span, "step_count") == length


def number(span: RecordedSpan, field: str) -> int:
    value = span.fields[field]
    assert isinstance(value, int)
    return value


def test_continuous_batching_with_times_that_were_asked_for(model: Any, requests: Requests) -> None:
    (output,) = batched(model, [3], record_timestamps=True).values()
    assert len(output.timestamps) == len(output.generated_tokens)
    requests(1)


def test_a_request_of_continuous_batching_that_is_cancelled(model: Any, requests: Requests) -> None:
    config = ContinuousBatchingConfig(**SMALL)
    with model.continuous_batching_context_manager(continuous_batching_config=config) as manager:
        request_id = manager.add_request([5, 6, 7], max_new_tokens=100_000, eos_token_id=-1)
        manager.cancel_request(request_id)
        ((found, span),) = requests(1).items()
    assert (span.status, found) == ("CANCELLED", request_id)
