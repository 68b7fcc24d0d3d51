"""How PostgreSQL says what filters ask for."""

from __future__ import annotations

import uuid
from collections.abc import Collection
from math import log

from infertrace.collector.store.filter_sql import Condition, Dialect, json_texts
from infertrace.collector.store.keyed_filter import KeyedText
from infertrace.collector.store.postgres.copy_rows import escape


def _among(column: str, ids: Collection[uuid.UUID]) -> Condition:
    return f"{column} = ANY(%s)", [list(ids)]


def _has_value(column: str, condition: KeyedText) -> Condition:
    # PostgreSQL reads no JSON with an escaped NUL; such an object is not looked into.
    texts = [escape(text) for text in json_texts(condition)]
    sql = (
        f"CASE WHEN strpos({column}, '\\u0000') > 0 THEN TRUE "
        f"ELSE (CAST({column} AS json) -> %s)::text = ANY(%s) END"
    )
    return sql, [escape(condition.key), texts]


DIALECT = Dialect(
    placeholder="%s",
    text=escape,
    contains="strpos({column}, %s) > 0",
    log2=f"ln({{value}}) * {1 / log(2)!r}",
    quotient="/",
    among=_among,
    has_value=_has_value,
)
