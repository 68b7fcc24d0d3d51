"""Replaces functions of a library, and puts them back."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

# Marks what we put there: the original function.
_ORIGINAL = "_infertrace_original"


class Patches:
    """What an integration has replaced."""

    def __init__(self) -> None:
        self._undo: list[Callable[[], None]] = []

    def wrap(self, owner: Any, name: str, make: Callable[[Any], Callable[..., Any]]) -> None:
        """Replace a function of a class or module by what `make` makes of it.

        Raises AttributeError where there is none. What is wrapped by us already stays.
        """
        original = vars(owner).get(name) or getattr(owner, name)
        if hasattr(original, _ORIGINAL):
            return
        wrapper = functools.wraps(original)(make(original))
        setattr(wrapper, _ORIGINAL, original)
        self.set(owner, name, wrapper)

    def has_wrapped(self, owner: Any, name: str) -> bool:
        """Whether what is there is ours."""
        return hasattr(vars(owner).get(name), _ORIGINAL)

    def wrap_if_there(
        self, owner: Any, name: str, make: Callable[[Any], Callable[..., Any]]
    ) -> None:
        """The same for what only some versions have."""
        if hasattr(owner, name):
            self.wrap(owner, name, make)

    def set(self, owner: Any, name: str, value: Any) -> None:
        """Set an attribute of a class, module or object until `undo()`."""
        is_own = name in vars(owner)
        before = vars(owner).get(name)
        setattr(owner, name, value)

        def put_back() -> None:
            # Somebody else may have wrapped ours in the meantime: then it stays, and passes on.
            if vars(owner).get(name) is not value:
                return
            if is_own:
                setattr(owner, name, before)
            else:
                delattr(owner, name)

        self._undo.append(put_back)

    def undo(self) -> None:
        while self._undo:
            self._undo.pop()()
