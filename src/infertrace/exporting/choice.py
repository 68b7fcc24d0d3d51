"""The one place that chooses how batches reach a collector: the transport and the wire."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from infertrace.exporting import launcher
from infertrace.exporting.answer import Retryable
from infertrace.exporting.link_transport import LinkTransport
from infertrace.exporting.target import Target
from infertrace.green_threads import threads_are_green

if TYPE_CHECKING:
    from infertrace.backend import Backend, Roundtrip
    from infertrace.configuration import Settings
    from infertrace.exporting.transport import Transport
    from infertrace.exporting.wire import Wire


def choose_wire(name: str, conventions: Sequence[str] = ("otel",)) -> Wire:
    """The protocol of that name. Raises ValueError for a name that is none.

    conventions: what fields are called in OTLP.
    """
    if name == "infertrace":
        from infertrace.exporting.infertrace_wire import InfertraceWire

        return InfertraceWire()
    if name in ("otlp/grpc", "otlp/http"):
        from infertrace.exporting.otlp_wire import OtlpWire

        return OtlpWire(conventions)
    raise ValueError(f"wire: expected infertrace, otlp/grpc or otlp/http, got {name!r}")


def open_here(target: Target, wire: Wire | None = None) -> Transport:
    """A transport that sends from this process; raises OSError and ValueError.

    wire: in place of the target's own.
    """
    wire = wire or choose_wire(target.wire, target.conventions)
    if target.wire == "otlp/http":
        from infertrace.exporting.http_transport import HttpTransport

        return HttpTransport(target, wire)
    from infertrace.exporting.grpc_transport import GrpcTransport

    return GrpcTransport(target, wire)


def choose_transport(
    settings: Settings, backend: Backend, on_idle: Callable[[], bool] = lambda: False
) -> Callable[[], Transport]:
    """A function that opens a transport to the endpoint: a file, or gRPC or HTTP, by a sender if
    possible.

    Loads the modules and starts the sender process now; the function only connects.
    on_idle: called on the exporter's thread while an answer is outstanding; does a small step of
        work, and returns True when there is more.
    """
    scheme, _, address = settings.endpoint.rpartition("://")
    if scheme == "file":
        from urllib.parse import unquote

        from infertrace.exporting.file_transport import FileTransport

        path = unquote(address)
        # A drive of Windows comes after the slash: file:///C:/spans
        return partial(FileTransport, Path(path[1:] if os.name == "nt" else path))
    return _choose_way(Target.of(settings), settings, backend, on_idle)


def choose_otlp_instead(
    settings: Settings, backend: Backend, on_idle: Callable[[], bool] = lambda: False
) -> Callable[[], Transport] | None:
    """The same for where our own endpoint turns out to take OTLP; None where it cannot."""
    if settings.protocol != "infertrace" or settings.endpoint.startswith("file:"):
        return None
    target = Target.of(settings)._replace(wire="otlp/grpc")
    return lambda: _choose_way(target, settings, backend, on_idle)()


def _choose_way(
    target: Target, settings: Settings, backend: Backend, on_idle: Callable[[], bool]
) -> Callable[[], Transport]:
    from importlib.util import find_spec

    needs_grpc = target.wire != "otlp/http"
    if needs_grpc and find_spec("grpc") is None:
        return _miss_grpc
    if settings.sender_process and launcher.is_possible():
        if settings.enabled:
            launcher.prestart(target.wire)
        return partial(_open_sender, target, backend.roundtrip, on_idle)
    if needs_grpc and threads_are_green():
        return _refuse_grpc
    load_transport(target.wire)
    return partial(open_here, target)


def load_transport(wire: str) -> None:
    """Import what sends by this wire, which takes longest when a transport is opened."""
    if wire == "otlp/http":
        import infertrace.exporting.http_transport
    else:
        import infertrace.exporting.grpc_transport  # noqa: F401


def end_prestarted() -> None:
    """End a sender that `choose_transport` started and no transport has taken."""
    launcher.end_prestarted()


def after_fork_in_child() -> None:
    """Let go of what the parent's `choose_transport` started."""
    launcher.after_fork_in_child()


def _refuse_grpc() -> Transport:
    raise Retryable(
        "threads are green here (gevent, eventlet), and gRPC would stop all of them; expected "
        "sender_process=True, or endpoint='file:///PATH'"
    )


def _miss_grpc() -> Transport:
    raise Retryable("grpcio is not installed here; endpoint='file:///PATH' needs nothing else")


def _open_sender(
    target: Target, compiled: Roundtrip | None, on_idle: Callable[[], bool]
) -> Transport:
    try:
        return LinkTransport(launcher.start_sender(target), compiled, on_idle)
    except OSError as error:
        # Do not send from this process instead: short of descriptors or memory, gRPC aborts it.
        raise Retryable(
            f"no process to send from ({error}); sender_process=False sends from the traced one"
        ) from None
