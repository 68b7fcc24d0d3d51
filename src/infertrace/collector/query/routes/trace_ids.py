"""The id of a trace in a path."""

from __future__ import annotations

import uuid
from typing import Annotated

from fastapi import Path

from infertrace.collector.query.parameters import TRACE_ID_SCHEMA, ParameterError, parse_trace_id

# FastAPI only documents it; the route validates it, so that all errors have one form.
TraceId = Annotated[str, Path(json_schema_extra=TRACE_ID_SCHEMA)]


def wanted_trace(trace_id: str) -> uuid.UUID:
    """The id; raises ParameterError."""
    try:
        return parse_trace_id(trace_id)
    except ValueError as error:
        raise ParameterError(f"trace_id: expected {error}, got {trace_id[:100]!r}") from None
