"""What a connection leads to, as the sender process is told it too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from infertrace.named_tuple import NamedTuple

TYPE_CHECKING = False
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
    "conventions",
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
    conventions: Sequence[str] = ("otel",)
    """What fields are called in OTLP."""
    path: str = "/"
    """Of an HTTP request."""

    @classmethod
    def of(cls, settings: Settings) -> Target:
        alike = {name: getattr(settings, name) for name in _FROM_SETTINGS}
        scheme, _, rest = settings.endpoint.rpartition("://")
        address, slash, path = rest.partition("/")
        return cls(
            address, tls=scheme == "https", wire=settings.protocol, path=slash + path, **alike
        )
