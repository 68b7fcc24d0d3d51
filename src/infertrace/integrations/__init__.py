"""Traces libraries that know nothing of infertrace; each in a module of its own.

`instrument()` switches on what is installed, `instrument("openai", "starlette")` these. A library
that is not imported yet is traced once it is. Each module has the same two functions,
`instrument(tracer=None, **options)` and `uninstrument()`; docs/integrations/ has a page for each.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING

from infertrace.integrations.catalog import INTEGRATIONS, Integration

if TYPE_CHECKING:
    from infertrace.tracer import Tracer

__all__ = ["instrument", "uninstrument"]


def instrument(*names: str, tracer: Tracer | None = None) -> None:
    """Trace these libraries, or without names all that are installed.

    names: of docs/integrations/. tracer: the one that records; default the default tracer, which
        the environment configures.

    A library that is missing, or of a version that is not known to work, gets a warning in the log.
    Raises ValueError for a name that is none; then nothing has changed.
    """
    for integration in _chosen(names):
        import_module(_path(integration)).instrument(tracer)


def uninstrument(*names: str) -> None:
    """Undo `instrument()` for these, or for all."""
    _check(names)
    for name in names or INTEGRATIONS:
        module = sys.modules.get(_path(INTEGRATIONS[name]))
        if module is not None:
            module.uninstrument()


def _chosen(names: tuple[str, ...]) -> list[Integration]:
    _check(names)
    if names:
        return [INTEGRATIONS[name] for name in names]
    return [found for found in INTEGRATIONS.values() if found.by_default and found.is_installed()]


def _check(names: tuple[str, ...]) -> None:
    unknown = [name for name in names if name not in INTEGRATIONS]
    if unknown:
        allowed = ", ".join(INTEGRATIONS)
        raise ValueError(f"expected names of {allowed}, got {', '.join(map(repr, unknown))}")


def _path(integration: Integration) -> str:
    return f"infertrace.integrations.{integration.module}"
