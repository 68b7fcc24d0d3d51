"""infertrace traces machine-learning inference from inside latency-sensitive loops."""

from typing import TYPE_CHECKING, Any

from infertrace import backend as _backend
from infertrace.gpu import get_gpu_metrics
from infertrace.span import Span, current_span
from infertrace.tracer import Tracer, configure, trace_inference

if TYPE_CHECKING:
    __version__: str

__all__ = [
    "BACKEND",
    "Span",
    "Tracer",
    "__version__",
    "configure",
    "current_span",
    "get_gpu_metrics",
    "trace_inference",
]

BACKEND: str = _backend.selected.NAME
"""Which backend runs: `native` or `pure`."""


def __getattr__(name: str) -> Any:
    # Looking the version up takes longer than all other imports together.
    if name == "__version__":
        from infertrace.version import VERSION

        return VERSION
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
