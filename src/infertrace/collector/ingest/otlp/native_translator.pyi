from typing import final

__all__ = ["NAME", "Translator", "find_messages"]

NAME: str

def find_messages(
    raw: bytes, start: int, end: int, number: int, limit: int
) -> list[tuple[int, int]]: ...

@final
class Translator:
    def __init__(self, max_spans: int) -> None: ...
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
    def take(self) -> bytes: ...
