"""What sets a selection of spans apart, and which values a field has."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from infertrace.collector.query.chosen_spans import bounds, chosen_spans, counted
from infertrace.collector.query.compared_sides import MAX_COMPARED, sides_of
from infertrace.collector.query.comparison import (
    Counts,
    compared_dimension,
    compared_measure,
    scalar_text,
)
from infertrace.collector.query.documentation import OBJECT, documented
from infertrace.collector.query.parameters import (
    CHOSEN,
    DEFAULT_LIMIT,
    FIELD,
    KEYED_PARAMETERS,
    LIMIT,
    OTHER_PERIOD,
    PREFIX,
    SELECTED,
    VALUE,
    ParameterError,
)
from infertrace.collector.store.grouping import (
    SAMPLE_PARTS,
    BucketKey,
    ColumnKey,
    GroupedQuery,
)
from infertrace.collector.store.measures import DIMENSIONS, MEASURES, MeasureRange
from infertrace.collector.store.span_filter import SpanFilter
from infertrace.collector.store.store import SpanReader
from infertrace.collector.store.value_counts import COMPARED_KEYS, KEYED_COLUMNS

MAX_KEYED_SPANS = 50_000  # whose tags and attributes are read
MAX_VALUES = 10  # of one dimension in an answer
MAX_GROUPS = 10_000  # of one dimension
_TEXT_COLUMNS = (*DIMENSIONS, "producer_id")
_KEYED_KEYS = tuple(map(ColumnKey, KEYED_COLUMNS))
_JSON_COLUMNS = {"tag": "tags", "attribute": "attributes"}


def comparison_routes(store: SpanReader) -> APIRouter:
    """`/compare` and `/facets`."""
    router = APIRouter()
    own = (VALUE, *SELECTED, *OTHER_PERIOD)

    @router.get(
        "/compare",
        **documented("A selection against the rest", (*CHOSEN, *own, *KEYED_PARAMETERS), OBJECT),
    )
    def compare(request: Request) -> Response:
        """The selection, by default what failed, is part of what the filters let pass; it is
        compared with the rest of that, or with what started from `baseline_since` to
        `baseline_until`, by default before `since`. `dimensions` are texts, tags, attributes and
        resources: of their values, the counts on both sides and the `difference` of their shares;
        `measures` are numbers: a histogram for each side, as `/heatmap` has them, and their largest
        `difference` of cumulated shares. Only what chance does not explain is told, at 99 %, the
        largest difference first. More than 500,000 spans are compared by a sample, unless sums in
        memory tell the rest, and tags and attributes by one of 50,000: `sampled_share` and
        `keyed_sampled_share` say which part of the spans that is."""
        where, values = chosen_spans(request.query_params, own)
        selected = _selection(values)
        where, baseline = _with_baseline(where, values)
        sides = sides_of(store, where, selected, baseline)
        found, parts = sides.by(COMPARED_KEYS, MAX_COMPARED, MAX_GROUPS)
        keyed, keyed_parts = sides.by(_KEYED_KEYS, MAX_KEYED_SPANS, MAX_KEYED_SPANS)
        texts = {name: Counts.of(found[ColumnKey(name)], scalar_text) for name in _TEXT_COLUMNS}
        texts |= _keyed("tag", keyed[ColumnKey("tags")], json.loads)
        texts |= _keyed("attribute", keyed[ColumnKey("attributes")], json.loads)
        origins = found[ColumnKey("resource_id")]
        resources = store.resources({value for value, *_ in origins} - {None})
        texts |= _keyed("resource", origins, lambda key: json.loads(resources[key]))
        dimensions = [
            told
            for name, counted_values in texts.items()
            if (told := compared_dimension(name, counted_values, MAX_VALUES)) is not None
        ]
        measures = [
            told
            for name, measure in MEASURES.items()
            if (
                told := compared_measure(
                    measure, Counts.of(found[BucketKey(name)], lambda bucket: bucket)
                )
            )
        ]
        answer: dict[str, Any] = {
            "counted": counted(where),
            "value": values.get("value", "duration_ms"),
            "selected_total": sides.totals.selected,
            "baseline_total": sides.totals.baseline,
            "selected_errors": sides.totals.selected_errors,
            "baseline_errors": sides.totals.baseline_errors,
            "sampled": parts < SAMPLE_PARTS,
            "sampled_share": parts / SAMPLE_PARTS,
            "keyed_sampled_share": keyed_parts / SAMPLE_PARTS,
            "truncated": any(len(rows) >= 2 * MAX_GROUPS for rows in found.values()),
            "dimensions": sorted(dimensions, key=lambda each: -each["difference"]),
            "measures": sorted(measures, key=lambda each: -each["difference"]),
        }
        return JSONResponse(answer)

    @router.get(
        "/facets",
        **documented(
            "The values of a field", (*CHOSEN, FIELD, PREFIX, LIMIT, *KEYED_PARAMETERS), OBJECT
        ),
    )
    def facets(request: Request) -> Response:
        """With how many spans each, the most frequent first. `total` spans were counted, of which
        `without_value` have no such field. `truncated` says that there are more values than are
        told; of tags, attributes and resources, the 10,000 most frequent sets are looked into."""
        where, values = chosen_spans(request.query_params, (FIELD, PREFIX, LIMIT))
        field = values.get("field", "model_name")
        kind, _, key = field.partition(".")
        column = {**_JSON_COLUMNS, "resource": "resource_id"}.get(kind, field) if key else field
        (rows,) = store.grouped(GroupedQuery(where, [[ColumnKey(column)]], limit=MAX_GROUPS))
        ((total,),) = store.grouped(GroupedQuery(where, [[]]))[0]
        sided = [(value, True, count) for value, count in rows]
        if key:
            read: Callable[[Any], Any] = json.loads
            if kind == "resource":
                resources = store.resources({value for value, _ in rows} - {None})
                read = lambda key: json.loads(resources[key])  # noqa: E731
            found = _keyed(kind, sided, read).get(field, Counts({}, {}))
        else:
            found = Counts.of(sided, scalar_text)
        prefix, limit = values.get("prefix", ""), values.get("limit", DEFAULT_LIMIT)
        matching = [
            (value, count) for value, count in found.selected.items() if value.startswith(prefix)
        ]
        matching.sort(key=lambda each: (-each[1], each[0]))
        is_cut = len(rows) >= MAX_GROUPS or len(matching) > limit
        return JSONResponse(
            {
                "field": field,
                "counted": counted(where),
                "total": total,
                "without_value": None
                if len(rows) >= MAX_GROUPS
                else total - sum(found.selected.values()),
                "truncated": is_cut,
                "values": [{"value": value, "count": count} for value, count in matching[:limit]],
            }
        )

    return router


def _selection(values: dict[str, Any]) -> SpanFilter:
    is_given = any(name.startswith("select_") for name in values)
    least, most = values.get("select_min"), values.get("select_max")
    ranges: tuple[MeasureRange, ...] = ()
    if least is not None or most is not None:
        ranges = (MeasureRange(values.get("value", "duration_ms"), least, most),)
    return SpanFilter(
        status=values.get("select_status") if is_given else "ERROR",
        since_ns=values.get("select_since"),
        until_ns=values.get("select_until"),
        ranges=ranges,
    )


def _with_baseline(where: SpanFilter, values: dict[str, Any]) -> tuple[SpanFilter, SpanFilter]:
    """The filter of both sides, and that of the baseline alone."""
    since_ns, until_ns = values.get("baseline_since"), values.get("baseline_until")
    if since_ns is None and until_ns is None:
        return where, SpanFilter()
    first_ns, last_ns = bounds(where)
    since_ns = 0 if since_ns is None else since_ns
    until_ns = first_ns if until_ns is None else until_ns
    if since_ns >= until_ns:
        raise ParameterError("baseline_since: expected a time before baseline_until")
    both = replace(where, since_ns=min(first_ns, since_ns), until_ns=max(last_ns, until_ns))
    return both, SpanFilter(since_ns=since_ns, until_ns=until_ns)


def _keyed(kind: str, rows: list[Any], read: Callable[[Any], dict[str, Any]]) -> dict[str, Counts]:
    """The counts of the values under each key, by `kind.key`."""
    found: dict[str, Counts] = {}
    for value, is_selected, count in rows:
        values = {} if value is None else read(value)
        for key, each in values.items():
            if (text := scalar_text(each)) is not None:
                counts = found.setdefault(f"{kind}.{key}", Counts({}, {}))
                counts.add(text, is_selected, count)
    total = Counts({}, {})
    for _, is_selected, count in rows:
        total.add("", is_selected, count)
    for counts in found.values():
        counts.selected_total = total.selected.get("", 0)
        counts.baseline_total = total.baseline.get("", 0)
    return found
