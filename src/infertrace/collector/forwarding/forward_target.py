"""Where spans are forwarded to: what the URLs of `--forward` say."""

from __future__ import annotations

from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import parse_qsl, urlsplit

from infertrace.exporting.target import Target
from infertrace.otlp.endpoint import TRACES_PATH

_SCHEMES: Final = {
    "infertrace": ("infertrace", False),
    "infertraces": ("infertrace", True),
    "otlp/grpc": ("otlp/grpc", False),
    "otlp/grpcs": ("otlp/grpc", True),
    "otlp/http": ("otlp/http", False),
    "otlp/https": ("otlp/http", True),
}
_PORTS: Final = {"infertrace": 4317, "otlp/grpc": 4317, "otlp/http": 4318}
_EXPECTED: Final = (
    "expected otlp/grpc://HOST:PORT, otlp/http://HOST:PORT/PATH or infertrace://HOST:PORT"
)
_PARAMETERS: Final = ("share", "token-file", "certificate", "compression")


class ForwardTarget(NamedTuple):
    """A collector, and the share of the traces that it gets, above 0 and up to 1."""

    name: str
    """Its URL without parameters, for people."""
    target: Target
    share: float = 1.0


def parse_forwards(text: str) -> tuple[ForwardTarget, ...]:
    """The targets of a list with commas; raises ValueError, whose text shows no URL."""
    found = tuple(parse_forward(part) for part in map(str.strip, text.split(",")) if part)
    names = [forward.name for forward in found]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"{name} is given twice")
    return found


def parse_forward(text: str) -> ForwardTarget:
    """What one URL says; raises ValueError, whose text does not show it."""
    scheme, separator, rest = text.partition("://")
    if not separator or scheme not in _SCHEMES:
        raise ValueError(f"{_EXPECTED}; with TLS grpcs, https, infertraces")
    wire, tls = _SCHEMES[scheme]
    try:
        parts = urlsplit(f"//{rest}")
        host, port = parts.hostname, parts.port
    except ValueError:
        raise ValueError(_EXPECTED) from None
    if "@" in parts.netloc:
        raise ValueError(f"{_EXPECTED} without a user and a password; token-file=PATH names a file")
    is_plain = text.isascii() and text.isprintable() and " " not in text
    if not host or port == 0 or parts.fragment or not is_plain:
        raise ValueError(_EXPECTED)
    path = parts.path
    if wire != "otlp/http" and path not in ("", "/"):
        raise ValueError(f"{_EXPECTED}: only HTTP has a path")
    shown_host = f"[{host}]" if ":" in host else host
    address = f"{shown_host}:{port or _PORTS[wire]}"
    given = _parameters(parts.query)
    path = (path or TRACES_PATH) if wire == "otlp/http" else ""
    target = Target(
        address,
        tls,
        {},
        certificate_file=_file(given, "certificate"),
        token_file=_file(given, "token-file"),
        compression=_compression(given.get("compression", "none")),
        wire=wire,
        path=path or "/",
    )
    return ForwardTarget(f"{scheme}://{address}{path}", target, _share(given.get("share", "1")))


def _parameters(query: str) -> dict[str, str]:
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=True) if query else []
    except ValueError:
        raise ValueError("expected parameters such as ?share=0.1") from None
    for key, _ in pairs:
        if key not in _PARAMETERS:
            raise ValueError(f"expected the parameters {', '.join(_PARAMETERS)}")
    return dict(pairs)


def _share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = 0.0
    if not 0 < share <= 1:
        raise ValueError("share: expected a number above 0 and up to 1")
    return share


def _compression(text: str) -> str:
    if text not in ("none", "gzip"):
        raise ValueError("compression: expected none or gzip")
    return text


def _file(given: dict[str, str], name: str) -> str | None:
    path = given.get(name)
    if path is not None and not Path(path).is_file():
        raise ValueError(f"{name}: no such file: {path!r}")
    return path
