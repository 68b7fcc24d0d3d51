"""ONNX Runtime with a real model, that of the package `magika`."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

import infertrace
from infertrace.integrations import onnxruntime
from infertrace.testing import RecordedSpan, SpanRecorder

Ended = Callable[[int], list[RecordedSpan]]
INPUT, OUTPUT, WIDTH = "bytes", "target_label", 2_048
EXPECTED = {"batch_size": 3, "framework": "onnx"}


@pytest.fixture(scope="module")
def path() -> Path:
    spec = find_spec("magika")
    assert spec is not None
    assert spec.origin is not None
    (found,) = Path(spec.origin).parent.glob("models/*/model.onnx")
    return found


@pytest.fixture
def session(path: Path, recorded_spans: SpanRecorder) -> ort.InferenceSession:
    onnxruntime.instrument(recorded_spans.tracer)
    return ort.InferenceSession(path, providers=["CPUExecutionProvider"])


def batch(rows: int = 3) -> dict[str, np.ndarray]:
    return {INPUT: np.zeros((rows, WIDTH), np.int32)}


def test_a_run(session: ort.InferenceSession, ended: Ended, path: Path) -> None:
    (scores,) = session.run([OUTPUT], batch())
    assert scores.shape[0] == 3
    (span,) = ended(1)
    assert (span.model, span.operation, span.status) == (path.parent.name, "inference", "OK")
    assert span.fields == EXPECTED
    assert span.attributes == {"onnxruntime.provider": "CPUExecutionProvider"}
    assert span.invalid_fields == 0


def test_values_of_its_own(session: ort.InferenceSession, ended: Ended) -> None:
    value = ort.OrtValue.ortvalue_from_numpy(batch()[INPUT])
    (scores,) = session.run_with_ort_values([OUTPUT], {INPUT: value})
    assert scores.shape()[0] == 3
    (span,) = ended(1)
    assert span.fields == EXPECTED


def test_bindings(session: ort.InferenceSession, ended: Ended) -> None:
    array = batch()[INPUT]
    value = ort.OrtValue.ortvalue_from_numpy(array)
    binding = session.io_binding()
    binding.bind_output(OUTPUT)
    for bind in (
        lambda: binding.bind_cpu_input(INPUT, array),
        lambda: binding.bind_ortvalue_input(name=INPUT, ortvalue=value),
        lambda: binding.bind_input(INPUT, "cpu", 0, np.int32, array.shape, array.ctypes.data),
    ):
        bind()
        session.run_with_iobinding(binding)
        binding.clear_binding_inputs()
    assert [span.fields for span in ended(3)] == [EXPECTED] * 3


def test_in_the_background(session: ort.InferenceSession, ended: Ended) -> None:
    answers: queue.Queue[Any] = queue.Queue()

    def callback(results: Any, user_data: Any, error: str) -> None:
        answers.put((len(results), user_data, error, infertrace.current_span().span_id))

    session.run_async([OUTPUT], batch(), callback, "mine")
    answer = answers.get(timeout=60)
    (span,) = ended(1)
    assert answer == (1, "mine", "", span.span_id)
    assert (span.status, span.fields) == ("OK", EXPECTED)


def test_a_failure_in_the_background(session: ort.InferenceSession, ended: Ended) -> None:
    errors: queue.Queue[str] = queue.Queue()
    wrong = {INPUT: np.zeros((3, WIDTH), np.float32)}
    session.run_async([OUTPUT], wrong, lambda results, data, error: errors.put(error), None)
    error = errors.get(timeout=60)
    (span,) = ended(1)
    assert (span.status, span.status_message) == ("ERROR", error)


@pytest.mark.parametrize("feed", [{}, {"other": np.zeros(1)}])
def test_what_fails_at_once(session: ort.InferenceSession, ended: Ended, feed: Any) -> None:
    with pytest.raises(ValueError, match="Required inputs"):
        session.run([OUTPUT], feed)
    with pytest.raises(ValueError, match="Required inputs"):
        session.run_async([OUTPUT], feed, print, None)
    for span in ended(2):
        assert span.status == "ERROR"
        assert str(span.status_message).startswith("ValueError: Required inputs")


def test_a_run_that_the_program_stops(session: ort.InferenceSession, ended: Ended) -> None:
    options = ort.RunOptions()
    options.terminate = True
    with pytest.raises(Exception, match="terminate flag"):
        session.run([OUTPUT], batch(), options)
    binding = session.io_binding()
    binding.bind_cpu_input(INPUT, batch()[INPUT])
    binding.bind_output(OUTPUT)
    with pytest.raises(Exception, match="terminate flag"):
        session.run_with_iobinding(binding, options)
    assert [span.status for span in ended(2)] == ["CANCELLED"] * 2


def test_runs_are_children_of_their_threads(
    session: ort.InferenceSession, recorded_spans: SpanRecorder, ended: Ended
) -> None:
    together = threading.Barrier(4)

    def work(rows: int) -> None:
        with recorded_spans.tracer.start_span(operation_name=f"request {rows}"):
            together.wait(60)
            for _ in range(3):
                session.run(None, batch(rows))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(1, 5)))
    for span in ended(16):
        if span.operation == "inference":
            assert span.parent is not None
            assert span.parent.operation == f"request {span.fields['batch_size']}"


def test_names(path: Path, recorded_spans: SpanRecorder, ended: Ended) -> None:
    onnxruntime.instrument(recorded_spans.tracer)
    in_memory = ort.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    in_memory.run(None, batch())
    infertrace.uninstrument("onnxruntime")
    onnxruntime.instrument(recorded_spans.tracer, model_name=lambda session: "content types")
    ort.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, batch())
    assert [span.model for span in ended(2)] == [
        in_memory.get_modelmeta().graph_name,
        "content types",
    ]


def test_switched_off_there_is_nothing(session: ort.InferenceSession, ended: Ended) -> None:
    binding = session.io_binding()
    infertrace.uninstrument("onnxruntime")
    session.run(None, batch())
    binding.bind_cpu_input(INPUT, batch()[INPUT])
    assert not hasattr(ort.InferenceSession.run, "__wrapped__")
    ended(0)


def test_what_it_cannot_read_stays_away_from_the_program(
    recorded_spans: SpanRecorder, path: Path, ended: Ended, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(session: Any) -> str:
        raise KeyError("of ours")

    onnxruntime.instrument(recorded_spans.tracer, model_name=fails)
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    assert len(session.run(None, batch())) == 1
    ended(0)
    assert "onnxruntime: cannot be read completely (KeyError)" in caplog.messages
