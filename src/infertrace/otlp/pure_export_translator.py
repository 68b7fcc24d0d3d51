"""The translator in pure Python: an envelope of spans into OTLP's bytes.

csrc/otlp/request_write.h is the compiled twin, which writes the same bytes.
Sources: proto/span.proto; opentelemetry/proto/collector/trace/v1/trace_service.proto.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Final
from uuid import UUID

from infertrace.otlp import rejection_reasons as reasons
from infertrace.otlp.pure_any_value import entry, key_value, octets, text_key_value
from infertrace.otlp.pure_reader import fields
from infertrace.otlp.pure_span import Rejected, Span, choose_rows, single_text
from infertrace.otlp.translated import Translated
from infertrace.wire.protobuf import WireError, delimited

__all__ = ["NAME", "translate"]

NAME: Final = "pure"

_SPAN, _PRODUCER, _RESOURCE = 0x0A, 0x12, 0x3A
_SERVICE_NAME: Final = b"service.name"
_INSTANCE_ID: Final = b"service.instance.id"
_PRODUCER_ID_BYTES: Final = 16


def translate(envelope: bytes, conventions: int, sdk_name: bytes, sdk_version: bytes) -> Translated:
    """As `Translator.translate` says."""
    resource = _Resource(envelope)
    rows = choose_rows(conventions)
    groups: list[tuple[bytes, list[tuple[bytes, list[bytes]]]]] = []
    span_count = first_reason = 0
    with contextlib.suppress(WireError):
        for tag, value in fields(envelope):
            if tag != _SPAN:
                continue
            reason = reasons.MALFORMED
            try:
                span = Span(octets(value))
                scope = span.scope(sdk_name, sdk_version)
                service = span.texts["service"]
                if not groups or groups[-1][0] != service:
                    groups.append((service, []))
                if not groups[-1][1] or groups[-1][1][-1][0] != scope:
                    groups[-1][1].append((scope, []))
                groups[-1][1][-1][1].append(span.write(rows))
                span_count += 1
                continue
            except Rejected as error:
                reason = error.reason
            except WireError:
                pass
            first_reason = first_reason or reason
    if not first_reason and not _is_whole(envelope):
        first_reason = reasons.MALFORMED
    request = b"".join(
        delimited(b"\x0a", delimited(b"\x0a", resource.write(service)) + b"".join(scopes))
        for service, written in groups
        for scopes in [[_scope_spans(scope, spans) for scope, spans in written]]
    )
    return Translated(request if span_count else b"", span_count, reasons.REASONS[first_reason])


def _scope_spans(scope: bytes, spans: list[bytes]) -> bytes:
    body = delimited(b"\x0a", scope) + b"".join(delimited(b"\x12", span) for span in spans)
    return delimited(b"\x12", body)


def _is_whole(envelope: bytes) -> bool:
    try:
        for _ in fields(envelope):
            pass
    except WireError:
        return False
    return True


class _Resource:
    """What follows the spans, up to where the bytes are damaged."""

    def __init__(self, envelope: bytes) -> None:
        self._body = self._producer = self._service = b""
        with contextlib.suppress(WireError):
            for tag, value in fields(envelope):
                if tag == _PRODUCER:
                    self._producer = octets(value)
                elif tag == _RESOURCE:
                    self._body = octets(value)
        with contextlib.suppress(WireError):
            for key, value in self._entries():
                if key == _SERVICE_NAME:
                    self._service = single_text(value) or self._service

    def _entries(self) -> Iterator[tuple[bytes, bytes]]:
        for tag, value in fields(self._body):
            if tag == 0x0A:
                yield entry(octets(value))

    def write(self, service: bytes) -> bytes:
        """The body of OTLP's Resource, with another service where a span names one."""
        try:
            found = self._attributes(service)
        except WireError:  # the spans can be read all the same
            found = [text_key_value(_SERVICE_NAME, service)] if service else []
            has_instance = False
        else:
            has_instance = any(key == _INSTANCE_ID for key, _ in self._entries())
        if not has_instance and len(self._producer) == _PRODUCER_ID_BYTES:
            instance = str(UUID(bytes=self._producer)).encode()
            found.append(text_key_value(_INSTANCE_ID, instance))
        return b"".join(delimited(b"\x0a", it) for it in found)

    def _attributes(self, service: bytes) -> list[bytes]:
        is_other = service != b"" and service != self._service
        found = [text_key_value(_SERVICE_NAME, service)] if is_other else []
        for key, value in self._entries():
            if not (is_other and key == _SERVICE_NAME):
                found.append(key_value(key, value))
        return found
