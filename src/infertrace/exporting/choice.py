"""The one place that chooses how batches reach a collector: the transport and the wire."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence
from functools import partial

from infertrace.exporting import launcher
from infertrace.exporting.answer import Retryable
from infertrace.exporting.introduction import Introduction
from infertrace.exporting.link_transport import LinkTransport
from infertrace.exporting.sender_directory import NoDirectory
from infertrace.exporting.target import Target
from infertrace.green_threads import threads_are_green
from infertrace.log import logger

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from infertrace.backend import Backend, Roundtrip
    from infertrace.configuration import Settings
    from infertrace.exporting.host_sender import Holding
    from infertrace.exporting.link_transport import Sender
    from infertrace.exporting.transport import Transport
    from infertrace.exporting.wire import Wire

try:
    from infertrace.exporting import host_sender
except ImportError:  # there are no locks of files, or no such sockets (Windows, Pyodide)
    host_sender = None  # type: ignore[assignment]


OTLP_INSTEAD: Final = "otlp/grpc"
"""What is spoken where our own endpoint turns out to take OTLP."""

# With the first of a namespace, as in a container, all the others end. Source: pid_namespaces(7).
_FIRST_PROCESS: Final = 1

_told_of: set[str] = set()


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


def _close_gpu_page(descriptor: int | None) -> None:
    if descriptor is not None:
        os.close(descriptor)


def choose_transport(
    settings: Settings,
    backend: Backend,
    on_idle: Callable[[], bool] = lambda: False,
    memory: Callable[[], int | None] = lambda: None,
    take_gpu_page: Callable[[int | None], None] = _close_gpu_page,
) -> Callable[[], Transport]:
    """A function that opens a transport to the endpoint: a file, or gRPC or HTTP, by a sender if
    possible.

    Loads the modules and starts the sender process now; the function only connects.
    on_idle: called on the exporter's thread while an answer is outstanding; does a small step of
        work, and returns True when there is more.
    memory: the descriptor of the one in which spans lie that a sender may deliver, if there is one.
    take_gpu_page: called, where `may_hand_over` is true, once a sender has been found, or has not:
        with the descriptor, which it is to close, of the page in which that one says what the GPUs
        do, or None where there is none.
    """
    scheme, _, address = settings.endpoint.rpartition("://")
    if scheme == "file":
        from pathlib import Path
        from urllib.parse import unquote

        from infertrace.exporting.file_transport import FileTransport

        path = unquote(address)
        # A drive of Windows comes after the slash: file:///C:/spans
        return partial(FileTransport, Path(path[1:] if os.name == "nt" else path))
    return _choose_way(Target.of(settings), settings, backend, on_idle, memory, take_gpu_page)


def choose_otlp_instead(
    settings: Settings,
    backend: Backend,
    on_idle: Callable[[], bool] = lambda: False,
    memory: Callable[[], int | None] = lambda: None,
    take_gpu_page: Callable[[int | None], None] = _close_gpu_page,
) -> Callable[[], Transport] | None:
    """The same for where our own endpoint turns out to take OTLP; None where it cannot."""
    if settings.protocol != "infertrace" or settings.endpoint.startswith("file:"):
        return None
    target = Target.of(settings)._replace(wire=OTLP_INSTEAD)
    return lambda: _choose_way(target, settings, backend, on_idle, memory, take_gpu_page)()


def _choose_way(
    target: Target,
    settings: Settings,
    backend: Backend,
    on_idle: Callable[[], bool],
    memory: Callable[[], int | None],
    take_gpu_page: Callable[[int | None], None],
) -> Callable[[], Transport]:
    from importlib.util import find_spec

    needs_grpc = target.wire != "otlp/http"
    if needs_grpc and find_spec("grpc") is None and _agent_of(settings) is None:
        return _miss_grpc
    if settings.sender_process != "none" and _may_have_sender(settings):
        if settings.enabled:
            _prestart(settings, target.wire)
        connect = partial(_connect, settings, target, memory, take_gpu_page)
        return partial(_open_sender, settings, connect, backend.roundtrip, on_idle)
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
    """Let go of what `choose_transport` started and no transport has taken."""
    launcher.end_prestarted()
    if host_sender is not None:
        host_sender.end_waiting()


def after_fork_in_child() -> None:
    """Let go of what the parent's `choose_transport` started."""
    launcher.after_fork_in_child()
    if host_sender is not None:
        host_sender.after_fork_in_child()


def _refuse_grpc() -> Transport:
    raise Retryable(
        "threads are green here (gevent, eventlet), and gRPC would stop all of them; expected "
        "sender_process='own', or endpoint='file:///PATH'"
    )


def _miss_grpc() -> Transport:
    raise Retryable("grpcio is not installed here; endpoint='file:///PATH' needs nothing else")


def may_leave_encoding(settings: Settings) -> bool:
    """Whether batches go by a sender process of this user, which can encode spans itself."""
    return (
        settings.sender_process != "none"
        and not settings.endpoint.startswith("file:")
        and launcher.is_possible()
        and _agent_of(settings) is None
    )


def may_hand_over(settings: Settings) -> bool:
    """Whether a sender may outlive this process, and hold what it leaves."""
    return (
        settings.sender_process == "shared"
        and not settings.endpoint.startswith("file:")
        and _may_have_sender(settings)
        and host_sender is not None
    )


def _may_have_sender(settings: Settings) -> bool:
    """An agent sends for interpreters too that cannot start a sender."""
    return launcher.is_possible() or _agent_of(settings) is not None


def _agent_of(settings: Settings) -> str | None:
    """The agent that is the shared sender, if one is."""
    return settings.agent if settings.sender_process == "shared" else None


def hand_over(
    settings: Settings, descriptor: int, span_count: int, *, takes_otlp: bool, timeout_s: float
) -> Holding | None:
    """Pass a memory with spans to a sender that outlives this process; raises OSError.

    takes_otlp: whether the endpoint turned out to. None where there is no such sender.
    """
    if host_sender is None:
        return None
    target = Target.of(settings)
    if takes_otlp:
        target = target._replace(wire=OTLP_INSTEAD)
    introduction = _introduction(settings, target)
    try:
        return host_sender.Holding(
            introduction, descriptor, span_count, timeout_s, _agent_of(settings)
        )
    except NoDirectory:
        return None


def can_hand_over(settings: Settings) -> bool:
    """Whether processes of this user can share a sender, now, that outlives this process."""
    if host_sender is None or not may_hand_over(settings):
        return False
    if os.getpid() == _FIRST_PROCESS and _agent_of(settings) is None:
        return False
    try:
        host_sender.find_place(_agent_of(settings))
    except NoDirectory:
        return False
    return True


def announce_memory(settings: Settings, memory: int) -> None:
    """Let the common sender know where spans lie that it may have to deliver; waits for nothing."""
    if host_sender is not None and may_hand_over(settings):
        with contextlib.suppress(NoDirectory):  # told of where a transport is opened
            introduction = _introduction(settings, Target.of(settings))
            host_sender.announce(introduction, memory, _agent_of(settings))


def _introduction(settings: Settings, target: Target) -> Introduction:
    return Introduction(
        target,
        settings.service_name,
        settings.max_batch_bytes,
        settings.spool_dir,
        settings.resource_interval_s if settings.enabled else 0.0,
    )


def _prestart(settings: Settings, wire: str) -> None:
    if host_sender is not None and may_hand_over(settings):
        try:
            host_sender.prestart(wire, _agent_of(settings))
            return
        except NoDirectory as error:
            _tell_of_own(error)
    launcher.prestart(wire)


def _tell_of_own(error: Exception) -> None:
    message = str(error)
    if message not in _told_of:
        _told_of.add(message)
        logger.warning(
            "the processes of this user cannot share a sender (%s); each tracer starts its own, "
            "as with sender_process='own' (said once)",
            message,
        )


def _open_sender(
    settings: Settings,
    connect: Callable[[], Sender],
    compiled: Roundtrip | None,
    on_idle: Callable[[], bool],
) -> Transport:
    try:
        return LinkTransport(connect(), compiled, on_idle)
    except OSError as error:
        if (agent := _agent_of(settings)) is not None:
            raise Retryable(f"the agent at {agent} cannot be reached: {error}") from None
        # Do not send from this process instead: short of descriptors or memory, gRPC aborts it.
        raise Retryable(
            f"no process to send from ({error}); sender_process='none' sends from the traced one"
        ) from None


def _connect(
    settings: Settings,
    target: Target,
    memory: Callable[[], int | None],
    take_gpu_page: Callable[[int | None], None],
) -> Sender:
    introduction = _introduction(settings, target)
    if host_sender is not None and may_hand_over(settings):
        try:
            sender = host_sender.HostSender.open(introduction, memory(), _agent_of(settings))
        except NoDirectory as error:
            take_gpu_page(None)
            _tell_of_own(error)
        except OSError:
            take_gpu_page(None)
            raise
        else:
            take_gpu_page(sender.gpu_page)
            return sender
    return launcher.start_sender(introduction)
