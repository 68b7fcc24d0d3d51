"""One more field is one line in the table of fields and one command; all the rest follows.

A copy of the tree gets lines of several kinds, the generator runs, and the package is built from
the copy. The tests of the copy, which draw their values from the table, judge what both backends
and both decoders do with it; a collector of the new package opens stores that the old one has
written.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path
from typing import Any

import pytest

from infertrace.collector.server import Collector
from infertrace.tracer import Tracer

ROOT = Path(__file__).parents[2]
FIELD = "speculation_gain_ms"
LINES = {
    "Span": (
        'region = { number = 30, kind = "text", since = "0.2" }',
        'hops = { number = 2046, kind = "total", since = "0.2" }',
    ),
    "InferenceContext": (
        f'{FIELD} = {{ number = 1000, kind = "measure", unit = "milliseconds", '
        'description = "What drafting saved, \\"as measured\\"", since = "0.2" }',
        'prompt = { number = 116, kind = "text", setter = "set_prompt(text)", since = "0.2" }',
        'family = { number = 117, kind = "text", setter = "set_prompt(family)", since = "0.2" }',
        'cached = { number = 2047, kind = "count", setter = "set_prompt(cached)", since = "0.2" }',
        'user = { number = 118, kind = "text", since = "0.2" }',
    ),
    "ResourceMetrics": ('driver_version = { number = 11, kind = "text", since = "0.2" }',),
}
TIMEOUT_S = 600
# The tests that cover any field of the table, without a line about it.
JUDGES = (
    "tests/recording/test_encoding.py",
    "tests/recording/test_record.py",
    "tests/native/test_span_bounds.py",
    "tests/native/test_reference_counts.py",
    "tests/collector/test_decoder.py",
    "tests/collector/test_columns.py",
    "tests/schema/test_field_numbers.py",
    "tests/schema/test_full_batch.py",
)


def run(command: list[str | Path], folder: Path, **environ: str) -> str:
    outer = {key: value for key, value in os.environ.items() if not key.startswith("INFERTRACE_")}
    done = subprocess.run(
        command,
        cwd=folder,
        env={**outer, **environ},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-6000:]
    return done.stdout


class NewPackage:
    """The copy with the new field, and what was built from it."""

    def __init__(self, folder: Path) -> None:
        self.tree = folder / "tree"
        self._site = folder / "site"
        copied = ("csrc", "docs", "proto", "src", "tests", "tools")
        for name in copied:
            kept_out = shutil.ignore_patterns("__pycache__", "*.so")
            shutil.copytree(ROOT / name, self.tree / name, ignore=kept_out)
        for name in ("pyproject.toml", "CMakeLists.txt", "README.md", "LICENSE"):
            shutil.copy(ROOT / name, self.tree / name)
        shutil.copytree(ROOT / "examples", self.tree / "examples")
        self._add_lines()
        # The installed generators, shared by all copies.
        (ROOT / "build" / "stub-generators").mkdir(parents=True, exist_ok=True)
        (self.tree / "build").mkdir()
        (self.tree / "build" / "stub-generators").symlink_to(ROOT / "build" / "stub-generators")
        run([sys.executable, "tools/generate.py"], self.tree)
        (self.tree / "build" / "stub-generators").unlink()
        pip: list[str | Path] = [sys.executable, "-m", "pip", "wheel", "--no-deps"]
        run(
            [*pip, "--no-build-isolation", "-w", folder, self.tree],
            folder,
            INFERTRACE_REQUIRE_NATIVE="1",
            PATH=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        )
        (wheel,) = folder.glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(self._site)

    def _add_lines(self) -> None:
        table = self.tree / "proto" / "fields.toml"
        text = table.read_text(encoding="utf-8")
        for message, lines in LINES.items():
            added = "".join(f"{line}\n" for line in lines)
            text, count = re.subn(rf"^\[{message}\]\n(.+\n)*", rf"\g<0>{added}", text, flags=re.M)
            assert count == 1
        table.write_text(text, encoding="utf-8")

    def run(self, *arguments: str | Path, **environ: str) -> str:
        """Python with the new package; -S runs no .pth file, so not an editable installation."""
        site = os.pathsep.join([str(self._site), sysconfig.get_path("purelib")])
        return run([sys.executable, "-S", *arguments], self.tree, PYTHONPATH=site, **environ)


@pytest.fixture(scope="module")
def new_package(tmp_path_factory: pytest.TempPathFactory) -> NewPackage:
    if shutil.which("go") is None:
        stop = pytest.fail if os.environ.get("CI") else pytest.skip
        stop("go is not on PATH: install Go 1.24 or newer to run the generator")
    return NewPackage(tmp_path_factory.mktemp("new-field"))


def test_the_tests_of_the_copy(new_package: NewPackage) -> None:
    run_tests = ("-m", "pytest", "-q", "-p", "no:cacheprovider", *JUDGES)
    assert " passed" in new_package.run(*run_tests)
    named = new_package.run(
        "-c",
        f"import infertrace.generated.span_pb2 as wire;print(wire.InferenceContext({FIELD}=1.5))",
    )
    assert named == f"{FIELD}: 1.5\n\n"


@pytest.mark.parametrize("backend", ["native", "pure"])
def test_the_field_comes_back_from_an_older_store(
    new_package: NewPackage, store_url: str, backend: str
) -> None:
    with Collector("127.0.0.1:0", "127.0.0.1:0", store_url) as collector:
        tracer = Tracer(collector.grpc_address, resource_interval_s=0)
        tracer.start_span("older").end()
        assert tracer.flush(60)
        assert tracer.shutdown(60)
    script = new_package.tree / "tests" / "schema" / "traced_with_new_field.py"
    said: dict[str, Any] = json.loads(
        new_package.run(script, FIELD, store_url, INFERTRACE_BACKEND=backend)
    )
    assert said["backend"] == backend
    assert "new-field" in said["file"]
    expected = {"by keyword": 0.25, "by setter": 0.5, "by column": 0.75, "wrong": None}
    if not store_url.startswith("memory"):
        expected["older"] = None
    assert said["values"] == expected
