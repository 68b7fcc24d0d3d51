"""Applies the tags, attributes and links given to `start_span`."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def fill(span: Any, tags: object, attributes: object, links: object) -> None:
    """Set each entry with the span's setters; never raises. An invalid container counts once."""
    for entries, setter in ((tags, span.set_tag), (attributes, span.set_attribute)):
        if entries is None:
            continue
        try:
            for key, value in entries.items():  # type: ignore[attr-defined]
                setter(key, value)
        except Exception:
            setter(None, None)
    if links is None:
        return
    try:
        for link in links:  # type: ignore[attr-defined]
            span.add_link(link)
    except Exception:
        span.add_link(None)
