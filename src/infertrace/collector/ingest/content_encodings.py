"""Compressed bodies of HTTP: inflated within a bound, never beyond it."""

from __future__ import annotations

import sys
import zlib
from collections.abc import Callable, Iterator

from infertrace.collector.ingest.wire_fields import RequestError, RequestTooLargeError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

_PIECE_BYTES = 4 * 1024 * 1024
# What a decompressor has to keep is a power of two; RFC 8878 asks for 8 MiB at least.
_ZSTD_WINDOW: dict[int, int] = {zstd.DecompressionParameter.window_log_max: 25}


def _inflated(body: bytes, wbits: int) -> Iterator[bytes]:
    while body:
        member = zlib.decompressobj(wbits)
        while not member.eof:
            piece = member.decompress(body, _PIECE_BYTES)
            body = member.unconsumed_tail
            if not piece and not body and not member.eof:
                raise zlib.error("cut short")
            yield piece
        body = member.unused_data


def _gzip(body: bytes) -> Iterator[bytes]:
    return _inflated(body, 16 + zlib.MAX_WBITS)


def _deflate(body: bytes) -> Iterator[bytes]:
    return _inflated(body, zlib.MAX_WBITS)


def _zstd(body: bytes) -> Iterator[bytes]:
    while body:
        frame = zstd.ZstdDecompressor(options=_ZSTD_WINDOW)
        while not frame.eof:
            piece = frame.decompress(body, _PIECE_BYTES)
            body = b""  # the frame keeps what it has not used
            if not piece and frame.needs_input and not frame.eof:
                raise zstd.ZstdError("cut short")
            yield piece
        body = frame.unused_data


# Each yields the pieces of all members or frames of a body.
_DECODERS: dict[str, Callable[[bytes], Iterator[bytes]]] = {
    "gzip": _gzip,
    "deflate": _deflate,
    "zlib": _deflate,  # the OpenTelemetry Collector's name for it
    "zstd": _zstd,
}
SUPPORTED = ("gzip", "zstd", "deflate")


def normalized(content_encoding: str) -> str:
    """The name of the header's encoding, empty for none; RequestError for an unknown one."""
    name = content_encoding.strip().lower()
    name = "" if name == "identity" else name
    if name and name not in _DECODERS:
        raise RequestError(
            f"unsupported Content-Encoding: {content_encoding[:100]}; "
            f"supported: {', '.join(SUPPORTED)}"
        )
    return name


def decompressed(body: bytes, encoding: str, max_bytes: int) -> bytes:
    """The body without the encoding that `normalized` returned.

    Raises RequestError where it has another one, RequestTooLargeError beyond `max_bytes`.
    """
    if not encoding:
        return body
    pieces: list[bytes] = []
    size = 0
    try:
        for piece in _DECODERS[encoding](body):
            size += len(piece)
            if size > max_bytes:
                raise RequestTooLargeError(f"more than {max_bytes} bytes when decompressed")
            pieces.append(piece)
    except (zlib.error, zstd.ZstdError) as error:
        raise RequestError(f"{encoding}: the body is not compressed so: {error}") from None
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)
