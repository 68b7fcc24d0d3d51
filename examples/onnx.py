"""Trace batches through ONNX Runtime: what type of content does each of these files have?

    pip install 'infertrace-sdk[examples]'
    infertrace collector &
    python examples/onnx.py src tests

The model is the one in the package `magika`; this file does the pre- and postprocessing of
that package itself, so that each stage of the pipeline is a span.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from infertrace import Tracer

MODEL_NAME = "magika"


class ContentTypeModel:
    """Magika's network, and what its configuration says about input and output."""

    def __init__(self) -> None:
        spec = find_spec("magika")
        assert spec is not None
        assert spec.origin is not None
        package = Path(spec.origin).parent
        (model,) = package.glob("models/*/model.onnx")
        self.version = model.parent.name
        self._config = json.loads((model.parent / "config.min.json").read_text())
        self._content_types = json.loads(
            (package / "config" / "content_types_kb.min.json").read_text()
        )
        self._session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])

    def can_judge(self, content: bytes) -> bool:
        """Whether there are enough bytes; Magika decides about fewer without the network."""
        beginning = content[: self._config["block_size"]].lstrip()
        return len(beginning) >= self._config["min_file_size_for_dl"]

    def features(self, content: bytes) -> np.ndarray:
        """First and last bytes without the white space around them, padded to a fixed width."""
        beg_size, end_size, block_size, padding = (
            self._config[key] for key in ("beg_size", "end_size", "block_size", "padding_token")
        )
        beginning = np.frombuffer(content[:block_size].lstrip()[:beg_size], np.uint8)
        end = np.frombuffer(content[-block_size:].rstrip()[-end_size:], np.uint8)
        row = np.full(beg_size + end_size, padding, np.int32)
        row[: len(beginning)] = beginning
        row[len(row) - len(end) :] = end
        return row

    def run(self, batch: np.ndarray) -> np.ndarray:
        """A score for each row and label."""
        (scores,) = self._session.run(["target_label"], {"bytes": batch})
        return scores

    def label(self, scores: np.ndarray) -> tuple[str, float]:
        """The best label, or a general one where the network is not sure enough; its score."""
        best = int(scores.argmax())
        guess = self._config["target_labels_space"][best]
        label: str = self._config["overwrite_map"].get(guess, guess)
        threshold = self._config["thresholds"].get(
            guess, self._config["medium_confidence_threshold"]
        )
        if scores[best] < threshold:
            label = "txt" if self._content_types[label]["is_text"] else "unknown"
        return label, float(scores[best])


def classify(
    contents: list[bytes], largest_batch: int, model: ContentTypeModel, tracer: Tracer
) -> tuple[list[tuple[str, float]], str]:
    """The labels of one batch and their scores, and the id of its trace."""
    with tracer.start_span(
        MODEL_NAME,
        "classify",
        model_version=model.version,
        framework="onnx",
        batch_size=len(contents),
        batch_fill_ratio=len(contents) / largest_batch,
    ) as span:
        with tracer.start_span(MODEL_NAME, "features", pipeline_stage="preprocessing"):
            batch = np.stack([model.features(content) for content in contents])
        with tracer.start_span(MODEL_NAME, "run", pipeline_stage="inference"):
            scores = model.run(batch)
        with tracer.start_span(MODEL_NAME, "label", pipeline_stage="postprocessing"):
            labels = [model.label(row) for row in scores]
        span.set_sequence_length(batch.shape[1])
        for label, count in Counter(label for label, _ in labels).items():
            span.set_attribute(f"label.{label}", count)
    return labels, span.trace_id


def readable_files(paths: list[Path]) -> Iterator[tuple[Path, bytes]]:
    for path in paths:
        files = sorted(path.rglob("*")) if path.is_dir() else [path]
        for file in files:
            if file.is_file():
                yield file, file.read_bytes()


def parse_arguments() -> argparse.Namespace:
    repository = Path(__file__).resolve().parent.parent
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("paths", type=Path, nargs="*", default=[repository / "src"])
    parser.add_argument("--endpoint", help="the collector (default: localhost:4317)")
    parser.add_argument("--batch-size", type=int, default=16, help="default: %(default)s")
    parser.add_argument(
        "--json", type=Path, help="write each batch's labels and scores to this file"
    )
    return parser.parse_args()


def main() -> None:
    options = parse_arguments()
    model = ContentTypeModel()
    tracer = Tracer(options.endpoint).configure(service_name="onnx-example")
    files = [file for file in readable_files(options.paths) if model.can_judge(file[1])]
    reports: list[dict[str, Any]] = []
    for start in range(0, len(files), options.batch_size):
        batch = files[start : start + options.batch_size]
        contents = [content for _, content in batch]
        labels, trace_id = classify(contents, options.batch_size, model, tracer)
        named = {str(path): label for (path, _), label in zip(batch, labels, strict=True)}
        reports.append({"trace_id": trace_id, "labels": named})
        print(f"{trace_id}  {dict(Counter(label for label, _ in labels))}")
    tracer.shutdown()
    print(tracer.stats())
    if options.json:
        options.json.write_text(json.dumps({"batches": reports, "stats": tracer.stats()}))


if __name__ == "__main__":
    main()
