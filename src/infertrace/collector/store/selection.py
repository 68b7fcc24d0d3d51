"""The spans that a statistic is about: the one definition of what a request is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from infertrace.collector.store.timestamps import MAX_UNIX_NANOS

ALL_OPERATIONS = "*"
PARENT_IS_REMOTE = 0x200  # of a span's flags

# The first span that a server makes of a trace, whose end its client waits for; and, where a span
# says its kind, as those of OTLP and of integrations do, a call of a model that says what it
# generated, at any depth.
STEP = "step_index IS NOT NULL"
REQUEST = (
    f"(parent_span_id IS NULL OR (flags & {PARENT_IS_REMOTE}) <> 0 "
    "OR (kind IS NOT NULL AND output_tokens IS NOT NULL))"
)
MODEL_REQUEST = f"model_name IS NOT NULL AND {REQUEST} AND step_index IS NULL"
"""A request of a model, which is what statistics count unless they are asked otherwise."""


@dataclass(frozen=True)
class Selection:
    """The spans that started from `since_ns` on and before `until_ns`, in nanoseconds since 1970.

    Without an `operation`, only requests: spans that have no parent, or one in another process,
    and spans with a kind, a model and output tokens; no steps of an engine. With one, the spans of
    that operation; with ALL_OPERATIONS, all of them.
    """

    since_ns: int
    until_ns: int = MAX_UNIX_NANOS
    model: str | None = None
    operation: str | None = None

    def condition(
        self, placeholder: str, text: Callable[[str], str] = str
    ) -> tuple[str, list[Any]]:
        """The condition in SQL, and its values; `text` converts a text to its stored form."""
        parts = [f"start_time >= {placeholder} AND start_time < {placeholder}"]
        values: list[Any] = [self.since_ns, self.until_ns]
        if self.model is None:
            parts.append("model_name IS NOT NULL")
        else:
            parts.append(f"model_name = {placeholder}")
            values.append(text(self.model))
        if self.operation is None:
            # A step is the engine's, not a request's.
            parts.append(f"{REQUEST} AND step_index IS NULL")
        elif self.operation != ALL_OPERATIONS:
            parts.append(f"operation_name = {placeholder}")
            values.append(text(self.operation))
        return " AND ".join(parts), values
