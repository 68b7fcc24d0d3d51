"""How servers say that a request is larger than they take."""

from __future__ import annotations

import re
from typing import Final

# gRPC in C++, Python, Go, Java, Node and .NET, tonic, Go's net/http, and our own collector.
_TOO_LARGE: Final = re.compile(
    r"larger than max|exceeds (the )?max|too large|too many spans", re.IGNORECASE
)


def says_too_large(message: str) -> bool:
    """Whether smaller requests would be taken."""
    return _TOO_LARGE.search(message) is not None
