"""What a connection leads to, as the sender process is told it too."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from infertrace.configuration import Settings

_FROM_SETTINGS = (
    "headers",
    "certificate_file",
    "client_certificate_file",
    "client_key_file",
    "token",
    "token_file",
    "compression",
)


class Target(NamedTuple):
    """What a connection leads to. Holds credentials: not to be printed."""

    address: str
    """`HOST:PORT`"""
    tls: bool
    headers: Mapping[str, str]
    certificate_file: str | None = None
    """PEM; whom to trust, in place of the usual authorities"""
    client_certificate_file: str | None = None
    client_key_file: str | None = None
    token: str | None = None
    token_file: str | None = None
    compression: str = "none"
    wire: str = "infertrace"
    """The protocol that is spoken there, as `choice.choose_wire` knows it."""

    @classmethod
    def of(cls, settings: Settings) -> Target:
        scheme, _, address = settings.endpoint.rpartition("://")
        alike = {name: getattr(settings, name) for name in _FROM_SETTINGS}
        return cls(address.rstrip("/"), tls=scheme == "https", **alike)
