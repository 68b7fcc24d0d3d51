from typing import final

from infertrace.collector.ingest.decoded_spans import DecodedSpans

__all__ = ["NAME", "ExportDecoder"]

NAME: str

@final
class ExportDecoder:
    def __init__(self, raw: bytes, max_spans: int, max_nested: int) -> None: ...
    def add(
        self,
        raw: bytes,
        start: int,
        end: int,
        head: bytes,
        tail: bytes,
        scope_name: str,
        cut_count: int,
    ) -> int: ...
    def take(self) -> DecodedSpans: ...
