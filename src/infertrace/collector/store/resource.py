"""Resources: the attributes that the spans of a process share, each distinct set stored once."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from infertrace.collector.store.span_rows import attributes_json
from infertrace.generated.span_pb2 import AttributeValue

MAX_KNOWN_RESOURCES = 10_000  # whose ids a store remembers as stored
MAX_RESOURCE_BYTES = 32 * 1024  # of attributes, as JSON; an answer may repeat them for each span
DROPPED_COUNT_KEY = "otel.dropped_attributes_count"  # OpenTelemetry's name for it


@dataclass(frozen=True)
class Resource:
    """Attributes as the text of a JSON object, and an id that equal texts share."""

    id: uuid.UUID
    attributes: str


def stored_resource(attributes: Mapping[str, AttributeValue]) -> Resource | None:
    """The resource of these attributes, which are typed; None where there are none.

    Attributes beyond `MAX_RESOURCE_BYTES`, in the order of their keys, are left out, and counted
    in an attribute.
    """
    if not attributes:
        return None
    text = attributes_json(attributes)
    if len(text.encode()) > MAX_RESOURCE_BYTES:
        text = _shortened(attributes)
    digest = hashlib.blake2b(text.encode(), digest_size=16).digest()
    return Resource(uuid.UUID(bytes=digest), text)


def _shortened(attributes: Mapping[str, AttributeValue]) -> str:
    room = MAX_RESOURCE_BYTES - len(DROPPED_COUNT_KEY) - 16
    kept: dict[str, AttributeValue] = {}
    for key in sorted(attributes):
        room -= len(attributes_json({key: attributes[key]}).encode())
        if room < 0:
            break
        kept[key] = attributes[key]
    dropped = len(attributes) - len(kept)
    return attributes_json({**kept, DROPPED_COUNT_KEY: AttributeValue(int_value=dropped)})


class KnownResources:
    """The ids of resources that a store has written; it may hold others as well."""

    def __init__(self) -> None:
        self._ids: set[uuid.UUID] = set()

    def missing(self, resources: Iterable[Resource]) -> dict[uuid.UUID, Resource]:
        """The distinct resources, by their ids, without those that are known."""
        return {resource.id: resource for resource in resources if resource.id not in self._ids}

    def add(self, ids: Collection[uuid.UUID]) -> None:
        """Remember resources that are durable now."""
        if len(self._ids) + len(ids) > MAX_KNOWN_RESOURCES:
            self._ids.clear()
        self._ids.update(ids)
