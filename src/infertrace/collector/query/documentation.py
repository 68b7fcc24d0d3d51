"""How OpenAPI describes the routes, their answers and their errors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from infertrace.collector.query.flat_span import span_schema
from infertrace.collector.query.parameters import KeyedParameter, Parameter

_ERROR = {"type": "object", "required": ["error"], "properties": {"error": {"type": "string"}}}
OBJECT = {"type": "object"}
OBJECTS = {"type": "array", "items": OBJECT}
SPANS = {"type": "array", "items": span_schema()}


def documented(
    summary: str, parameters: Sequence[Parameter | KeyedParameter], schema: dict[str, Any]
) -> dict[str, Any]:
    """What the decorator of a route is given, so that OpenAPI describes it."""

    def described(description: str, schema: dict[str, Any]) -> dict[str, Any]:
        return {"description": description, "content": {"application/json": {"schema": schema}}}

    return {
        "summary": summary,
        "responses": {
            200: described("The answer", schema),
            "4XX": described("A wrong parameter, or nothing found", _ERROR),
            503: described("The store cannot answer, or too many ask", _ERROR),
            504: described("The query took too long", _ERROR),
        },
        "openapi_extra": {"parameters": [parameter.openapi() for parameter in parameters]},
    }
