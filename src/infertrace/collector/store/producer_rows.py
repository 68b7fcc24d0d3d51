"""A producer's account as a row of the table `producers`, alike in all databases."""

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
)
PRODUCER_NAMES: Final = ", ".join(PRODUCER_COLUMNS)


def producer_row(producer: Producer, **otherwise: Any) -> list[Any]:
    """The values of the columns; `otherwise` are those that a database writes in its own way."""
    values = {
        "dropped": json.dumps(producer.dropped),
        "received": json.dumps(producer.received),
        **otherwise,
    }
    return [values.get(name, getattr(producer, name)) for name in PRODUCER_COLUMNS]


def producer_values(row: Sequence[Any]) -> dict[str, Any]:
    """The fields of the account, from the values of the columns."""
    values = dict(zip(PRODUCER_COLUMNS, row, strict=True))
    values["dropped"] = json.loads(values["dropped"])
    values["received"] = tuple((first, last) for first, last in json.loads(values["received"]))
    return values
