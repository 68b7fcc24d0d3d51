"""Which attribute or event of a span each of its fields came from.

Nothing of this is stored: the attributes stay as they came, so reading them again tells.
"""

from __future__ import annotations

from math import isclose

from infertrace.collector.otlp_files.foreign_span import foreign_span
from infertrace.collector.store.span_filter import COLUMN_INDEX, Row
from infertrace.generated.dialect_sources import DIALECT_SOURCES
from infertrace.otlp.dialects import find_fields

_FIELDS = tuple(name for name, _ in DIALECT_SOURCES)
_FLOAT32_TOLERANCE = 1e-6
RECORDED = "set by the sender"
DEFAULT_MODEL = "the service's default model, or the only one it named before"


def explain(row: Row) -> dict[str, str]:
    """Where each field that the span has came from, by the field's name."""
    found = find_fields(foreign_span(lambda name: row[COLUMN_INDEX[name]]))
    explained = {}
    for name in _FIELDS:
        value = row[COLUMN_INDEX[name]]
        if value is None:
            continue
        if name in found.values and _is_same(found.values[name], value):
            explained[name] = found.sources[name]
        elif name == "model_name" and row[COLUMN_INDEX["scope_name"]] is not None:
            explained[name] = DEFAULT_MODEL
        else:
            explained[name] = RECORDED
    return explained


def _is_same(one: str | int | float | bytes, other: str | int | float | bytes) -> bool:
    if isinstance(one, (str, bytes)) or isinstance(other, (str, bytes)):
        return one == other
    return isclose(one, other, rel_tol=_FLOAT32_TOLERANCE)
