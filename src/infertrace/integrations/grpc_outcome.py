"""How a call of gRPC ended, as the status of its span."""

from __future__ import annotations

from typing import Any, Final

import grpc

from infertrace.integrations.other_instrumentation import traces_library
from infertrace.span import Span

# What infertrace and OpenTelemetry send is never traced, nor what the processes of Ray tell each
# other, several times a second.
UNTRACED: Final = ("/infertrace.v1.", "/opentelemetry.proto.collector.", "/ray.rpc.")


def others_trace(instrumentor: str) -> bool:
    """Whether OpenTelemetry's spans of such calls come to us, by its class for them."""
    return traces_library(("opentelemetry.instrumentation.grpc", instrumentor))


def end_with(span: Span, code: Any, details: Any, error: BaseException | None = None) -> None:
    """End it with a code, and what was said along, or else with the handler's exception."""
    if not span.is_recording:
        return
    # The context of an asynchronous server has numbers.
    name = getattr(code, "name", None) or (
        next((known.name for known in grpc.StatusCode if known.value[0] == code), "")
        if isinstance(code, int)
        else ""
    )
    if name in ("", "OK"):
        span.__exit__(None if error is None else type(error), error, None)
        return
    details = details or b""
    text = details.decode(errors="replace") if isinstance(details, bytes) else details
    status = "CANCELLED" if name == "CANCELLED" else "ERROR"
    span.set_status(status, f"{name}: {text}" if text else name)
    span.end()
