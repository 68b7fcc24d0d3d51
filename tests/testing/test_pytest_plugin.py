"""The fixture in a user's project, by pytest in its own process."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import infertrace
from infertrace.testing import SpanRecorder

# The default tracer decorates it at import.
SERVER = """
import infertrace

@infertrace.trace_inference(model="m", operation_name="decorated")
def run():
    pass
"""
TESTS = """
import sys

BEFORE_ANY_TEST = set(sys.modules)

import infertrace
import server

held = []


def test_nothing_heavy_is_loaded_when_pytest_starts():
    heavy = {"grpc", "google.protobuf", "pynvml", "pyarrow", "infertrace.testing"}
    assert not heavy & BEFORE_ANY_TEST


def test_decorated_before(recorded_spans):
    server.run()
    assert recorded_spans.text_tree() == "decorated m"


def test_decorated_within(recorded_spans):
    infertrace.configure(service_name="configured")
    infertrace.trace_inference(model="m")(lambda: None)()
    span = recorded_spans.one()
    assert span.operation == "inference"
    assert span.service_name == "configured"


def test_a_span_is_left_open(recorded_spans):
    held.append(recorded_spans.tracer.start_span("m", "left open"))
    held[0].__enter__()
    assert infertrace.current_span() is held[0]


def test_the_next_one_does_not_see_it(recorded_spans):
    assert not infertrace.current_span().is_recording
    with recorded_spans.tracer.start_span("m", "next"):
        pass
    assert recorded_spans.text_tree() == "next m"


def test_nor_does_one_without_the_fixture():
    assert not infertrace.current_span().is_recording
"""


DOCUMENTATION = Path(__file__).parents[2] / "docs" / "testing.md"
# What its second example imports.
DOCUMENTED_SERVER = """
from infertrace import Tracer

tracer = Tracer()


@tracer.trace_inference(model="gpt-4", operation_name="chat")
def handle(prompt):
    with tracer.start_span(None, "tokenize"):
        pass
    with tracer.start_span("gpt-4", "generate"):
        pass
"""


def run_pytest(backend: Any, project: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", project],
        cwd=project,
        # Nothing listens there, so spans that stay out of memory would hold up the exit.
        env={
            **os.environ,
            "INFERTRACE_BACKEND": backend.NAME,
            "INFERTRACE_ENDPOINT": "localhost:1",
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_project_of_a_user(backend: Any, tmp_path: Path) -> None:
    (tmp_path / "server.py").write_text(SERVER)
    (tmp_path / "test_server.py").write_text(TESTS)
    assert "6 passed" in run_pytest(backend, tmp_path)


def test_the_examples_of_the_documentation(backend: Any, tmp_path: Path) -> None:
    examples = re.findall(
        r"^```python\n(.*?)^```", DOCUMENTATION.read_text(), re.DOTALL | re.MULTILINE
    )
    (tmp_path / "server.py").write_text(DOCUMENTED_SERVER)
    (tmp_path / "test_documentation.py").write_text("\n".join(examples))
    assert "2 passed" in run_pytest(backend, tmp_path)


def test_the_fixture(backend: Any, recorded_spans: SpanRecorder) -> None:
    with infertrace.configure().start_span("m"):
        pass
    assert recorded_spans.one().model == "m"
    assert recorded_spans.tracer is infertrace.configure()
