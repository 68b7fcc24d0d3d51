"""Builds and imports the floor, which is not part of the package."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

BENCH = Path(__file__).parent
BUILD = BENCH / "results" / "build"


def build() -> None:
    """Compile floor.pyx as the package compiles its backend; needs a C compiler."""
    from Cython.Build import cythonize
    from setuptools import Distribution, Extension

    extension = Extension(
        "floor",
        [str(BENCH / "floor.pyx")],
        include_dirs=[str(BENCH.parent / "csrc")],
        extra_compile_args=[] if sys.platform == "win32" else ["-O3", "-fvisibility=hidden"],
    )
    modules = cythonize([extension], build_dir=str(BUILD), quiet=True)
    command = Distribution({"ext_modules": modules}).get_command_obj("build_ext")
    command.build_lib = command.build_temp = str(BUILD)
    command.ensure_finalized()
    command.run()


def load() -> ModuleType:
    """The compiled module."""
    sys.path.insert(0, str(BUILD))
    try:
        import floor
    finally:
        sys.path.remove(str(BUILD))
    module: ModuleType = floor
    return module
