"""infertrace traces machine-learning inference from inside latency-sensitive loops."""

from infertrace import backend as _backend
from infertrace.current import current_span
from infertrace.gpu import get_gpu_metrics
from infertrace.tracer import Tracer, configure, trace_inference

TYPE_CHECKING = False
if TYPE_CHECKING:
    from infertrace.integrations import instrument, uninstrument
    from infertrace.span import Span

    __version__: str

__all__ = [
    "BACKEND",
    "Span",
    "Tracer",
    "__version__",
    "configure",
    "current_span",
    "get_gpu_metrics",
    "instrument",
    "trace_inference",
    "uninstrument",
]

BACKEND: str = _backend.selected.NAME
"""Which backend runs: `native` or `pure`."""


def __getattr__(name: str) -> object:
    # To look the version up, or to make a protocol class, takes longer than all other
    # imports together.
    if name == "__version__":
        from infertrace.version import VERSION

        return VERSION
    if name == "Span":
        from infertrace.span import Span

        return Span
    if name in ("instrument", "uninstrument"):
        from infertrace import integrations

        return getattr(integrations, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
