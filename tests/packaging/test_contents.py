"""The sdist and the wheels hold what they should, and nothing else."""

from __future__ import annotations

import tarfile
import zipfile
from email import message_from_bytes
from pathlib import Path, PurePosixPath

import pytest

from infertrace.distribution import DISTRIBUTION

MAX_COMPILED_BYTES = 1_400_000

# The kinds of files in each folder of the sdist; "" is its top level, with whole file names.
SDIST = {
    "": {
        ".clang-format",
        *("ARCHITECTURE.md", "CHANGELOG.md", "CMakeLists.txt", "CONTRIBUTING.md", "LICENSE"),
        *("PKG-INFO", "README.md", "SECURITY.md", "noxfile.py", "pyproject.toml"),
    },
    "csrc": {".h", ".pxi", ".pyx"},
    "docs": {".md"},
    "examples": {".md", ".py"},
    "page": {"", ".css", ".html", ".json", ".mjs", ".svg", ".ts", ".tsx"},
    "proto": {".go", ".mod", ".proto", ".sum", ".toml"},
    "src": {".css", ".html", ".js", ".py", ".pyi", ".svg", ".txt", ".typed"},
    "tests": {
        *(".binpb", ".c", ".go", ".gz", ".json", ".md", ".mjs", ".mod", ".proto", ".py", ".sum"),
        ".txt",
    },
    "tools": {".json", ".py", ".txt"},
}
NEEDED = {
    "infertrace/py.typed",
    "infertrace/generated/span_pb2.py",
    "infertrace/generated/span_pb2.pyi",
    "infertrace/generated/span_pb2_grpc.py",
    "infertrace/recording/native.pyi",
    "infertrace/collector/page/app.js",
    "infertrace/collector/page/index.html",
}
DIST_INFO = {"METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE"}


@pytest.fixture(scope="session")
def sources(release: list[Path]) -> dict[str, bytes]:
    """The files of the sdist, by their paths below its one folder."""
    (sdist,) = [file for file in release if file.name.endswith(".tar.gz")]
    found = {}
    with tarfile.open(sdist) as archive:
        for member in archive.getmembers():
            top, _, path = member.name.partition("/")
            assert top == sdist.name.removesuffix(".tar.gz")
            assert member.isfile(), member.name
            opened = archive.extractfile(member)
            assert opened
            found[path] = opened.read()
    return found


@pytest.fixture(scope="session")
def wheels(release: list[Path]) -> dict[str, dict[str, bytes]]:
    """The files of each wheel, by the name of the wheel."""
    found = {}
    for file in release:
        if file.suffix == ".whl":
            with zipfile.ZipFile(file) as archive:
                found[file.name] = {
                    name: archive.read(name) for name in archive.namelist() if name[-1] != "/"
                }
    assert any(name.endswith("-py3-none-any.whl") for name in found)
    assert any(not name.endswith("-none-any.whl") for name in found)
    return found


EXTENSIONS = {
    "infertrace/collector/ingest/native_decoder",
    "infertrace/otlp/native_export_translator",
    "infertrace/collector/ingest/native_otlp_json",
    "infertrace/collector/ingest/otlp/native_export_decoder",
    "infertrace/collector/ingest/otlp/native_translator",
    "infertrace/recording/native",
    "infertrace/collector/store/postgres/native_copy_rows",
    "infertrace/collector/store/native_id_filters",
    "infertrace/collector/store/native_interval_sums",
}


def test_the_sdist_holds_nothing_stray(sources: dict[str, bytes]) -> None:
    kinds: dict[str, set[str]] = {}
    for path in map(PurePosixPath, sources):
        top, kind = (path.parts[0], path.suffix) if len(path.parts) > 1 else ("", path.name)
        kinds.setdefault(top, set()).add(kind)
    assert kinds.keys() == SDIST.keys()
    assert not {top: kinds[top] - SDIST[top] for top in kinds if kinds[top] - SDIST[top]}
    assert {f"src/{path}" for path in NEEDED} <= set(sources)
    assert "csrc/recorder/native.pyx" in sources
    assert not [path for path in sources if "__pycache__" in path]


def test_wheels_hold_the_package_of_the_sdist(
    sources: dict[str, bytes], wheels: dict[str, dict[str, bytes]]
) -> None:
    package = {
        path.removeprefix("src/"): data for path, data in sources.items() if path.startswith("src/")
    }
    for wheel, files in wheels.items():
        own = {path: data for path, data in files.items() if ".dist-info/" not in path}
        extensions = {path for path in own if path.endswith((".so", ".pyd"))}
        compiled = set() if wheel.endswith("-none-any.whl") else EXTENSIONS
        assert {path.partition(".")[0] for path in extensions} == compiled, wheel
        assert len(extensions) == len(compiled), wheel
        assert {path: own[path] for path in set(own) - extensions} == package, wheel
        assert package.keys() >= NEEDED


def test_wheels_are_described(
    sources: dict[str, bytes], wheels: dict[str, dict[str, bytes]]
) -> None:
    for wheel, files in wheels.items():
        description = {
            path.split(".dist-info/")[1]: data
            for path, data in files.items()
            if ".dist-info/" in path
        }
        assert set(description) == DIST_INFO, wheel
        assert description["licenses/LICENSE"] == sources["LICENSE"]
        metadata = message_from_bytes(description["METADATA"])
        assert metadata["Name"] == DISTRIBUTION
        assert metadata["Version"] == wheel.split("-")[1]
        assert metadata["License-Expression"] == "Apache-2.0"
        assert b"infertrace = infertrace.commands:main" in description["entry_points.txt"]


def test_compiled_wheels_are_small(release: list[Path]) -> None:
    sizes = {file.name: file.stat().st_size for file in release if file.suffix == ".whl"}
    assert {name: size for name, size in sizes.items() if size >= MAX_COMPILED_BYTES} == {}


def test_wheels_for_linux_are_what_they_say(wheels: dict[str, dict[str, bytes]]) -> None:
    machines = {"x86_64": 62, "aarch64": 183}  # e_machine of the ELF header, "System V gABI"
    for wheel, files in wheels.items():
        if "linux" not in wheel:
            continue
        extensions = {path for path in files if path.endswith(".so")}
        (machine,) = [name for name in machines if wheel.endswith(f"{name}.whl")]
        libc = "musl" if "musllinux" in wheel else "gnu"
        python = wheel.split("-")[2].removeprefix("cp")
        kind = f"cpython-{python}-{machine}-linux-{libc}.so"
        assert extensions == {f"{name}.{kind}" for name in EXTENSIONS}
        for extension in extensions:
            assert int.from_bytes(files[extension][18:20], "little") == machines[machine]
            if "manylinux" in wheel:
                assert b".symtab" not in files[extension], f"{wheel} is not stripped"
