"""What the tests of integrations share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

import infertrace
from infertrace.testing import RecordedSpan, SpanRecorder
from traced_program import wait_until


@pytest.fixture(autouse=True)
def _untraced(backend: Any, patient_exit: None) -> Iterator[None]:
    """Nothing of one test is traced in the next; each runs on both backends."""
    yield
    infertrace.uninstrument()


@pytest.fixture
def ended(backend: Any, recorded_spans: SpanRecorder) -> Callable[[int], list[RecordedSpan]]:
    """Waits for so many spans to have ended, and gives them."""

    def wait(count: int) -> list[RecordedSpan]:
        wait_until(lambda: len(recorded_spans.spans) >= count)
        spans = recorded_spans.spans
        assert len(spans) == count, recorded_spans.text_tree()
        return spans

    return wait
