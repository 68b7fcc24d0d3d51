from infertrace.collector.ingest.decoded_spans import DecodedSpans

__all__ = ["NAME", "decode"]

NAME: str

def decode(
    raw: bytes, max_spans: int | None = None, max_nested: int | None = None
) -> DecodedSpans: ...
