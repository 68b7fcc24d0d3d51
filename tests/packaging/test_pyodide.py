"""The pure wheel in Pyodide, on Node: recording, encoding, `trace_inference`, the file exporter."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from infertrace.exporting.file_transport import read_batches
from infertrace.generated.span_pb2 import SendSpanBatchRequest, Span

PYODIDE = "pyodide@314.0.7"
HERE = Path(__file__).parent / "pyodide"


@pytest.fixture(scope="module")
def outcome(release: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The output of the program that runs there."""
    for tool in ("node", "npm"):
        if shutil.which(tool) is None:
            stop = pytest.fail if os.environ.get("CI") else pytest.skip
            stop(f"{tool} is not on PATH: install Node 20 or newer to test in Pyodide")
    folder = tmp_path_factory.mktemp("pyodide")
    (folder / "package.json").write_text("{}")
    install = ["npm", "install", "--silent", "--no-audit", "--no-fund", PYODIDE]
    subprocess.run(install, cwd=folder, check=True, timeout=170)
    shutil.copy(HERE / "run.mjs", folder)
    (wheel,) = [file for file in release if file.name.endswith("-none-any.whl")]
    done = subprocess.run(
        ["node", "run.mjs", wheel, HERE / "program.py"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def spans(outcome: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Span]:
    """The spans in the file by model, as the protobuf runtime reads them."""
    path = tmp_path_factory.mktemp("written") / "spans"
    path.write_bytes(base64.b64decode(outcome["file"]))
    batches = [SendSpanBatchRequest.FromString(batch) for batch in read_batches(path)]
    assert batches[-1].final
    assert {span.service_name for batch in batches for span in batch.spans} == {"page"}
    return {span.inference.model_name: span for batch in batches for span in batch.spans}


def test_it_runs_without_what_is_missing_there(outcome: Any) -> None:
    assert outcome["platform"] == "emscripten"
    assert outcome["backend"] == "pure"
    assert outcome["missing"] == ["grpc", "google", "pynvml"]
    assert outcome["gpu"] == {}


def test_decorated_functions_give_what_they_gave(outcome: Any) -> None:
    assert outcome["results"] == ["ABC", "d", "e", "F", "g", "h", "no weights"]


def test_the_file_exporter(outcome: Any, spans: dict[str, Span]) -> None:
    assert outcome["flushed"]
    assert outcome["closed"]
    assert (outcome["written"]["produced"], outcome["written"]["delivered"]) == (7, 7)
    kinds = {"function", "generator", "coroutine", "async generator"}
    assert spans.keys() == kinds | {"outer", "inner", "failed"}
    assert spans["function"].inference.input_tokens == 3
    assert spans["inner"].parent_span_id.hex() == outcome["outer"] == spans["outer"].span_id.hex()
    assert spans["inner"].inference.batch_size == 2
    assert (spans["failed"].status, spans["failed"].status_message) == (
        "ERROR",
        "ValueError: no weights",
    )
    assert spans["generator"].inference.HasField("time_to_first_token_ms")


def test_shipping_without_grpcio_is_one_clear_error(outcome: Any) -> None:
    assert not outcome["unreachable_flushed"]
    assert (outcome["waiting"]["pending"], outcome["waiting"]["dropped"]) == (1, {})
    assert outcome["rescued"]
    (message,) = [message for message in outcome["messages"] if "localhost" in message]
    assert message == (
        "localhost:4317: cannot deliver spans, will keep trying: grpcio is not installed here; "
        "endpoint='file:///PATH' needs nothing else"
    )
