"""A stored span as the dialects look at it: its attributes and events stay as they came."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from infertrace.collector.otlp_files.stored_values import plain
from infertrace.collector.store.timestamps import parse_rfc3339
from infertrace.otlp.dialects import ForeignSpan


def foreign_span(column: Callable[[str], Any]) -> ForeignSpan:
    """What `column` gives, by the names of a store's columns."""
    attributes = json.loads(column("attributes") or "{}")
    events = json.loads(column("events") or "[]")
    return ForeignSpan(
        {key: plain(value) for key, value in attributes.items()},
        [(event["name"], parse_rfc3339(event["time"])) for event in events],
        column("scope_name") or "",
        column("start_time"),
        column("duration_nanos"),
    )
