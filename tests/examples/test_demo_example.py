"""examples/demo.py: every batch of the loop is stored as it ran."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Callable

from running_collector import Collector

WORDS_PER_INPUT = 4  # "tell me a story"
BATCHES = 100


def test_every_batch_is_stored(collector: Collector, run_example: Callable[..., str]) -> None:
    stats = ast.literal_eval(run_example("demo.py"))

    spans = collector.get("/spans", model="gpt-4", service="demo-model-server", limit=1000)
    assert len(spans) == stats["produced"] == BATCHES
    assert Counter(span["batch_size"] for span in spans) == Counter(
        step % 8 + 1 for step in range(BATCHES)
    )
    for span in spans:
        assert span["status"] == "OK"
        assert span["input_tokens"] == span["output_tokens"] == WORDS_PER_INPUT * span["batch_size"]
        assert span["duration_ms"] > 0
    collector.assert_complete(stats)
