"""Where a receiver of OTLP is: URLs and addresses as OpenTelemetry's exporters take them.

Source: OpenTelemetry specification, "OpenTelemetry Protocol Exporter",
https://opentelemetry.io/docs/specs/otel/protocol/exporter/.
"""

from __future__ import annotations

from infertrace.named_tuple import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final


TRACES_PATH: Final = "/v1/traces"

_EXPECTED: Final = "expected HOST:PORT, http://HOST[:PORT][/PATH] or https://HOST[:PORT][/PATH]"
_TLS: Final = {"http": False, "https": True, "grpc": False, "grpcs": True}
_PORTS: Final = {False: 80, True: 443}


class Endpoint(NamedTuple):
    """A receiver."""

    tls: bool
    host: str
    """An IPv6 address without its brackets."""
    port: int
    path: str
    """Empty, or with a slash at its start."""

    @property
    def address(self) -> str:
        """`HOST:PORT`"""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://{self.address}{self.path}"


def parse(text: str, *, tls_without_scheme: bool | None = False) -> Endpoint:
    """What the text says; raises ValueError.

    tls_without_scheme: of an address without a scheme, which has to have a port; None: there has
        to be a scheme.
    """
    from urllib.parse import urlsplit  # slow to load

    has_scheme = "://" in text
    if not has_scheme and tls_without_scheme is None:
        raise ValueError(_EXPECTED.replace("HOST:PORT, ", "", 1))
    try:
        parts = urlsplit(text if has_scheme else f"//{text}")
        port, host = parts.port, parts.hostname
    except ValueError:
        raise ValueError(_EXPECTED) from None
    if "@" in parts.netloc:
        raise ValueError(f"{_EXPECTED} without a user and a password, which are for headers")
    if parts.query or parts.fragment or "?" in text or "#" in text:
        raise ValueError(f"{_EXPECTED} without a query")
    if has_scheme and parts.scheme not in _TLS:
        raise ValueError(_EXPECTED)
    if not host or port == 0 or not (has_scheme or port):
        raise ValueError(_EXPECTED)
    if not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError(f"{_EXPECTED} of printable ASCII without spaces")
    tls = _TLS[parts.scheme] if has_scheme else bool(tls_without_scheme)
    return Endpoint(tls, host, port or _PORTS[tls], parts.path)


def with_traces_path(base: Endpoint) -> Endpoint:
    """Where a receiver of all signals takes traces."""
    return base._replace(path=base.path.rstrip("/") + TRACES_PATH)
