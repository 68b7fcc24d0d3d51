"""The fixture `recorded_spans`, which pytest finds by itself where infertrace is installed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from infertrace.testing import SpanRecorder


@pytest.fixture
def recorded_spans() -> Iterator[SpanRecorder]:
    """The spans of the test, in memory: `infertrace.testing.SpanRecorder`.

    Its own `tracer` is the default tracer during the test. It also records the spans of the
    previous default tracer, which may have decorated functions already, and of the tracers that the
    test gives to `capture()`. No span is current when the test begins, nor when it ends.
    """
    # Imported here: it loads protobuf, which a test without this fixture need not pay for.
    from infertrace import backend
    from infertrace.testing import SpanRecorder
    from infertrace.tracer import exchange_default_tracer

    backend.selected.set_current(None)
    with SpanRecorder() as recorder:
        default = exchange_default_tracer(recorder.tracer)
        try:
            if default is not None:
                recorder.capture(default)
            yield recorder
        finally:
            exchange_default_tracer(default)
            backend.selected.set_current(None)
