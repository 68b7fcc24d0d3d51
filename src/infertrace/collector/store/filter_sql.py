"""A filter of spans as a condition in SQL, for every database."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

from infertrace.collector.store.keyed_filter import KeyedText
from infertrace.collector.store.measures import MEASURES
from infertrace.collector.store.selection import MODEL_REQUEST
from infertrace.collector.store.span_filter import SpanFilter

Condition = tuple[str, list[Any]]
"""A condition in SQL, and the values of its placeholders."""


@dataclass(frozen=True)
class Dialect:
    """How a database says it.

    `text` converts a text to its stored form, `contains` has {column}, `log2` {value}.
    `quotient` is the operator of whole numbers. `among` and `has_value` make conditions: that a
    column is one of some ids, and that a column of JSON texts has the value of a KeyedText.
    """

    placeholder: str
    text: Callable[[str], str]
    contains: str
    log2: str
    quotient: str
    among: Callable[[str, Collection[uuid.UUID]], Condition]
    has_value: Callable[[str, KeyedText], Condition]


def filter_condition(
    dialect: Dialect,
    where: SpanFilter,
    resource_ids: Collection[uuid.UUID] | None,
    *,
    is_exact: bool = False,
) -> Condition:
    """What a filter asks for, without its place in a page.

    `resource_ids` are the ids of the resources to choose from, None for all. Of conditions on keys,
    a row has to hold one of their pieces, and the value itself where this has to be exact.
    """
    place = dialect.placeholder
    parts, values = ["TRUE"], list[Any]()

    def add(sql: str, *given: Any) -> None:
        parts.append(sql)
        values.extend(given)

    for column, text in where.equal_texts.items():
        add(f"{column} = {place}", dialect.text(text))
    simple = {
        "trace_id =": where.trace_id,
        "start_time >=": where.since_ns,
        "start_time <": where.until_ns,
        "duration_nanos >=": where.min_duration_ns,
        "producer_id =": where.producer_id,
    }
    for sql, value in simple.items():
        if value is not None:
            add(f"{sql} {place}", value)
    for given in where.ranges:
        for sign, bound in given.bounds():
            add(f"{MEASURES[given.measure].sql} {sign} {place}", bound)
    if where.is_request:
        add(MODEL_REQUEST)
    for column, pieces in where.pieces():
        found = dialect.contains.format(column=column)
        add(f"({' OR '.join([found] * len(pieces))})", *map(dialect.text, pieces))
    for condition in where.anywhere:
        pieces = [dialect.text(piece) for piece in condition.pieces()]
        either = [dialect.contains.format(column=column) for column in ("tags", "attributes")]
        add(f"({' OR '.join(each for each in either for _ in pieces)})", *pieces, *pieces)
    if is_exact:
        for column, keyed in (("tags", where.tags), ("attributes", where.attributes)):
            for condition in keyed:
                sql, given_values = dialect.has_value(column, condition)
                add(sql, *given_values)
    if resource_ids is not None:
        sql, given_values = dialect.among("resource_id", resource_ids)
        add(sql, *given_values)
    return " AND ".join(parts), values


def filtered_columns(where: SpanFilter) -> set[str]:
    """The columns that the condition reads, but for its place in a page."""
    columns = {"start_time", "duration_nanos", "span_id", *where.equal_texts}
    for name, is_read in (
        ("trace_id", where.trace_id),
        ("producer_id", where.producer_id),
        ("resource_id", where.resource),
        ("tags", where.tags or where.anywhere),
        ("attributes", where.attributes or where.anywhere),
    ):
        if is_read:
            columns.add(name)
    for given in where.ranges:
        columns.update(MEASURES[given.measure].columns)
    if where.is_request:
        columns |= {"model_name", "parent_span_id", "flags", "kind", "output_tokens", "step_index"}
    return columns


def json_texts(condition: KeyedText) -> Sequence[str]:
    """How the value that is asked for may stand in a JSON object."""
    return [json.dumps(condition.text, ensure_ascii=False), *condition.literals()]
