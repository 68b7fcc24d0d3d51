"""The checked-in Python stubs load on every protobuf runtime that pyproject.toml allows."""

import os
import re
import shutil
import subprocess
import venv
from pathlib import Path

import pytest
from google.protobuf import json_format
from packaging.requirements import Requirement

from infertrace.generated import span_pb2

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
FULL_BATCH = HERE / "full_batch.json"

REQUIREMENTS = map(
    Requirement,
    re.findall(r'"(protobuf>=[^"]+)"', (ROOT / "pyproject.toml").read_text(encoding="utf-8")),
)
(RANGE,) = (
    {bound.operator: bound.version for bound in one.specifier}
    for one in REQUIREMENTS
    if one.marker is None or one.marker.evaluate()
)


@pytest.fixture(scope="module")
def stubs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The generated package alone: infertrace itself needs more than protobuf."""
    directory = tmp_path_factory.mktemp("stubs")
    package = directory / "infertrace"
    shutil.copytree(
        Path(span_pb2.__file__).parent,
        package / "generated",
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    (package / "__init__.py").touch()
    return directory


@pytest.fixture(
    scope="module",
    params=[
        pytest.param((f"=={RANGE['>=']}", f"{RANGE['>=']}."), id="lowest"),
        pytest.param((f"<{RANGE['<']}", f"{int(RANGE['<']) - 1}."), id="highest"),
    ],
)
def runtime(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, str]:
    """An interpreter with one protobuf runtime and nothing else, and how its version begins."""
    specifier, version = request.param
    directory = tmp_path_factory.mktemp("runtime")
    venv.create(directory, with_pip=True, symlinks=os.name == "posix")
    python = directory / ("bin/python" if os.name == "posix" else "Scripts/python.exe")
    subprocess.run([python, "-m", "pip", "install", "--quiet", f"protobuf{specifier}"], check=True)
    return python, version


@pytest.mark.parametrize("implementation", ["upb", "python"])
def test_stubs_round_trip(runtime: tuple[Path, str], stubs: Path, implementation: str) -> None:
    python, version_prefix = runtime
    done = subprocess.run(
        [python, HERE / "round_trip.py", FULL_BATCH],
        env={
            **os.environ,
            "PYTHONPATH": str(stubs),
            "PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION": implementation,
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    version, used, data = done.stdout.split()
    assert f"{version}.".startswith(version_prefix)
    assert used == implementation
    here = json_format.Parse(FULL_BATCH.read_text("utf-8"), span_pb2.SendSpanBatchRequest())
    assert span_pb2.SendSpanBatchRequest.FromString(bytes.fromhex(data)) == here
