"""Who sent spans of OTLP: a process, as its resource names it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import lru_cache

from infertrace.collector.store.resource import MAX_KNOWN_RESOURCES, Resource

# Together they name one process:
# https://opentelemetry.io/docs/specs/semconv/resource/service/
_IDENTITY = ("service.namespace", "service.name", "service.instance.id")


@dataclass(frozen=True)
class Sender:
    """A sender's account has this id of 16 bytes, and the name of its service."""

    id: bytes
    service_name: str


@lru_cache(maxsize=MAX_KNOWN_RESOURCES)
def sender_of(resource: Resource | None) -> Sender:
    """The process that a resource is about: by its `service.instance.id`, or by all that it has."""
    attributes = {} if resource is None else json.loads(resource.attributes)
    service_name = _text(attributes, "service.name")
    identity: object = attributes
    if _text(attributes, "service.instance.id"):
        identity = [_text(attributes, key) for key in _IDENTITY]
    digest = hashlib.blake2b(json.dumps(identity).encode(), digest_size=16, person=b"otlp-sender")
    return Sender(digest.digest(), service_name)


def _text(attributes: dict[str, object], key: str) -> str:
    value = attributes.get(key)
    return "" if value is None else str(value)
