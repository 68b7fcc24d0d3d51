"""examples/onnx.py: labels are Magika's own, and each batch is stored as it ran."""

from __future__ import annotations

import gzip
import json
import random
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from magika import Magika

import infertrace
from running_collector import Collector

REPOSITORY = Path(__file__).parents[2]
BATCH_SIZE = 8


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files of this repository, and some that are edge cases of the model's input."""
    folder = tmp_path_factory.mktemp("files")
    sources = [
        *Path(infertrace.__file__).parent.glob("*.py"),
        *(REPOSITORY / "csrc").rglob("*.h"),
        *(REPOSITORY / "proto").glob("*.proto"),
        *(REPOSITORY / "proto").glob("*.go"),
        REPOSITORY / "pyproject.toml",
        REPOSITORY / "CMakeLists.txt",
        REPOSITORY / "LICENSE",
    ]
    for source in sources:
        shutil.copy(source, folder)
    code = (folder / "tracer.py").read_bytes()
    generator = random.Random(1)
    words = " ".join(generator.choices(["lorem", "ipsum", "42", "-"], k=900)).encode()
    made = {
        "empty": b"",
        "seven_bytes": b"import ",
        "seven_bytes_after_white_space": b"\n" * 100 + b"import ",
        "seven_bytes_before_white_space": b"import " + b"\n" * 9000,
        "eight_bytes": b"import a",
        "padded_source": b"\n" * 3500 + code + b" \n" * 1000,
        "short_source": b"  \n" + code[:700] + b"\n\n",
        "noise": generator.randbytes(5000),
        "words": words,
        "padded_words": b"\n" * 3500 + words + b" \n" * 1000,
        "compressed": gzip.compress(code, mtime=0),
        "data": json.dumps({"spans": [1, 2, {"a": None}]}).encode(),
    }
    for name, content in made.items():
        (folder / name).write_bytes(content)
    return folder


@pytest.fixture(scope="module")
def report(
    run_example: Callable[..., str], files: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    path = tmp_path_factory.mktemp("onnx") / "report.json"
    run_example("onnx.py", files, "--batch-size", BATCH_SIZE, "--json", path)
    return json.loads(path.read_text())


@pytest.fixture(scope="module")
def magika_answers(report: dict[str, Any]) -> list[dict[str, tuple[str, float]]]:
    """Magika's label and score of each file, in the same batches, as scores depend on these."""
    magika = Magika()
    batches = [magika.identify_paths(list(batch["labels"])) for batch in report["batches"]]
    return [
        {str(one.path): (str(one.output.label), one.score) for one in batch} for batch in batches
    ]


def test_the_ledger_is_closed(collector: Collector, report: dict[str, Any]) -> None:
    collector.assert_complete(report["stats"])


def test_every_file_is_judged_that_magika_asks_its_network_about(
    report: dict[str, Any], files: Path
) -> None:
    results = Magika().identify_paths(sorted(files.iterdir()))
    judged = [path for batch in report["batches"] for path in batch["labels"]]
    assert judged == [str(result.path) for result in results if result.dl.label != "undefined"]
    assert str(files / "seven_bytes_after_white_space") not in judged


def test_labels_are_magikas(
    report: dict[str, Any], magika_answers: list[dict[str, tuple[str, float]]], files: Path
) -> None:
    labels = {}
    for batch, answers in zip(report["batches"], magika_answers, strict=True):
        for path, (label, score) in batch["labels"].items():
            labels[path] = label
            assert label == answers[path][0], path
            # Only an input that is equal to the last byte gives this score.
            assert score == pytest.approx(answers[path][1], rel=1e-5), path
    assert labels[str(files / "tracer.py")] == "python"
    assert labels[str(files / "padded_source")] == "python"
    assert labels[str(files / "noise")] == "unknown"


def test_each_batch_is_one_trace(
    collector: Collector, report: dict[str, Any], magika_answers: list[dict[str, tuple[str, float]]]
) -> None:
    spans = collector.get("/spans", operation="classify", model="magika")
    roots = {span["trace_id"]: span for span in spans}
    assert len(roots) == len(spans)
    assert set(roots) == {batch["trace_id"] for batch in report["batches"]}
    for batch, answers in zip(report["batches"], magika_answers, strict=True):
        root = roots[batch["trace_id"]]
        assert root["batch_size"] == len(answers)
        assert root["batch_fill_ratio"] == len(answers) / BATCH_SIZE
        assert root["sequence_length"] == 2048
        assert root["framework"] == "onnx"
        assert root["model_version"] == Magika().get_model_name()
        assert root["attributes"] == {
            f"label.{label}": count
            for label, count in Counter(label for label, _ in answers.values()).items()
        }
    sizes = [roots[batch["trace_id"]]["batch_size"] for batch in report["batches"]]
    assert set(sizes[:-1]) == {BATCH_SIZE}
    assert 0 < sizes[-1] <= BATCH_SIZE


def test_the_stages_are_children_of_the_batch(collector: Collector, report: dict[str, Any]) -> None:
    for batch in report["batches"]:
        root, *stages = collector.get(f"/traces/{batch['trace_id']}")["spans"]
        assert [stage["pipeline_stage"] for stage in stages] == [
            "preprocessing",
            "inference",
            "postprocessing",
        ]
        assert {stage["parent_span_id"] for stage in stages} == {root["span_id"]}
        assert sum(stage["duration_ms"] for stage in stages) <= root["duration_ms"]
