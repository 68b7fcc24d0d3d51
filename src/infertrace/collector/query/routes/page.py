"""The page: the files that `npm run build` in page/ made, which hold no data and need no token."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from importlib.resources import files

from fastapi import APIRouter, Request
from fastapi.responses import Response

# No script, style, font or picture from elsewhere, none in the HTML, and no page around this one.
CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data: blob:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
_HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
_FILES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/app.js": ("app.js", "text/javascript; charset=utf-8"),
    "/app.css": ("app.css", "text/css; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
    "/THIRD_PARTY_LICENSES.txt": ("THIRD_PARTY_LICENSES.txt", "text/plain; charset=utf-8"),
}
PAGE_PATHS = frozenset(_FILES)


def page_routes() -> APIRouter:
    """`/`, and the files that it loads; none where a frozen program has left them out."""
    router = APIRouter()
    folder = files("infertrace.collector") / "page"
    if not folder.is_dir():
        return router
    for path, (name, media_type) in _FILES.items():
        content = (folder / name).read_bytes()
        router.add_api_route(path, _answer_of(content, media_type), include_in_schema=False)
    return router


def _answer_of(content: bytes, media_type: str) -> Callable[[Request], Response]:
    headers = {**_HEADERS, "ETag": f'"{sha256(content).hexdigest()[:32]}"'}

    def answer(request: Request) -> Response:
        if request.headers.get("if-none-match") == headers["ETag"]:
            return Response(status_code=304, headers=headers)
        return Response(content, media_type=media_type, headers=headers)

    return answer
