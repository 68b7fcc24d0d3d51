"""Ids: not zero, no duplicate, distinct across threads and after a fork."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy
import pytest

TEN_MILLION = 10_000_000


def test_no_duplicate_in_ten_million(recording: Any) -> None:
    new_span_id = recording.recorder.new_span_id
    found = numpy.fromiter((new_span_id() for _ in range(TEN_MILLION)), numpy.uint64, TEN_MILLION)
    found.sort()
    assert found[0] != 0
    assert (found[1:] != found[:-1]).all()


def test_ids_of_spans_are_distinct_across_threads(recording: Any) -> None:
    def work(_: int) -> list[tuple[str, str]]:
        spans = [recording.start_span() for _ in range(5_000)]
        return [(span.trace_id, span.span_id) for span in spans]

    with ThreadPoolExecutor(8) as pool:
        found = [ids for part in pool.map(work, range(8)) for ids in part]
    assert len({trace_id for trace_id, _ in found}) == len(found)
    assert len({span_id for _, span_id in found}) == len(found)
    assert "0" * 32 not in {trace_id for trace_id, _ in found}
    assert "0" * 16 not in {span_id for _, span_id in found}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the platform has no fork")
def test_ids_are_distinct_after_a_fork(new_tracer: Any, receiver: Any) -> None:
    tracer = new_tracer(receiver.endpoint)

    def ids() -> bytes:
        return b"".join(tracer.start_span().span_id.encode() for _ in range(1_000))

    ids()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        with os.fdopen(writing, "wb") as pipe:
            pipe.write(ids())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as answer:
        theirs = answer.read()
    assert os.waitpid(child, 0)[1] == 0
    ours = ids()
    both = {text[at : at + 16] for text in (ours, theirs) for at in range(0, len(text), 16)}
    assert len(both) == 2_000
