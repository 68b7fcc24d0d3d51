"""How a batch reaches a collector, and the one place that chooses the way."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

from infertrace.green_threads import threads_are_green

if TYPE_CHECKING:
    from infertrace.backend import Backend, Exchange
    from infertrace.configuration import Settings

# The parts of a SendSpanBatchRequest, one after the other: to join them would be to copy the spans.
Request = tuple[bytes, ...]


class Target(NamedTuple):
    """What a connection leads to. Holds credentials: not to be printed."""

    address: str
    """`HOST:PORT`"""
    tls: bool
    headers: Mapping[str, str]
    certificate_file: str | None = None
    """PEM; whom to trust, in place of the usual authorities"""
    client_certificate_file: str | None = None
    client_key_file: str | None = None
    token: str | None = None
    token_file: str | None = None
    compression: str = "none"

    @classmethod
    def of(cls, settings: Settings) -> Target:
        scheme, _, address = settings.endpoint.rpartition("://")
        alike = {name: getattr(settings, name) for name in cls._fields[2:]}
        return cls(address.rstrip("/"), tls=scheme == "https", **alike)


class Answer(NamedTuple):
    """What the collector said of a batch."""

    accepted_count: int
    rejected_count: int
    rejection_reason: str


class SendError(Exception):
    """A batch did not get through; the message is for people and holds no credentials."""


class Retryable(SendError):
    """Worth another try."""

    def __init__(self, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
        """What the collector asked for, when it did."""


class Disconnected(Retryable):
    """Worth another try, on another connection: this one is of no more use."""


class Overloaded(Retryable):
    """Worth another try; the collector has no room now, and did not say when it will."""


class Stumbled(Retryable):
    """Worth another try; the collector failed, perhaps over something in this request."""


class TooLarge(SendError):
    """Worth another try in smaller parts."""


class Refused(SendError):
    """Never going to be accepted."""


class Transport(Protocol):
    """One connection; used by one thread at a time, but for `close`."""

    def send(self, request: Request, timeout_s: float) -> Answer:
        """Deliver an encoded SendSpanBatchRequest, or raise one of the errors above."""

    def close(self) -> None:
        """Give up what is in flight; any thread may ask."""

    def forget(self) -> None:
        """Let go of it in a forked child, and leave what the parent goes on to use alone."""


def choose_transport(
    settings: Settings, backend: Backend, meanwhile: Callable[[], bool] = lambda: False
) -> Callable[[], Transport]:
    """What connects to the endpoint: a file, or gRPC, in a process of its own if there can be one.

    Loads what that takes now, and starts that process, but connects only when it is called.
    meanwhile: what the exporter's thread does in small steps while an answer is long in coming;
        True when there is more of it.
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
    from infertrace.exporting import process_transport

    target = Target.of(settings)
    if settings.sender_process and process_transport.is_possible():
        if settings.enabled:
            process_transport.start_spare()
        return partial(_open_process, target, backend.exchange, meanwhile)
    if threads_are_green():
        return _refuse_grpc
    from infertrace.exporting.grpc_transport import GrpcTransport

    return partial(GrpcTransport, target)


def _refuse_grpc() -> Transport:
    raise Retryable(
        "threads are green here (gevent, eventlet), and gRPC would stop all of them; expected "
        "sender_process=True, or endpoint='file:///PATH'"
    )


def _miss_grpc() -> Transport:
    raise Retryable("grpcio is not installed here; endpoint='file:///PATH' needs nothing else")


def _open_process(
    target: Target, exchange: Exchange | None, meanwhile: Callable[[], bool]
) -> Transport:
    from infertrace.exporting.process_transport import ProcessTransport

    try:
        return ProcessTransport(target, exchange, meanwhile)
    except OSError as error:
        # Not from this process instead: where descriptors or memory are short, gRPC aborts.
        raise Retryable(
            f"no process to send from ({error}); sender_process=False sends from the traced one"
        ) from None
