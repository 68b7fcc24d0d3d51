"""The files that `infertrace replay` sends: batches of ours, or OTLP in JSON; told by content."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

_MAX_LINE_BYTES: Final = 64 * 1024 * 1024  # the largest JSON that is translated
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
# A file of batches begins with a length, which may be the byte of `{`, and the first field of a
# request, which never is one of the others.
_JSON_STARTS: Final = (b'{"', b"{}", b"{ ", _BYTE_ORDER_MARK)
_NO_SPANS: Final = "no spans of OTLP (metrics and logs are not taken)"


class ReplayedRequest(NamedTuple):
    """One request of a file."""

    body: bytes
    """Empty where it cannot be sent."""
    span_count: int
    is_otlp: bool
    error: str
    """Why it cannot be sent."""


def read_requests(path: Path) -> Iterator[ReplayedRequest]:
    """The requests of a file, in their order, one in memory at a time.

    Raises Unreadable after the last whole one where something else follows it; OSError.
    """
    from infertrace.exporting.envelope import count_spans
    from infertrace.exporting.file_transport import Unreadable, read_batches
    from infertrace.otlp.compressed_file import open_to_read

    try:
        with open_to_read(path) as file:
            is_json = _begins_as_json(file.read(len(_BYTE_ORDER_MARK)))
    except ModuleNotFoundError:
        raise Unreadable(f"{path}: zstd needs the extra infertrace-sdk[collector]") from None
    except (EOFError, ValueError) as error:
        raise Unreadable(f"{path}: {error}") from None
    if is_json:
        yield from _read_json(path)
    else:
        for request in read_batches(path):
            yield ReplayedRequest(request, count_spans(request), False, "")


def _begins_as_json(head: bytes) -> bool:
    return head.startswith(_JSON_STARTS)


def _read_json(path: Path) -> Iterator[ReplayedRequest]:
    from infertrace.exporting.file_transport import Unreadable
    from infertrace.otlp.compressed_file import open_to_read

    with open_to_read(path) as file:
        number = 0
        while True:
            try:
                line = file.readline(_MAX_LINE_BYTES + 1)
            except (EOFError, ValueError) as error:  # of gzip, or of zstd
                raise Unreadable(f"{path}: {error}") from None
            if not line:
                return
            number += 1
            if len(line) > _MAX_LINE_BYTES:
                raise Unreadable(
                    f"{path}: line {number}: expected at most {_MAX_LINE_BYTES} bytes in a line"
                )
            if line.strip():
                yield _translated(line)


def _translated(line: bytes) -> ReplayedRequest:
    from infertrace.collector.ingest.otlp_json import selected
    from infertrace.collector.ingest.wire_fields import RequestError
    from infertrace.otlp.request_spans import count_spans

    try:
        request = selected.export_request(line)
    except RequestError as error:
        return ReplayedRequest(b"", 0, True, str(error))
    span_count = count_spans(request)
    if not span_count and b'"resourceSpans"' not in line:
        return ReplayedRequest(b"", 0, True, _NO_SPANS)
    return ReplayedRequest(request, span_count, True, "")
