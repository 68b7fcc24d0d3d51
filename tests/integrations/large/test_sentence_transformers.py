"""sentence-transformers with tiny models on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from sentence_transformers import CrossEncoder, SentenceTransformer
from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification, BertModel

import infertrace
from grpc_receiver import Receiver
from infertrace.integrations import sentence_transformers
from infertrace.testing import RecordedSpan, SpanRecorder
from page_programs import MAX_LINES, PAGES, PROGRAM, run_program
from traced_program import wait_until

Ended = Callable[[int], list[RecordedSpan]]
TEXTS = ["a trace", "many decode steps and an end", "a queue"]


@pytest.fixture(scope="module")
def folder(llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a model that embeds, `tiny-bert`, and one that ranks, `tiny-ranker`."""
    tokenizer = AutoTokenizer.from_pretrained(llama)
    tokenizer.chat_template = None  # by which a text would become a message
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=32, pad_token_id=tokenizer.pad_token_id, num_labels=1,
    )  # fmt: skip
    root = tmp_path_factory.mktemp("sentences")
    for name, kind in (("tiny-bert", BertModel), ("tiny-ranker", BertForSequenceClassification)):
        kind(config).save_pretrained(root / name)
        tokenizer.save_pretrained(root / name)
    return root


@pytest.fixture(scope="module")
def model(folder: Path) -> Any:
    return SentenceTransformer(str(folder / "tiny-bert"), device="cpu")


@pytest.fixture(autouse=True)
def _traced(recorded_spans: SpanRecorder) -> None:
    sentence_transformers.instrument(recorded_spans.tracer)


def tokens(model: Any, texts: list[str]) -> int:
    return sum(len(model.tokenizer(text)["input_ids"]) for text in texts)


@pytest.mark.parametrize("method", ["encode", "encode_query", "encode_document"])
def test_embeddings(model: Any, ended: Ended, method: str) -> None:
    assert getattr(model, method)(TEXTS, batch_size=2).shape == (3, 32)
    (span,) = ended(1)
    assert (span.model, span.operation, span.status) == ("tiny-bert", "embeddings", "OK")
    assert span.fields == {
        "framework": "pytorch",
        "batch_size": 3,
        "input_tokens": tokens(model, TEXTS),
        "step_count": 2,
    }
    assert span.invalid_fields == 0


def test_one_text(model: Any, ended: Ended) -> None:
    assert model.encode(TEXTS[0]).shape == (32,)
    (span,) = ended(1)
    assert (span.fields["batch_size"], span.fields["step_count"]) == (1, 1)


def test_ranking(folder: Path, ended: Ended) -> None:
    ranker = CrossEncoder(str(folder / "tiny-ranker"), device="cpu")
    ranked = ranker.rank(TEXTS[0], TEXTS)
    assert len(ranked) == 3
    (span,) = ended(1)
    assert (span.model, span.operation) == ("tiny-ranker", "rerank")
    assert span.fields["batch_size"] == 3
    pairs = sum(len(ranker.tokenizer(TEXTS[0], text)["input_ids"]) for text in TEXTS)
    assert span.fields["input_tokens"] == pairs


def test_an_error(model: Any, ended: Ended) -> None:
    with pytest.raises((TypeError, ValueError)):
        model.encode([object()])
    (span,) = ended(1)
    assert (span.status, span.fields["batch_size"]) == ("ERROR", 1)


def test_threads(model: Any, recorded_spans: SpanRecorder, ended: Ended) -> None:
    def embed(count: int) -> None:
        with recorded_spans.tracer.start_span(operation_name=f"request {count}"):
            model.encode(TEXTS[:count])

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(embed, (1, 2, 3)))
    for span in ended(6):
        if span.operation == "embeddings":
            assert span.parent is not None
            count = int(span.parent.operation.removeprefix("request "))
            assert span.fields["batch_size"] == count
            assert span.fields["input_tokens"] == tokens(model, TEXTS[:count])


def test_switched_off_there_is_nothing(model: Any, ended: Ended) -> None:
    infertrace.uninstrument("sentence-transformers")
    model.encode(TEXTS)
    ended(0)


def test_the_program_of_the_page(backend: Any, receiver: Receiver, folder: Path) -> None:
    (program,) = PROGRAM.findall((PAGES / "sentence-transformers.md").read_text())
    assert len([line for line in program.splitlines() if line]) <= MAX_LINES
    program = program.replace("all-MiniLM-L6-v2", str(folder / "tiny-bert"))
    run_program(backend, receiver, program)
    wait_until(lambda: len(receiver.spans) == 1)
    (span,) = receiver.spans
    assert (span.operation_name, span.inference.batch_size) == ("embeddings", 2)
