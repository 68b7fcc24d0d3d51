from infertrace.otlp.translated import Translated

__all__ = ["NAME", "translate"]

NAME: str

def translate(
    envelope: bytes, conventions: int, sdk_name: bytes, sdk_version: bytes
) -> Translated: ...
