"""What does `import infertrace` add to the start of a process?

The work: start an interpreter that imports one thing and ends. Budget and "added" compare
with one that imports nothing, of the same round. The package is run from a copy of its files,
as a wheel installs them: an editable installation adds a hook of its own. `-S` leaves out the
`.pth` files of whatever else is installed. Bytecode is compiled before.
"""

from __future__ import annotations

import compileall
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from time import perf_counter

from bench.harness import Answer, differences, environment, run_rounds, verdict
from bench.markdown import table, with_spread

BARE, NATIVE = "nothing", "infertrace, native"
# name: statement, value of INFERTRACE_BACKEND
IMPORTS = {
    BARE: ("pass", ""),
    NATIVE: ("import infertrace", "native"),
    "infertrace, pure": ("import infertrace", "pure"),
    "infertrace, native, and a tracer": ("import infertrace; infertrace.Tracer()", "native"),
    "opentelemetry.sdk.trace": ("import opentelemetry.sdk.trace", ""),
    "opentelemetry.sdk.trace and its OTLP exporter": (
        "import opentelemetry.sdk.trace, opentelemetry.exporter.otlp.proto.grpc.trace_exporter",
        "",
    ),
    "ddtrace.trace": ("import ddtrace.trace", ""),
}
BUDGET_MS = 15
# The budget's promise: none of these is loaded by `import infertrace`.
NOT_IMPORTED = ("grpc", "google.protobuf", "pynvml")


def copy_of_package(folder: Path) -> None:
    """The package in `folder`, with its extension and bytecode, as a wheel lays it out."""
    import infertrace
    from infertrace.recording import native

    target = folder / "infertrace"
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(Path(infertrace.__file__).parent, target, ignore=ignored)
    shutil.copy2(native.__file__, target / "recording")
    compileall.compile_dir(target, quiet=2)


def start(statement: str, backend: str, packages: Path) -> dict[str, float]:
    """Milliseconds that a process with this statement takes, by the wall and of the processor."""
    site = sysconfig.get_paths()["purelib"]
    variables = {
        **environment(),
        "PYTHONPATH": os.pathsep.join((str(packages), site)),
        "INFERTRACE_BACKEND": backend,
    }
    before = perf_counter()
    process = subprocess.Popen([sys.executable, "-S", "-c", statement], env=variables)
    _, status, usage = os.wait4(process.pid, 0)
    wall = perf_counter() - before
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{statement}: exit status {process.returncode}")
    return {"wall": wall * 1e3, "processor": (usage.ru_utime + usage.ru_stime) * 1e3}


def measure(folder: Path, fast: bool) -> Answer:
    rounds = 5 if fast else 40
    with tempfile.TemporaryDirectory() as packages:
        copy_of_package(Path(packages))

        def part(name: str) -> dict[str, float]:
            return start(*IMPORTS[name], Path(packages))

        loaded = f"import infertrace, sys; assert not {{*{NOT_IMPORTED}}} & {{*sys.modules}}"
        start(loaded, "native", Path(packages))
        for name in IMPORTS:
            part(name)  # leaves bytecode and warm files
        found = run_rounds([*IMPORTS], rounds, part)
    added = {
        name: {
            measure: differences(values, found[BARE][measure]) for measure, values in row.items()
        }
        for name, row in found.items()
    }
    tables = table(
        ["import", "wall, ms", "added by the wall, ms", "added processor time, ms"],
        [
            [
                name,
                with_spread(found[name]["wall"], digits=1),
                *(with_spread(added[name][kind], digits=1) for kind in ("wall", "processor")),
            ]
            for name in IMPORTS
        ],
    )
    verdicts = [
        verdict(
            f"import infertrace, native, {kind}",
            added[NATIVE][kind],
            "ms",
            at_most=BUDGET_MS,
            of="over a bare interpreter",
        )
        for kind in ("wall", "processor")
    ]
    data = {"rounds": rounds, "milliseconds": found, "not_imported": NOT_IMPORTED}
    return Answer(data, tables, verdicts)
