from typing import Any

__all__ = ["encode_columns"]

def encode_columns(given: list[Any], rows: int) -> bytes: ...
