"""A finished span of OpenTelemetry's SDK as one of ours, with its ids and all that it has.

Its model, tokens and other fields come from its attributes as the collector finds them in OTLP.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanContext, StatusCode

from infertrace.generated.span_pb2 import AttributeValue, Span, SpanKind
from infertrace.otlp.dialects import ForeignSpan, find_fields

_STATUSES: Final = {StatusCode.OK: "OK", StatusCode.ERROR: "ERROR"}
_INT64: Final = 2**63
_HAS_IS_REMOTE, _IS_REMOTE = 0x100, 0x200  # of OTLP's flags


def encode(span: ReadableSpan) -> bytes:
    """The body of our message."""
    context, status = span.context, span.status
    start_ns, end_ns = span.start_time or 0, span.end_time or 0
    encoded = Span(
        operation_name=_text(span.name),
        start_time_unix_nano=start_ns,
        duration_nanos=max(end_ns - start_ns, 0),
        status=_STATUSES.get(status.status_code, ""),
        status_message=_text(status.description or ""),
        status_code=status.status_code.value,
        kind=SpanKind.Name(span.kind.value + 1),
        dropped_attributes_count=span.dropped_attributes,
        dropped_events_count=span.dropped_events,
        dropped_links_count=span.dropped_links,
    )
    if context is not None:
        encoded.trace_id = context.trace_id.to_bytes(16, "big")
        encoded.span_id = context.span_id.to_bytes(8, "big")
        encoded.trace_state = context.trace_state.to_header()
    if span.parent is not None:
        encoded.parent_span_id = span.parent.span_id.to_bytes(8, "big")
    encoded.flags = _flags(span.parent)
    service = span.resource.attributes.get("service.name")
    if isinstance(service, str):
        encoded.service_name = _text(service)
    scope = span.instrumentation_scope
    if scope is not None:
        encoded.scope_name, encoded.scope_version = _text(scope.name), _text(scope.version or "")
        _add(encoded.scope_attributes, scope.attributes)
    _add(encoded.attributes, span.attributes)
    for event in span.events:
        one = encoded.events.add(name=_text(event.name), time_unix_nano=event.timestamp)
        _add(one.attributes, event.attributes)
    for link in span.links:
        _add_link(encoded, link.context, link.attributes)
    _find_fields(encoded, span)
    return encoded.SerializeToString()


def _add_link(encoded: Span, context: SpanContext, attributes: Mapping[str, Any] | None) -> None:
    link = encoded.links.add(
        trace_id=context.trace_id.to_bytes(16, "big"),
        span_id=context.span_id.to_bytes(8, "big"),
        trace_state=context.trace_state.to_header(),
        flags=_flags(context),
    )
    _add(link.attributes, attributes)


def _flags(context: SpanContext | None) -> int:
    is_remote = context is not None and context.is_remote
    return _HAS_IS_REMOTE | (_IS_REMOTE if is_remote else 0)


def _find_fields(encoded: Span, span: ReadableSpan) -> None:
    scope = span.instrumentation_scope
    found = find_fields(
        ForeignSpan(
            {
                key: list(value) if isinstance(value, tuple) else value
                for key, value in (span.attributes or {}).items()
            },
            [(event.name, event.timestamp) for event in span.events],
            scope.name if scope is not None else "",
            encoded.start_time_unix_nano,
            encoded.duration_nanos,
        )
    )
    encoded.invalid_field_count += found.unusable_count
    for name, value in found.values.items():
        message: Any = encoded.inference
        if name not in message.DESCRIPTOR.fields_by_name:
            message = encoded.resources
        if isinstance(value, bytes):
            getattr(message, name).ParseFromString(value)
        else:
            setattr(message, name, _text(value) if isinstance(value, str) else value)


def _add(target: Any, attributes: Mapping[str, Any] | None) -> None:
    for key, value in (attributes or {}).items():
        _set(target[_text(key)], value)


def _set(target: AttributeValue, value: Any) -> None:
    if isinstance(value, bool):
        target.bool_value = value
    elif isinstance(value, int) and -_INT64 <= value < _INT64:
        target.int_value = value
    elif isinstance(value, float):
        target.double_value = value
    elif isinstance(value, bytes):
        target.bytes_value = value
    elif isinstance(value, Mapping):
        target.key_value_list.SetInParent()
        for key, member in value.items():
            entry = target.key_value_list.values.add(key=_text(str(key)))
            _set(entry.value, member)
    elif isinstance(value, Sequence) and not isinstance(value, str):
        target.array_value.SetInParent()
        for member in value:
            _set(target.array_value.values.add(), member)
    elif value is not None:
        target.string_value = _text(str(value))


def _text(text: str) -> str:
    """Lone surrogates become U+FFFD, as in our own spans."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
