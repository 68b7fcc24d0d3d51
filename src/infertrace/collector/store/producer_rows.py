"""A producer's account as a row of the table `producers`, the same in all databases."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

from infertrace.collector.store.ledger import Producer

PRODUCER_COLUMNS: Final = (
    "producer_id",
    "first_seen",
    "last_seen",
    "service_name",
    "produced",
    "stored",
    "rejected",
    "duplicates",
    "dropped",
    "received",
    "finished",
    "numbered",
    "rejected_reasons",
)
PRODUCER_NAMES: Final = ", ".join(PRODUCER_COLUMNS)

LATER_PRODUCER_COLUMNS: Final = {"numbered": True, "rejected_reasons": "{}"}
"""Columns that older tables and older journals lack, with what their accounts have."""

# The fields of an account whose columns have another name.
_FIELDS = {"first_seen": "first_seen_ns", "last_seen": "last_seen_ns"}


def producer_row(producer: Producer, **otherwise: Any) -> list[Any]:
    """The values of the columns; `otherwise` are those that a database writes differently."""
    values = {
        "dropped": json.dumps(producer.dropped),
        "received": json.dumps(producer.received),
        "rejected_reasons": json.dumps(producer.rejected_reasons),
        **otherwise,
    }
    return [
        values[name] if name in values else getattr(producer, _FIELDS.get(name, name))
        for name in PRODUCER_COLUMNS
    ]


def producer_values(row: Sequence[Any]) -> dict[str, Any]:
    """The fields of the account, from the values of the columns."""
    fields = [_FIELDS.get(name, name) for name in PRODUCER_COLUMNS]
    values = dict(zip(fields, row, strict=True))
    values["dropped"] = json.loads(values["dropped"])
    values["rejected_reasons"] = json.loads(values["rejected_reasons"])
    values["received"] = tuple((first, last) for first, last in json.loads(values["received"]))
    return values
