"""Calls a function once a module has been imported, now or later."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import Any, Final

_lock: Final = threading.RLock()
_waiting: dict[str, list[Callable[[], None]]] = {}


def when_imported(name: str, callback: Callable[[], None]) -> None:
    """Call it at once if that module is there, else right after the module has run."""
    with _lock:
        module = sys.modules.get(name)
        is_importing = getattr(getattr(module, "__spec__", None), "_initializing", False)
        if module is None or is_importing:
            _waiting.setdefault(name, []).append(callback)
            if _FINDER not in sys.meta_path:
                sys.meta_path.insert(0, _FINDER)
            return
    callback()


def forget(callback: Callable[[], None]) -> None:
    """Do not call it any more."""
    with _lock:
        for name in list(_waiting):
            _waiting[name] = [other for other in _waiting[name] if other != callback]
            if not _waiting[name]:
                del _waiting[name]


def _is_imported(name: str) -> None:
    with _lock:
        callbacks = _waiting.pop(name, [])
    for callback in callbacks:
        callback()


class _Finder(MetaPathFinder):
    """Finds what somebody waits for as the others find it, and adds a call after its loading."""

    def __init__(self) -> None:
        self._finding = threading.local()

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name not in _waiting or getattr(self._finding, "name", None) == name:
            return None
        self._finding.name = name
        try:
            spec = find_spec(name)
        finally:
            self._finding.name = None
        if spec is not None and spec.loader is not None and hasattr(spec.loader, "exec_module"):
            spec.loader = _Calling(spec.loader)
        return spec


class _Calling(Loader):
    """Another loader, with a call after it."""

    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        # As if this had never been here: others look at the loader, for resources and sources.
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        self._loader.exec_module(module)
        _is_imported(module.__name__)


_FINDER: Final = _Finder()
