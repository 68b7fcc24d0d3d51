"""Conditions on values under keys: tags, attributes, the attributes of a resource.

Stores keep these as the text of a JSON object, without spaces. A search for a piece of that text
works in any database and finds every matching span, and in contrived cases another one; so this
module checks the rows that were found again, by the values themselves.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

_NUMBER = re.compile(r"-?(0|[1-9][0-9]{0,18})(\.[0-9]{1,30})?([eE][+-]?[0-9]{1,3})?")


@dataclass(frozen=True)
class KeyedText:
    """A condition: the value under a key is this text, or is written so where it is no text.

    `true` and `false` are booleans as well as texts. A number is also found by other digits of the
    same number: `1`, `1.0` and `1e0`.
    """

    key: str
    text: str

    def pieces(self) -> list[str]:
        """Texts one of which is in every JSON object that has the value."""
        key = json.dumps(self.key, ensure_ascii=False)
        found = [f"{key}:{json.dumps(self.text, ensure_ascii=False)}"]
        for literal in self.literals():
            found += [f"{key}:{literal},", f"{key}:{literal}}}"]
        return found

    def is_in(self, values: Mapping[str, object]) -> bool:
        """Whether the condition holds of these values."""
        value = values.get(self.key)
        if isinstance(value, str):
            return value == self.text
        return value is not None and json.dumps(value) in self.literals()

    def literals(self) -> list[str]:
        """The text as JSON writes a boolean or a number."""
        if self.text in ("true", "false"):
            return [self.text]
        if not _NUMBER.fullmatch(self.text):
            return []
        real = float(self.text)
        is_whole = "." not in self.text and "e" not in self.text.lower()
        whole = int(self.text) if is_whole else int(real) if real.is_integer() else None
        found = [] if whole is None else [str(whole)]
        # Beyond 2**53 not every whole number is one of 64 bits with a point.
        if whole is None or whole == real:
            found.append(json.dumps(real))
        return found


def are_in(conditions: Sequence[KeyedText], text: str | None) -> bool:
    """Whether all conditions hold of the text of a JSON object."""
    if not conditions:
        return True
    values = {} if text is None else json.loads(text)
    return all(condition.is_in(values) for condition in conditions)
