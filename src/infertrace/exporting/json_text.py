"""JSON that a traced process writes, without the module `json`.

That import, with `re` below it, takes the GIL from a traced loop over and over in its first second.
"""

from __future__ import annotations

from collections.abc import Mapping

try:
    from _json import encode_basestring_ascii as _quoted
except ImportError:  # another Python than CPython
    from json.encoder import encode_basestring_ascii as _quoted


def json_text(value: object) -> str:
    """None, truth values, finite numbers, texts, and lists, tuples and mappings of them.

    Raises TypeError for anything else.
    """
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return int.__repr__(value)  # that of a subclass may be anything
    if isinstance(value, float):
        return float.__repr__(value)
    if isinstance(value, str):
        return _quoted(value)
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(json_text, value))}]"
    if isinstance(value, Mapping):
        members = (f"{_quoted(name)}: {json_text(of)}" for name, of in value.items())
        return f"{{{', '.join(members)}}}"
    raise TypeError(f"expected what JSON has, got {type(value).__name__}")
