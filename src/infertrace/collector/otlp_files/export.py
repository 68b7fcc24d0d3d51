"""Exports stored spans as a file of OTLP in JSON, one ExportTraceServiceRequest a line.

Source of the format: the file exporter of the OpenTelemetry Collector,
https://github.com/open-telemetry/opentelemetry-collector-contrib/tree/main/exporter/fileexporter.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple

import pyarrow as pa

from infertrace.collector.ingest.otlp_senders import sender_of
from infertrace.collector.otlp_files import received_spans, recorded_spans
from infertrace.collector.store.resource import MAX_KNOWN_RESOURCES, Resource
from infertrace.collector.store.store import SpanSource
from infertrace.otlp import conventions, translator_choice
from infertrace.otlp.compressed_file import PARTIAL_SUFFIX, open_to_write
from infertrace.otlp.json_writer import JsonObject, read_request
from infertrace.version import VERSION

MAX_LINE_SPANS: Final = 1_000
# Of what the spans of a line hold in JSON columns; receivers take requests of 4 MiB by default.
MAX_LINE_BYTES: Final = 1024 * 1024
_SDK_NAME: Final = b"infertrace"
_LONG_COLUMNS: Final = ("tags", "attributes", "events", "links", "scope_attributes")

_Row = Mapping[str, Any]
_Origin = tuple["uuid.UUID | None", "uuid.UUID | None"]


class Exported(NamedTuple):
    """What an export has written."""

    span_count: int
    left_out_count: int
    """Stored spans that OTLP cannot hold."""
    reason: str
    """Why the first of those was left out."""


def export_otlp(store: SpanSource, to: Path, since_ns: int, until_ns: int) -> Exported:
    """Write the spans that started at `since_ns` or later and before `until_ns`.

    Times are nanoseconds since 1970. The file is private to its owner, compressed as its name
    ends, and takes its name, and the place of an earlier one, when it is whole. Raises OSError,
    StoreError.
    """
    partial = to.with_name(to.name + PARTIAL_SUFFIX)
    try:
        with open_to_write(partial) as file:
            exported = _write(store, file, since_ns, until_ns)
        partial.replace(to)
    finally:
        partial.unlink(missing_ok=True)
    return exported


def _write(store: SpanSource, file: BinaryIO, since_ns: int, until_ns: int) -> Exported:
    resources = _Resources(store)
    count = left_out = 0
    reason = ""
    for rows in store.rows(since_ns, until_ns):
        for line in _lines(rows):
            request, lost, why = _request(line, resources)
            count += len(line) - lost
            left_out += lost
            reason = reason or why
            if request["resourceSpans"]:
                text = json.dumps(
                    request, ensure_ascii=False, allow_nan=False, separators=(",", ":")
                )
                file.write(text.encode() + b"\n")
    return Exported(count, left_out, reason)


def _lines(rows: pa.RecordBatch) -> Iterator[list[_Row]]:
    """The rows, as many as a line may have at a time."""
    for start in range(0, len(rows), MAX_LINE_SPANS):
        line: list[_Row] = []
        size = 0
        for row in rows.slice(start, MAX_LINE_SPANS).to_pylist():
            line.append(row)
            size += sum(len(row[name] or "") for name in _LONG_COLUMNS)
            if size >= MAX_LINE_BYTES:
                yield line
                line, size = [], 0
        if line:
            yield line


def _request(line: list[_Row], resources: _Resources) -> tuple[JsonObject, int, str]:
    """A request, how many of the spans are not in it, and why the first is not."""
    groups: dict[_Origin, list[_Row]] = {}
    for row in line:
        groups.setdefault((row["producer_id"], row["resource_id"]), []).append(row)
    resources.learn({resource for _, resource in groups if resource is not None})
    found: list[JsonObject] = []
    lost = 0
    first_reason = ""
    for (producer, resource_id), rows in groups.items():
        resource = resources.text(resource_id)
        if _came_by_otlp(producer, resource_id, resource):
            found.append(received_spans.resource_spans(rows, resource))
            continue
        envelope = recorded_spans.envelope(
            [recorded_spans.span_message(row) for row in rows], producer, resource
        )
        made = translator_choice.select().translate(
            envelope, conventions.bits(conventions.DEFAULT), _SDK_NAME, VERSION.encode()
        )
        found += read_request(made.request).get("resourceSpans", [])
        lost += len(rows) - made.span_count
        first_reason = first_reason or made.reason
    return {"resourceSpans": found}, lost, first_reason


def _came_by_otlp(
    producer: uuid.UUID | None, resource_id: uuid.UUID | None, resource: str | None
) -> bool:
    """Whether the id of the producer is the one that a sender of OTLP with this resource gets."""
    if producer is None:
        return False
    known = None if resource_id is None else Resource(resource_id, resource or "{}")
    return sender_of(known).id == producer.bytes


class _Resources:
    """The texts of resources, each read once, unless there are very many."""

    def __init__(self, store: SpanSource) -> None:
        self._store = store
        self._known: dict[uuid.UUID, str] = {}

    def learn(self, ids: set[uuid.UUID]) -> None:
        """Read those that are not known."""
        if len(self._known) > MAX_KNOWN_RESOURCES:
            self._known.clear()
        missing = ids - self._known.keys()
        if missing:
            self._known.update(self._store.resources(missing))

    def text(self, resource_id: uuid.UUID | None) -> str | None:
        return None if resource_id is None else self._known.get(resource_id)
