"""What OpenTelemetry's variables say of an exporter of traces: `OTEL_EXPORTER_OTLP_*`.

Source: OpenTelemetry specification, "OpenTelemetry Protocol Exporter",
https://opentelemetry.io/docs/specs/otel/protocol/exporter/.
"""

from __future__ import annotations

from collections.abc import Mapping

from infertrace.otlp.endpoint import parse, with_traces_path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

_TRACES: Final = "OTEL_EXPORTER_OTLP_TRACES_"
_ALL: Final = "OTEL_EXPORTER_OTLP_"
_PROTOCOLS: Final = {"grpc": "otlp/grpc", "http/protobuf": "otlp/http"}
DEFAULT_PROTOCOL: Final = "otlp/http"
MAX_TIMEOUT_MS: Final = 3_600_000


def names(name: str) -> tuple[str, str]:
    """The variables of that name in the order in which they count: for traces, for all signals."""
    return _TRACES + name, _ALL + name


def protocol(text: str) -> str:
    """As `protocol=` names it; raises ValueError."""
    if text not in _PROTOCOLS:
        raise ValueError(f"expected {' or '.join(_PROTOCOLS)}")
    return _PROTOCOLS[text]


def endpoint(variable: str, text: str, protocol: str, environ: Mapping[str, str]) -> str:
    """The URL that this variable means for that protocol; raises ValueError."""
    if protocol == "otlp/grpc":
        found = parse(text, tls_without_scheme=not _is_insecure(environ))
        return found._replace(path="").url
    found = parse(text, tls_without_scheme=None)
    if variable.startswith(_TRACES):
        return found._replace(path=found.path or "/").url
    return with_traces_path(found).url


def headers(text: str) -> Mapping[str, str]:
    """`key=value,key=value`, percent-encoded as W3C baggage is; raises ValueError."""
    from urllib.parse import unquote  # slow to load

    found = {}
    for part in text.split(","):
        key, equals, value = part.partition("=")
        if not part.strip():
            continue
        if not equals or not key.strip():
            raise ValueError("expected key=value,key=value")
        found[unquote(key.strip())] = unquote(value.strip())
    return found


def timeout_s(text: str) -> float:
    """Seconds of a text that means milliseconds; raises ValueError."""
    try:
        milliseconds = float(text)
    except ValueError:
        milliseconds = -1.0
    if not 1 <= milliseconds <= MAX_TIMEOUT_MS:
        raise ValueError(f"expected milliseconds from 1 to {MAX_TIMEOUT_MS}")
    return milliseconds / 1e3


def _is_insecure(environ: Mapping[str, str]) -> bool:
    """Whether an address without a scheme is meant in the clear; anything but `true` is not."""
    for variable in names("INSECURE"):
        text = environ.get(variable, "").strip().lower()
        if text:
            return text == "true"
    return False
