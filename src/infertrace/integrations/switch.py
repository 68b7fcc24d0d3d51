"""The contract of an integration: on, off, any number of times, and never in the way."""

from __future__ import annotations

import functools
import logging
import re
import threading
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, Final

from infertrace.integrations.catalog import INTEGRATIONS, Library
from infertrace.integrations.import_hook import forget, when_imported
from infertrace.integrations.patches import Patches
from infertrace.tracer import Tracer, default_tracer

if TYPE_CHECKING:
    from infertrace.span import Span

logger = logging.getLogger("infertrace")

_used: set[str] = set()
_activated: set[str] = set()
_listeners: list[Callable[[], None]] = []


def used() -> list[str]:
    """The integrations that have recorded something in this process."""
    return sorted(_used)


def activated() -> list[str]:
    """Those whose library is there and traced."""
    return sorted(_activated)


def when_activated(listener: Callable[[], None]) -> None:
    """Call this each time that a library is traced from then on."""
    _listeners.append(listener)


class Switch:
    """Turns one integration on and off.

    install: changes one library, which has just been imported, by `patches` of this object; called
        with the module's name. It may raise: then it is undone, and one warning says so.
    options: the names of its options, with their defaults.
    """

    def __init__(self, name: str, install: Callable[[Switch, str], None], **options: Any) -> None:
        self.name: Final = name
        self.patches = Patches()
        self.options = dict(options)
        self._install = install
        self._defaults = options
        self._lock = threading.RLock()
        self._tracer: Tracer | None = None
        self._callbacks: list[Callable[[], None]] = []
        self.is_on = False
        """For what outlives `off()`: a function that somebody else has wrapped."""
        self._has_warned = False
        self._failed: set[str] = set()
        self._guard = Guard(self)

    @property
    def tracer(self) -> Tracer:
        return self._tracer or default_tracer()

    def start_span(self, *arguments: Any, **keywords: Any) -> Span:
        """A span of this integration, as `Tracer.start_span` makes it."""
        _used.add(self.name)
        return (self._tracer or default_tracer()).start_span(*arguments, **keywords)

    def count_use(self) -> None:
        """For an integration that works without spans of its own."""
        _used.add(self.name)

    def on(self, tracer: Tracer | None = None, **options: Any) -> None:
        """Trace the library from now on, or once it is imported; again: with this tracer.

        Raises TypeError for an unknown option.
        """
        for name in options:
            if name not in self._defaults:
                allowed = ", ".join(self._defaults) or "none"
                raise TypeError(f"{self.name} has no option {name!r}; it has {allowed}")
        with self._lock:
            self._tracer = tracer
            self.options = {**self._defaults, **options}
            if self.is_on:
                return
            self.is_on = True
            libraries = INTEGRATIONS[self.name].libraries
            if not any(library.is_installed() for library in libraries):
                self._warn(libraries[0], "not installed")
            for library in libraries:
                callback = functools.partial(self._begin, library)
                self._callbacks.append(callback)
                when_imported(library.module, callback)

    def off(self) -> None:
        """Leave the library as it was."""
        with self._lock:
            self.is_on = False
            for callback in self._callbacks:
                forget(callback)
            self._callbacks.clear()
            self.patches.undo()
            _activated.discard(self.name)

    def guarded(self) -> Guard:
        """Log what fails in our own reading of a library's objects, once for each kind."""
        return self._guard

    def note_failure(self, error: Exception) -> None:
        # The type alone: a message may hold what the program works on.
        kind = type(error).__name__
        if kind not in self._failed:
            self._failed.add(kind)
            logger.warning("%s: cannot be read completely (%s)", self.name, kind)

    def _begin(self, library: Library) -> None:
        with self._lock:
            if not self.is_on:
                return
            installed = _version(library)
            if installed and _release(installed) < _release(library.lowest):
                self._warn(library, installed)
                return
            try:
                self._install(self, library.module)
            except Exception as error:
                self.patches.undo()
                self._warn(library, installed, error)
                return
            _activated.add(self.name)
            if installed and _release(installed) >= _release(library.below):
                self._warn(library, f"{installed}, which is traced all the same")
        for listener in _listeners:
            listener()

    def _warn(self, library: Library, found: str, error: Exception | None = None) -> None:
        if self._has_warned:
            return
        self._has_warned = True
        logger.warning(
            "%s: infertrace works with %s %s to %s; here it is %s%s",
            self.name,
            library.distribution or library.module,
            library.lowest,
            library.newest,
            found or "another",
            "" if error is None else f", and cannot be traced ({type(error).__name__}: {error})",
        )


class Guard:
    """Keeps the exceptions of a block of ours from the program; it may be entered at any depth."""

    def __init__(self, switch: Switch) -> None:
        self._switch = switch

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        if not isinstance(error, Exception):
            return False
        self._switch.note_failure(error)
        return True


def _version(library: Library) -> str:
    if not library.distribution:
        return ""
    try:
        return version(library.distribution)
    except PackageNotFoundError:
        return ""


def _release(text: str) -> tuple[int, ...]:
    """The numbers at the start of a version, without zeros at their end."""
    match = re.match(r"\d+(?:\.\d+)*", text)
    numbers = [int(number) for number in match[0].split(".")] if match else []
    while numbers and not numbers[-1]:
        numbers.pop()
    return tuple(numbers)
