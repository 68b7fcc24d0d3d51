"""Python imports this first in a program that `infertrace run` has started.

It then loads the `sitecustomize` that would have been loaded without it, if there is one.
"""

import importlib.machinery
import importlib.util
import os
import sys


def _load_next() -> None:
    here = os.path.realpath(os.path.dirname(__file__))  # noqa: PTH120
    paths = [path for path in sys.path if os.path.realpath(path) != here]
    spec = importlib.machinery.PathFinder.find_spec("sitecustomize", paths)
    if spec is not None and spec.loader is not None:
        module = importlib.util.module_from_spec(spec)
        sys.modules["sitecustomize"] = module
        spec.loader.exec_module(module)


try:
    from infertrace import program
except Exception:  # another Python, without infertrace, or with another one
    pass
else:
    if hasattr(program, "begin"):
        program.begin()
_load_next()
