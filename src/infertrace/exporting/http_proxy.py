"""The proxy of an HTTP connection, as `http_proxy`, `https_proxy` and `no_proxy` name it."""

from __future__ import annotations

import base64
from typing import Final, NamedTuple

_LOOPBACK: Final = ("localhost", "127.", "[::1]", "::1")
_DEFAULT_PORT: Final = 80


class Proxy(NamedTuple):
    """Holds credentials: not to be printed."""

    host: str
    port: int
    headers: dict[str, str]


def find_proxy(host: str, port: int, *, tls: bool) -> Proxy | None:
    """The proxy on the way there; None for a direct one, and always for loopback."""
    if host.startswith(_LOOPBACK):
        return None
    from urllib.parse import unquote, urlsplit
    from urllib.request import getproxies, proxy_bypass

    url = getproxies().get("https" if tls else "http", "")
    if not url or proxy_bypass(f"{host}:{port}"):
        return None
    parts = urlsplit(url if "://" in url else f"http://{url}")
    if not parts.hostname:
        return None
    headers = {}
    if parts.username:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        encoded = base64.b64encode(pair.encode()).decode("ascii")
        headers["Proxy-Authorization"] = f"Basic {encoded}"
    return Proxy(parts.hostname, parts.port or _DEFAULT_PORT, headers)
