"""The model of spans that do not say it, as those of vLLM: by their service."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

MAX_SERVICES: Final = 10_000  # whose models are remembered
# A span that has one of these is about a model.
MEASURED_COLUMNS: Final = (
    "input_tokens",
    "output_tokens",
    "time_to_first_token_ms",
    "queue_wait_time_ms",
)


class DefaultModels:
    """Fills in models: the one that was given for a service, or the only one it ever named.

    A service that named several models gets none. For any thread.
    """

    def __init__(self, given: Mapping[str, str] | None = None) -> None:
        self._given = dict(given or {})
        self._seen: OrderedDict[str, str | None] = OrderedDict()
        self._lock = threading.Lock()

    def fill(self, rows: pa.RecordBatch) -> pa.RecordBatch:
        """The rows with models filled in; learns from those that have one."""
        models, services = rows.column("model_name"), rows.column("service_name")
        if models.null_count < len(models):
            self._learn(services, models)
        if not models.null_count or not (self._given or self._seen):
            return rows
        lacking = self._lacking(rows)
        if lacking is None:
            return rows
        distinct = pc.unique(services.filter(lacking)).drop_null()
        found = [self._model_of(service) for service in distinct.to_pylist()]
        defaults = pa.array(found, pa.string()).take(pc.index_in(services, distinct))
        filled = pc.if_else(lacking, defaults, models)
        place = rows.schema.get_field_index("model_name")
        return rows.set_column(place, rows.schema.field(place), filled)

    def _lacking(self, rows: pa.RecordBatch) -> pa.Array | None:
        """Which rows are about a model and name none."""
        measured = None
        for name in MEASURED_COLUMNS:
            column = rows.column(name)
            if column.null_count < len(column):
                valid = column.is_valid()
                measured = valid if measured is None else pc.or_(measured, valid)
        if measured is None:
            return None
        lacking = pc.and_(rows.column("model_name").is_null(), measured)
        return lacking if lacking.true_count else None

    def _learn(self, services: pa.Array, models: pa.Array) -> None:
        named, of = pc.unique(models).drop_null(), pc.unique(services)
        if len(named) == len(of) == 1 and self._seen.get(of[0].as_py()) == named[0].as_py():
            return  # the usual case: one process, which has named its model before
        table = pa.table({"service": services, "model": models})
        pairs = table.group_by(["service", "model"], use_threads=False).aggregate([])
        with self._lock:
            for pair in pairs.to_pylist():
                service, model = pair["service"], pair["model"]
                if service is None or model is None:
                    continue
                known = self._seen.setdefault(service, model)
                if known != model:
                    self._seen[service] = None
                self._seen.move_to_end(service)
            while len(self._seen) > MAX_SERVICES:
                self._seen.popitem(last=False)

    def _model_of(self, service: str) -> str | None:
        return self._given.get(service) or self._seen.get(service)
