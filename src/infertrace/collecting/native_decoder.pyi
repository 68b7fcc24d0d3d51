from infertrace.collecting.decoded_spans import DecodedSpans

NAME: str

def decode(raw: bytes) -> DecodedSpans: ...
