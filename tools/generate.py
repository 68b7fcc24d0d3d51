"""Regenerates all generated files, or checks that they are fresh.

    python tools/generate.py            # writes the files that changed, and names them
    python tools/generate.py --check    # exits 1 and names the stale files

From proto/fields.toml: the messages in proto/span.proto, the setters, keywords and tables of both
backends, the tables of the decoder, the columns of the stores, docs/fields.md, and what the tests
of the schema keep of each field.
From proto/conventions.toml: the tables of the translators to OTLP, and the names in docs/otlp.md.
From proto/dialects.toml: where the fields of a span come from when it arrives as OTLP.
From proto/span.proto: the Python stubs in src/infertrace/generated/ and the Go stubs in proto/.
From tests/schema/span_v0.proto: its descriptor set, which the compatibility tests load.

Needs Go and one CPython from 3.8 to 3.12 (on PATH, or named with --python). The pinned
generators are installed once under build/stub-generators/.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from generator import (
    c_code,
    conventions,
    cython_code,
    dialect_table,
    documentation,
    field_table,
    protocol_buffers,
    python_code,
)
from generator.conventions import Conventions
from generator.dialect_table import Target
from generator.field_table import Table

ROOT = Path(__file__).resolve().parent.parent
GENERATORS = ROOT / "build" / "stub-generators"

# The last release before the generated code began to refuse older and newer runtimes: its
# protoc 25.1 writes stubs that load on every protobuf from 4.25 to 7. It has wheels for
# CPython 3.7 to 3.12 only.
GRPCIO_TOOLS_VERSION = "1.62.3"
HOST_PYTHONS = ("python3.12", "python3.11", "python3.10", "python3.9", "python3.8")
PROTOC_GEN_GO_VERSION = "v1.36.11"
PROTOC_GEN_GO_GRPC_VERSION = "v1.6.1"

TABLE = ROOT / "proto" / "fields.toml"
CONVENTIONS = ROOT / "proto" / "conventions.toml"
DIALECTS = ROOT / "proto" / "dialects.toml"
PROTO = "proto/span.proto"

# Written whole from the table of fields.
FROM_TABLE: Final[Mapping[str, Callable[[Table], str]]] = {
    "csrc/generated/decoder_fields.h": c_code.decoder_fields,
    "csrc/generated/resource_tags.h": c_code.resource_tags,
    "csrc/generated/recorder_fields.pxi": cython_code.recorder_fields,
    "docs/fields.md": documentation.fields_page,
    "src/infertrace/generated/field_names.py": python_code.field_names,
    "src/infertrace/generated/pure_fields.py": python_code.pure_fields,
    "src/infertrace/generated/span_setters.py": python_code.span_setters,
    "src/infertrace/generated/stored_fields.py": python_code.stored_columns,
}
# Written whole from the table of dialects.
FROM_DIALECTS: Final[Mapping[str, Callable[[Sequence[Target]], str]]] = {
    "csrc/generated/dialect_sources.h": dialect_table.dialect_header,
    "docs/dialects.md": dialect_table.dialects_page,
    "src/infertrace/generated/dialect_sources.py": dialect_table.dialect_sources,
}
# Where the table's part is put into what is there.
COMPLETED: Final[Mapping[str, Callable[[str, Table], str]]] = {
    "csrc/recorder/serving.pxi": cython_code.serving_with_fields,
    "csrc/recorder/span.pxi": cython_code.span_with_fields,
    PROTO: protocol_buffers.proto_with_messages,
    "tests/schema/field_numbers.json": protocol_buffers.extended_promises,
    "tests/schema/full_batch.json": protocol_buffers.extended_batch,
}
FROM_CONVENTIONS: Final[Mapping[str, Callable[[Conventions], str]]] = {
    "csrc/generated/otlp_attributes.h": conventions.c_tables,
    "src/infertrace/generated/otlp_attributes.py": conventions.python_tables,
}
PAGE_OF_NAMES = "docs/otlp.md"
GENERATED_PATTERNS = (
    *FROM_TABLE,
    *FROM_DIALECTS,
    *COMPLETED,
    *FROM_CONVENTIONS,
    PAGE_OF_NAMES,
    "src/infertrace/generated/*_pb2*",
    "proto/*.pb.go",
    "tests/schema/*.binpb",
)

# grpc_tools.protoc would do the same, after an import of setuptools' pkg_resources.
RUN_PROTOC = (
    "import os, sys; from grpc_tools import _protoc_compiler; "
    "sys.exit(_protoc_compiler.run_main([os.fsencode(a) for a in ['protoc', *sys.argv[1:]]]))"
)


def run(command: Sequence[str | Path], **environment: str) -> None:
    done = subprocess.run(
        command, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        line = " ".join(str(word) for word in command)
        sys.exit(f"{line}\nexited {done.returncode}:\n{done.stdout}{done.stderr}")


def can_host_grpcio_tools(python: str) -> bool:
    # Run it to be sure: a pyenv shim exists even for versions that are not enabled.
    test = "import ensurepip, sys; sys.exit(not (3, 8) <= sys.version_info[:2] <= (3, 12))"
    try:
        subprocess.run([python, "-c", test], capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return False
    return True


def install_protoc(python: str | None) -> Path:
    """Returns an interpreter that can import grpc_tools."""
    home = GENERATORS / f"grpcio-tools-{GRPCIO_TOOLS_VERSION}"
    interpreter = Path("bin", "python") if os.name == "posix" else Path("Scripts", "python.exe")
    if not home.exists():
        candidates = [python] if python else [sys.executable, *HOST_PYTHONS]
        host = next(filter(can_host_grpcio_tools, candidates), None)
        if host is None:
            sys.exit(
                f"grpcio-tools {GRPCIO_TOOLS_VERSION} needs CPython 3.8 to 3.12 with ensurepip; "
                f"tried {', '.join(candidates)}. Name one with --python."
            )
        GENERATORS.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=GENERATORS) as scratch:
            staged = Path(scratch, "venv")
            run([host, "-m", "venv", staged])
            pip = [str(staged / interpreter), "-m", "pip"]
            requirement = f"grpcio-tools=={GRPCIO_TOOLS_VERSION}"
            run([*pip, "install", "--no-deps", "--only-binary=:all:", requirement])
            try:
                staged.rename(home)
            except OSError:
                # Another run was faster; use its copy.
                if not home.exists():
                    raise
    return home / interpreter


def install_go_plugins() -> Path:
    """Returns the directory of protoc-gen-go and protoc-gen-go-grpc."""
    home = GENERATORS / f"go-{PROTOC_GEN_GO_VERSION}-{PROTOC_GEN_GO_GRPC_VERSION}"
    if shutil.which("go") is None:
        sys.exit("go is not on PATH: the Go stubs need Go 1.24 or newer.")
    for package in (
        f"google.golang.org/protobuf/cmd/protoc-gen-go@{PROTOC_GEN_GO_VERSION}",
        f"google.golang.org/grpc/cmd/protoc-gen-go-grpc@{PROTOC_GEN_GO_GRPC_VERSION}",
    ):
        name = package.rpartition("/")[2].partition("@")[0]
        if not any(home.glob(f"{name}*")):
            run(["go", "install", package], GOBIN=str(home))
    return home


def write_fields(destination: Path) -> None:
    """Writes the files generated from the table of fields below `destination`."""
    table = field_table.read(TABLE)
    texts = {name: made(table) for name, made in FROM_TABLE.items()}
    targets = dialect_table.read_targets(DIALECTS, table)
    texts |= {name: made(targets) for name, made in FROM_DIALECTS.items()}
    for name, completed in COMPLETED.items():
        texts[name] = completed((ROOT / name).read_text(encoding="utf-8"), table)
    names = conventions.read(CONVENTIONS, table)
    texts |= {name: made(names) for name, made in FROM_CONVENTIONS.items()}
    page = (ROOT / PAGE_OF_NAMES).read_text(encoding="utf-8")
    texts[PAGE_OF_NAMES] = conventions.page_with_names(page, names)
    for name, text in texts.items():
        (destination / name).parent.mkdir(parents=True, exist_ok=True)
        (destination / name).write_text(text, encoding="utf-8")
    format_python(destination / "src")


def format_python(folder: Path) -> None:
    settings = ROOT / "pyproject.toml"
    run([sys.executable, "-m", "ruff", "format", "--config", settings, folder])


def generate(destination: Path, python: str | None) -> None:
    """Writes all generated files below `destination`, laid out as in the repository."""
    protoc = [str(install_protoc(python)), "-c", RUN_PROTOC]
    plugins = install_go_plugins()
    (destination / "src").mkdir()
    write_fields(destination)
    run(
        [
            *protoc,
            f"-Iinfertrace/generated={destination / 'proto'}",
            f"--python_out={destination / 'src'}",
            f"--pyi_out={destination / 'src'}",
            f"--grpc_python_out={destination / 'src'}",
            f"--go_out={destination / 'proto'}",
            "--go_opt=module=infertrace.dev/proto",
            f"--go-grpc_out={destination / 'proto'}",
            "--go-grpc_opt=module=infertrace.dev/proto",
            "infertrace/generated/span.proto",
        ],
        PATH=f"{plugins}{os.pathsep}{os.environ['PATH']}",
    )
    run(
        [
            *protoc,
            f"-I{ROOT / 'tests' / 'schema'}",
            f"--descriptor_set_out={destination / 'tests' / 'schema' / 'span_v0.binpb'}",
            "span_v0.proto",
        ]
    )


def generated_files(root: Path) -> dict[str, bytes]:
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for pattern in GENERATED_PATTERNS
        for path in root.glob(pattern)
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if stale")
    parser.add_argument("--python", help="the CPython 3.8 to 3.12 that runs protoc")
    arguments = parser.parse_args()

    with tempfile.TemporaryDirectory() as scratch:
        try:
            generate(Path(scratch), arguments.python)
        except field_table.TableError as error:
            sys.exit(f"{TABLE.name}: {error}")
        fresh = generated_files(Path(scratch))
    present = generated_files(ROOT)
    stale = sorted(
        name for name in fresh.keys() | present.keys() if fresh.get(name) != present.get(name)
    )
    if arguments.check:
        if stale:
            sys.exit(f"stale, run `python tools/generate.py`: {', '.join(stale)}")
        return
    for name in stale:
        if name in fresh:
            (ROOT / name).parent.mkdir(parents=True, exist_ok=True)
            (ROOT / name).write_bytes(fresh[name])
        else:
            (ROOT / name).unlink()
        print(name)


if __name__ == "__main__":
    main()
