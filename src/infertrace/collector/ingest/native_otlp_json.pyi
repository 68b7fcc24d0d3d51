__all__ = ["NAME", "export_request"]

NAME: str

def export_request(text: bytes) -> bytes: ...
