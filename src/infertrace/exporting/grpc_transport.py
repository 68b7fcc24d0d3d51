"""Batches over gRPC."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any, Final

import grpc

from infertrace.exporting.answer import (
    Answer,
    Overloaded,
    Refused,
    Retryable,
    SpeaksOtlp,
    Stumbled,
    TooLarge,
)
from infertrace.exporting.bearer_token import BearerToken
from infertrace.exporting.envelope import Request
from infertrace.exporting.target import Target
from infertrace.exporting.too_large import says_too_large
from infertrace.exporting.transport import Transport
from infertrace.exporting.wire import Wire
from infertrace.otlp.export_service import GRPC_METHOD as OTLP_METHOD
from infertrace.version import VERSION

# Faults of the batch itself. All other errors are retried: a token, a route or an overload gets
# mended in time, and until then the buffer bounds how much is held.
_REFUSED: Final = frozenset(
    {
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.ALREADY_EXISTS,
    }
)
# What servers answer when their handler fails, be it once or each time it gets this batch.
_STUMBLED: Final = frozenset({grpc.StatusCode.UNKNOWN, grpc.StatusCode.INTERNAL})
# RESOURCE_EXHAUSTED with any other text is an overload.
_MAY_BE_TOO_LARGE: Final = (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.OUT_OF_RANGE)

_CHANNEL_OPTIONS: Final = (
    # By default gRPC waits up to two minutes before it dials again; the exporter has its backoff.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1_000),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    # Otherwise two tracers with the same options would share one connection, and its fate.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.primary_user_agent", f"infertrace/{VERSION}"),
)
# Any receiver of OTLP takes an empty request.
_PROBE_TIMEOUT_S: Final = 2.0
_LOOPBACK: Final = ("localhost:", "127.", "[::1]:")

# Channels that a parent process opened. gRPC must not touch them in a forked child, not even to
# close them; this list keeps the GC from doing so.
_inherited: list[Any] = []


class GrpcTransport(Transport):
    """Sends for any number of threads at once.

    Raises OSError where a file with a certificate or a key cannot be read.
    """

    def __init__(self, target: Target, wire: Wire) -> None:
        self._target = target
        self._wire = wire
        self._token = BearerToken(target.token, target.token_file)
        self._compression = grpc.Compression.Gzip if target.compression == "gzip" else None
        self._is_closed = False
        self._lock = threading.Lock()
        self._used: dict[Any, int] = {}
        """By channel, how many calls are on their way; those of one that was replaced go on."""
        self._channel = self._new_channel()

    def _new_channel(self) -> Any:
        options: list[tuple[str, Any]] = list(_CHANNEL_OPTIONS)
        if self._target.address.startswith(_LOOPBACK):
            options.append(("grpc.enable_http_proxy", 0))
        return (
            grpc.secure_channel(self._target.address, _credentials(self._target), options)
            if self._target.tls
            else grpc.insecure_channel(self._target.address, options)
        )

    def send(self, request: Request, span_count: int, timeout_s: float) -> Answer:
        encoded = self._wire.encode(request, span_count)
        if encoded.body is None:
            return Answer(encoded.span_count, encoded.rejected_count, encoded.rejection_reason)
        channel = self._begin_call()
        try:
            # Without serializers: the wire deals in bytes.
            method: Any = channel.unary_unary(self._wire.grpc_method)
            reply = self._call(method, encoded.body, timeout_s)
        except grpc.RpcError as error:
            code = error.code()
            if code is grpc.StatusCode.DEADLINE_EXCEEDED:
                self._replace(channel)
            if code is grpc.StatusCode.UNAUTHENTICATED and self._token.has_changed():
                raise Retryable("the token was replaced meanwhile") from None
            if code is grpc.StatusCode.UNIMPLEMENTED and self.takes_otlp(timeout_s):
                raise SpeaksOtlp(
                    "it takes OTLP, and not infertrace's protocol; expected "
                    "INFERTRACE_PROTOCOL=otlp/grpc"
                ) from None
            raise _translated(error) from None
        except ValueError:
            # The channel was closed under the call.
            raise Retryable("the connection was closed") from None
        finally:
            self._end_call(channel)
        return self._wire.read(reply, encoded)

    def _call(self, method: Any, body: bytes, timeout_s: float) -> bytes:
        reply: bytes = method(
            body,
            timeout=timeout_s,
            metadata=(*self._target.headers.items(), *self._token.metadata()),
            compression=self._compression,
        )
        return reply

    def takes_otlp(self, timeout_s: float) -> bool:
        """Whether the other end takes OTLP; False where that is what is spoken already."""
        if self._wire.grpc_method == OTLP_METHOD:
            return False
        method: Any = self._channel.unary_unary(OTLP_METHOD)
        try:
            self._call(method, b"", min(timeout_s, _PROBE_TIMEOUT_S))
        except (grpc.RpcError, Retryable, ValueError):
            return False
        return True

    def _begin_call(self) -> Any:
        with self._lock:
            channel = self._channel
            self._used[channel] = self._used.get(channel, 0) + 1
            return channel

    def _end_call(self, channel: Any) -> None:
        with self._lock:
            self._used[channel] -= 1
            if self._used[channel]:
                return
            del self._used[channel]
            is_replaced = channel is not self._channel
        if is_replaced:
            channel.close()

    def _replace(self, channel: Any) -> None:
        # The other end may be gone without a word. Pings would notice that no earlier, and a
        # server with gRPC's defaults closes connections that send more pings than it likes.
        with self._lock:
            if channel is self._channel and not self._is_closed:
                self._channel = self._new_channel()

    def close(self) -> None:
        with self._lock:
            self._is_closed = True
            channels = {self._channel, *self._used}
        for channel in channels:
            channel.close()

    def after_fork_in_child(self) -> None:
        _inherited.append(self._channel)


def _credentials(target: Target) -> grpc.ChannelCredentials:
    def read(name: str | None) -> bytes | None:
        return Path(name).read_bytes() if name else None

    return grpc.ssl_channel_credentials(
        root_certificates=read(target.certificate_file),
        private_key=read(target.client_key_file),
        certificate_chain=read(target.client_certificate_file),
    )


def _translated(error: Any) -> Retryable | TooLarge | Refused:
    code, details = error.code(), error.details() or ""
    message = f"{code.name}: {details}"
    retry_after_s = _retry_after_s(error)
    if code in _REFUSED:
        return Refused(message)
    if retry_after_s is not None:
        return Retryable(message, retry_after_s)
    if code in _MAY_BE_TOO_LARGE and says_too_large(details):
        return TooLarge(message)
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED:
        return Overloaded(message)
    return Stumbled(message) if code in _STUMBLED else Retryable(message)


def _retry_after_s(error: Any) -> float | None:
    """The delay of a `google.rpc.RetryInfo` among the error's details, if there is one."""
    # Here, since it loads protobuf: a quarter of what the start of a sender process takes.
    from infertrace.wire.retry_info import (
        RETRY_INFO_KEY,
        STATUS_DETAILS_KEY,
        retry_delay_s,
        retry_info_delay_s,
    )

    for key, value in error.trailing_metadata() or ():
        if key == STATUS_DETAILS_KEY:
            delay_s = retry_delay_s(value)
        elif key == RETRY_INFO_KEY:
            delay_s = retry_info_delay_s(value)
        else:
            continue
        if delay_s is not None:
            return delay_s
    return None
