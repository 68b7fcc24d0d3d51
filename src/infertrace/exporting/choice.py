"""The one place that chooses how batches reach a collector: the transport and the wire."""

from __future__ import annotations

import os
from collections.abc import Callable
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


def choose_wire(name: str) -> Wire:
    """The protocol of that name. Raises ValueError for a name that is none."""
    if name == "infertrace":
        from infertrace.exporting.infertrace_wire import InfertraceWire

        return InfertraceWire()
    raise ValueError(f"wire: expected infertrace, got {name!r}")


def choose_transport(
    settings: Settings, backend: Backend, on_idle: Callable[[], bool] = lambda: False
) -> Callable[[], Transport]:
    """A function that opens a transport to the endpoint: a file, or gRPC, by a sender if possible.

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
    from importlib.util import find_spec

    if find_spec("grpc") is None:
        return _miss_grpc
    target = Target.of(settings)
    if settings.sender_process and launcher.is_possible():
        if settings.enabled:
            launcher.prestart()
        return partial(_open_sender, target, backend.roundtrip, on_idle)
    if threads_are_green():
        return _refuse_grpc
    from infertrace.exporting.grpc_transport import GrpcTransport

    return partial(GrpcTransport, target, choose_wire(target.wire))


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
