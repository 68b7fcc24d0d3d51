"""What does `import infertrace` add to the start of a process?

The work: start an interpreter that imports one thing and ends. Budget and "added" compare
with one that imports nothing, of the same round. The package is run from a copy of its files,
as a wheel installs them, in its own virtual environment: neither the hook of an editable
installation nor a `.pth` file of another package is in it. Bytecode is compiled before.
"""

from __future__ import annotations

import compileall
import os
import shutil
import subprocess
import sysconfig
import tempfile
import venv
from pathlib import Path
from time import perf_counter

from bench.harness import Answer, differences, run_rounds, variables, verdict
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
# The budget's promise: `import infertrace` loads none of these.
NOT_IMPORTED = ("grpc", "google.protobuf", "pynvml")


def install(folder: Path) -> None:
    """The package with its extension and bytecode, and an interpreter beside it."""
    import infertrace
    from infertrace.recording import native

    target = folder / "packages" / "infertrace"
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(Path(infertrace.__file__).parent, target, ignore=ignored)
    shutil.copy2(native.__file__, target / "recording")
    compileall.compile_dir(target, quiet=2)
    venv.create(folder / "venv", symlinks=True)


def start(statement: str, backend: str, folder: Path) -> dict[str, float]:
    """Milliseconds of wall and CPU time that a process with this statement takes."""
    rivals = sysconfig.get_paths()["purelib"]
    environment = {
        **variables(),
        "PYTHONPATH": os.pathsep.join((str(folder / "packages"), rivals)),
        "INFERTRACE_BACKEND": backend,
    }
    before = perf_counter()
    process = subprocess.Popen([folder / "venv/bin/python", "-c", statement], env=environment)
    _, status, usage = os.wait4(process.pid, 0)
    wall = perf_counter() - before
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{statement}: exit status {process.returncode}")
    return {"wall": wall * 1e3, "processor": (usage.ru_utime + usage.ru_stime) * 1e3}


def measure(folder: Path, fast: bool) -> Answer:
    rounds = 5 if fast else 40
    with tempfile.TemporaryDirectory() as name:
        installed = Path(name)
        install(installed)

        def part(name: str) -> dict[str, float]:
            return start(*IMPORTS[name], installed)

        loaded = f"import infertrace, sys; assert not {{*{NOT_IMPORTED}}} & {{*sys.modules}}"
        start(loaded, "native", installed)
        for name in IMPORTS:
            part(name)  # writes the bytecode and warms the page cache
        results = run_rounds([*IMPORTS], rounds, part)
    added = {
        name: {
            measure: differences(values, results[BARE][measure]) for measure, values in row.items()
        }
        for name, row in results.items()
    }
    tables = table(
        ["import", "wall, ms", "added by the wall, ms", "added processor time, ms"],
        [
            [
                name,
                with_spread(results[name]["wall"], digits=1),
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
    data = {"rounds": rounds, "milliseconds": results, "not_imported": NOT_IMPORTED}
    return Answer(data, tables, verdicts)
