"""How DuckDB says what filters ask for."""

from __future__ import annotations

import uuid
from collections.abc import Collection

from infertrace.collector.store.filter_sql import Condition, Dialect, json_texts
from infertrace.collector.store.keyed_filter import KeyedText

MAX_LISTED_IDS = 1_000  # in a statement; a join with more is slower, and has no limit


def _among(column: str, ids: Collection[uuid.UUID]) -> Condition:
    if len(ids) <= MAX_LISTED_IDS:
        listed = ", ".join("?" * len(ids)) or "NULL"
        return f"{column} IN ({listed})", list(ids)
    return f"{column} IN (SELECT unnest(?::UUID[]))", [list(ids)]


def _has_value(column: str, condition: KeyedText) -> Condition:
    pointer = "/" + condition.key.replace("~", "~0").replace("/", "~1")
    texts = json_texts(condition)
    sql = (
        f"((json_type({column}, ?) = 'VARCHAR' AND json_extract_string({column}, ?) = ?) "
        f"OR CAST(json_extract({column}, ?) AS VARCHAR) IN ({', '.join('?' * len(texts))}))"
    )
    return sql, [pointer, pointer, condition.text, pointer, *texts]


DIALECT = Dialect(
    placeholder="?",
    text=str,
    contains="contains({column}, ?)",
    log2="log2({value})",
    quotient="//",
    among=_among,
    has_value=_has_value,
)
