"""Runs the native tests on an extension built with AddressSanitizer and UndefinedBehaviorSanitizer.

    python tools/run_sanitized.py [arguments of pytest, in place of the native suite]

A report ends the run; exits with pytest's status. Needs GCC on Linux, and an environment with the
`test` extra, from which it borrows everything but infertrace. Builds in build/sanitized.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WORK = ROOT / "build" / "sanitized"
VENV = WORK / "venv"
PYTHON = VENV / "bin" / "python"
SITE = sysconfig.get_path("platlib", "posix_prefix", {"base": VENV, "platbase": VENV})

SANITIZERS = "address,undefined"
# Without the tests of counts: valgrind and sys.getallocatedblocks see nothing in this process.
SUITE = (
    "tests/recording",
    "tests/buffering",
    "tests/exporting/test_link.py",
    "tests/native/test_shared_memory.py",
    "tests/native/test_span_bounds.py",
    "tests/native/test_delivery_loop.py",
    "tests/resources/test_gpu_page.py",
    "tests/otlp/test_translator.py",
    "tests/collector/test_decoder.py",
    "tests/collector/test_otlp_json.py",
    "tests/collector/otlp/test_export_decoder.py",
    "tests/collector/otlp/test_translator.py",
    "tests/collector/store/test_id_filters.py",
    "tests/collector/store/test_interval_quantiles.py",
)
ON_NATIVE_ONLY = ("-k", "not pure")

# Reads one byte behind a block, as a wrong bound in our code would.
PLANTED_OVERFLOW = """
import ctypes, infertrace.recording.native
c = ctypes.CDLL(None)
c.malloc.restype = ctypes.c_void_p
ctypes.string_at(c.malloc(ctypes.c_size_t(16)), 17)
"""


def build() -> None:
    shutil.rmtree(WORK, ignore_errors=True)
    venv.create(VENV, symlinks=True)
    # A path that a .pth file adds runs no .pth file of its own, so that the hook of an
    # editable installation does not bring its infertrace along.
    borrowed = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    Path(SITE, "borrowed.pth").write_text("\n".join(borrowed) + "\n")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    # A debug build also keeps the assertions in the headers of CPython.
    settings = ["-Ccmake.build-type=Debug", f"-Ccmake.define.INFERTRACE_SANITIZE={SANITIZERS}"]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    subprocess.run(
        [*pip, *settings, "--target", SITE, ROOT],
        env={**os.environ, "PATH": path, "INFERTRACE_REQUIRE_NATIVE": "1"},
        check=True,
    )


def library(name: str) -> str:
    command = [os.environ.get("CC", "cc"), f"-print-file-name={name}"]
    path = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    if not Path(path).is_absolute():
        sys.exit(f"{' '.join(command)}: no such library; install the sanitizers of GCC")
    return path


def run(*arguments: str, stderr: int | None = None) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        # Before all other libraries, with the C++ runtime that its interceptors look for.
        "LD_PRELOAD": f"{library('libasan.so')} {library('libstdc++.so')}",
        # The interpreter itself leaves objects behind when it exits;
        # tests/native/test_reference_counts.py is what finds leaks.
        "ASAN_OPTIONS": "detect_leaks=0",
        "UBSAN_OPTIONS": "print_stacktrace=1",
        "PYTHONMALLOC": "malloc",  # each object is its own block, with a red zone
    }
    return subprocess.run(
        [PYTHON, *arguments], cwd=ROOT, env=environment, stderr=stderr, text=True, check=False
    )


def main(arguments: Sequence[str]) -> int:
    build()
    planted = run("-c", PLANTED_OVERFLOW, stderr=subprocess.PIPE).stderr
    if "heap-buffer-overflow" not in planted:
        sys.exit(f"a planted overflow is not reported, so ours would not be either:\n{planted}")
    # If pytest captured the file descriptors, a report would be lost with the process.
    pytest = ["-m", "pytest", "-p", "no:cacheprovider", "--capture=sys"]
    return run(*pytest, *(arguments or [*SUITE, *ON_NATIVE_ONLY])).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
