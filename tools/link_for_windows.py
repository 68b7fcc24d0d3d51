"""Compiles and links the extensions for Windows, which cannot run here but must still link.

    python tools/link_for_windows.py

The compiler is Zig's, with MinGW's headers and libraries. CPython's headers are those of this
interpreter, except pyconfig.h, which this script writes; an import library of the exports that the
headers declare replaces the DLL. So the script finds names that are missing or declared for other
platforms only, but not what MSVC, which the release uses, would reject. It runs nothing.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
TARGET: Final = "x86_64-windows-gnu"
ZIG: Final = (sys.executable, "-m", "ziglang")
# In CMakeLists.txt: add_extension(NAME SOURCE PACKAGE)
EXTENSION: Final = re.compile(r"^add_extension\((\w+) ([\w/.]+) ([\w.]+)\)", re.MULTILINE)
EXPORT: Final = re.compile(r"PyAPI_(FUNC|DATA)\([^)]*\)[^;(]*?(\w+)\s*[;(\[]")
FLAGS: Final = (
    *("-O2", "-fvisibility=hidden", "-fno-strict-aliasing"),
    "-Werror=implicit-function-declaration",
)
# CPython's own pyconfig.h on 64-bit Windows, as far as its headers need it.
PYCONFIG: Final = """
#define MS_WIN32
#define MS_WIN64
#define MS_WINDOWS
#define HAVE_DECLSPEC_DLL
#define Py_ENABLE_SHARED
#define PLATFORM "win32"
#define SIZEOF_SHORT 2
#define SIZEOF_INT 4
#define SIZEOF_LONG 4
#define SIZEOF_LONG_LONG 8
#define SIZEOF_VOID_P 8
#define SIZEOF_SIZE_T 8
#define SIZEOF_FLOAT 4
#define SIZEOF_DOUBLE 8
#define SIZEOF_WCHAR_T 2
#define SIZEOF_TIME_T 8
#define SIZEOF_OFF_T 4
#define SIZEOF_FPOS_T 8
#define SIZEOF_PID_T 4
#define ALIGNOF_SIZE_T 8
#define HAVE_SSIZE_T 1
#define HAVE_STDINT_H 1
#define HAVE_INTTYPES_H 1
#define HAVE_STDDEF_H 1
#define HAVE_SYS_TYPES_H 1
#define HAVE_SYS_STAT_H 1
#define HAVE_WCHAR_H 1
#define HAVE_IO_H 1
#define WITH_THREAD 1
#define NT_THREADS
#include <io.h>
"""


class Failed(Exception):
    """An extension does not compile, or does not link."""


def run(*command: str | Path) -> str:
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    if done.returncode:
        raise Failed(done.stdout + done.stderr)
    return done.stdout


def headers(work: Path) -> Path:
    """CPython's headers, as they are on Windows."""
    include = work / "include"
    shutil.copytree(sysconfig.get_path("include"), include)
    (include / "pyconfig.h").write_text(PYCONFIG)
    return include


def compiled(name: str, source: str, package: str, include: Path, work: Path) -> Path:
    translated, made = work / f"{name}.c", work / f"{name}.obj"
    module = f"infertrace.{package}.{name}"
    csrc = ROOT / "csrc"
    run(
        *(sys.executable, "-m", "cython", "-3", "--module-name", module, "-I", csrc),
        *(ROOT / source, "-o", translated),
    )
    run(
        # In the order of CMake: CPython 3.10 has a context.h, too.
        *(*ZIG, "cc", "-target", TARGET, *FLAGS, "-I", csrc, "-I", include),
        *("-c", translated, "-o", made),
    )
    return made


def import_library(include: Path, work: Path) -> Path:
    """The import library of CPython's DLL, with the exports that the headers declare only."""
    exports = set()
    for header in include.rglob("*.h"):
        for kind, name in EXPORT.findall(header.read_text(encoding="utf-8")):
            exports.add(f"{name} DATA" if kind == "DATA" else name)
    version = sysconfig.get_config_var("py_version_nodot")
    definition, library = work / "python.def", work / f"libpython{version}.a"
    names = "\n".join(sorted(exports))
    definition.write_text(f"LIBRARY python{version}.dll\nEXPORTS\n{names}\n")
    run(*ZIG, "dlltool", "-m", "i386:x86-64", "-d", definition, "-l", library)
    return library


def main() -> int:
    extensions = EXTENSION.findall((ROOT / "CMakeLists.txt").read_text(encoding="utf-8"))
    if not extensions:
        print("link_for_windows: CMakeLists.txt names no extension", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory(prefix="infertrace-windows-") as folder:
        work = Path(folder)
        try:
            include = headers(work)
            objects = [compiled(*extension, include, work) for extension in extensions]
            library = import_library(include, work)
            for made in objects:
                linked = made.with_suffix(".pyd")
                run(*ZIG, "cc", "-target", TARGET, "-shared", made, library, "-o", linked)
                print(f"{linked.name}: {linked.stat().st_size / 1000:.0f} kB")
        except Failed as error:
            print(f"link_for_windows: {error}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
