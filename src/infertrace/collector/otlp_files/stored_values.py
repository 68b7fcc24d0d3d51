"""Values that a store holds as JSON, as attributes again: of OTLP in JSON, and of our messages.

`store/span_rows.py` writes what is read here.
"""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Mapping
from typing import Any

from infertrace.collector.store.span_rows import BYTES_KEY
from infertrace.generated.span_pb2 import AttributeValue
from infertrace.otlp.json_writer import JsonObject, bytes_json, double_json


def plain(value: Any) -> Any:
    """A stored value as Python has it: bytes are bytes, and a map has its own keys."""
    if isinstance(value, list):
        return [plain(member) for member in value]
    if isinstance(value, dict):
        if len(value) == 1:
            ((key, only),) = value.items()
            if key == BYTES_KEY and isinstance(only, str):
                return b64decode(only)
            if key.endswith(BYTES_KEY) and not key.removesuffix(BYTES_KEY).strip("$"):
                return {key[1:]: plain(only)}
        return {key: plain(member) for key, member in value.items()}
    return value


def any_value_json(value: Any) -> JsonObject:
    """A plain value as an AnyValue of OTLP in JSON."""
    if isinstance(value, str):
        return {"stringValue": value}
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int):
        return {"intValue": str(value)}
    if isinstance(value, float):
        return {"doubleValue": double_json(value)}
    if isinstance(value, bytes):
        return {"bytesValue": bytes_json(value)}
    if isinstance(value, list):
        return {"arrayValue": {"values": [any_value_json(member) for member in value]}}
    if isinstance(value, dict):
        return {"kvlistValue": {"values": key_values_json(value)}}
    return {}


def key_values_json(values: Mapping[str, Any]) -> list[JsonObject]:
    """Plain values by key, as KeyValues of OTLP in JSON."""
    return [{"key": key, "value": any_value_json(value)} for key, value in values.items()]


def attribute_value(value: Any) -> AttributeValue:
    """A plain value as a message of ours."""
    made = AttributeValue()
    if isinstance(value, str):
        made.string_value = value
    elif isinstance(value, bool):
        made.bool_value = value
    elif isinstance(value, int):
        made.int_value = value
    elif isinstance(value, float):
        made.double_value = value
    elif isinstance(value, bytes):
        made.bytes_value = value
    elif isinstance(value, list):
        made.array_value.SetInParent()
        made.array_value.values.extend(map(attribute_value, value))
    elif isinstance(value, dict):
        made.key_value_list.SetInParent()
        for key, member in value.items():
            made.key_value_list.values.add(key=key, value=attribute_value(member))
    return made
