"""The flat columns of a span, which stores, queries and answers share.

Those of the wire come from proto/fields.toml; a request says the rest, for all of its spans.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, cast

from infertrace.generated.stored_fields import STORED_FIELDS

Kind = Literal[
    "uuid",
    "span_id",
    "text",
    "time",
    "duration",
    "int32",
    "int64",
    "float32",
    "float64",
    "json",
    "span_kind",
    "intervals",
]
"""How a column is held by a store, and as which Python value a store returns it.

`uuid` is a `uuid.UUID` (16 bytes), `span_id` an unsigned 64-bit `int`, `time` nanoseconds since
1970-01-01 UTC, `duration` nanoseconds, `json` a JSON text, `span_kind` OTLP's number,
`intervals` the bytes of a message TokenIntervals; the others are what they say. Every database and
Parquet hold bytes, these are a tenth of what a list of numbers takes, and whoever merges histograms
adds whole columns of them outside of SQL.
Ids are numbers rather than bytes because a scan for one is then 5 to 10 times as fast.
"""


@dataclass(frozen=True)
class Column:
    """One column of the table of spans.

    `name` is the name in the store, `answer_name` the key in a JSON answer, and `wire` the path
    of the field in the `Span` message; empty where the request says it.
    An absent value is NULL in the store and left out of the answer; it is never written as 0.
    """

    name: str
    kind: Kind
    wire: str
    description: str = ""
    answer_name: str = ""
    required: bool = False

    @property
    def sql_name(self) -> str:
        """The name in SQL, where it may be a reserved word."""
        return f'"{self.name}"'

    @property
    def key(self) -> str:
        """The key under which an answer shows this column."""
        return self.answer_name or self.name


COLUMNS = (
    *(
        Column(name, cast(Kind, kind), wire, shown, answer_name, required)
        for name, kind, wire, shown, answer_name, required in STORED_FIELDS
    ),
    Column("producer_id", "uuid", "", "which process sent it, as /ledger names it"),
    Column("resource_id", "uuid", "", "equal where the attributes of the resource are equal"),
)
