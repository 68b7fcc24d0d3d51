"""Batches over HTTP/1.1: OTLP as `http/protobuf`, on one connection that is kept.

Source: OTLP specification 1.11, "OTLP/HTTP".
"""

from __future__ import annotations

import contextlib
import email.utils
import gzip
import http.client
import json
import ssl
import time
from typing import Final

from infertrace.exporting.answer import (
    Answer,
    Overloaded,
    Refused,
    Retryable,
    SendError,
    Stumbled,
    TooLarge,
)
from infertrace.exporting.bearer_token import BearerToken
from infertrace.exporting.deadline_socket import DeadlineSocket
from infertrace.exporting.envelope import Request
from infertrace.exporting.http_proxy import find_proxy
from infertrace.exporting.target import Target
from infertrace.exporting.too_large import says_too_large
from infertrace.exporting.transport import Transport
from infertrace.exporting.wire import Encoded, Wire
from infertrace.otlp.export_service import read_status_message
from infertrace.version import VERSION
from infertrace.wire.protobuf import WireError

_PROTOBUF: Final = "application/x-protobuf"
_JSON: Final = "application/json"
_MAX_ANSWER_BYTES: Final = 4 * 1024 * 1024
_GZIP_LEVEL: Final = 6
_MAX_RETRY_AFTER_S: Final = 365 * 86_400.0

# Faults of the batch itself. All other errors are retried: a token, a route or an overload gets
# mended in time, and until then the buffer bounds how much is held.
_REFUSED: Final = frozenset((400, 422))
_OVERLOADED: Final = 429


class HttpTransport(Transport):
    """Raises OSError where a file with a certificate or a key cannot be read."""

    def __init__(self, target: Target, wire: Wire) -> None:
        self._target = target
        self._wire = wire
        self._token = BearerToken(target.token, target.token_file)
        self._tls = _context(target) if target.tls else None
        host, _, port = target.address.rpartition(":")
        self._host, self._port = host.strip("[]"), int(port)
        self._proxy = find_proxy(self._host, self._port, tls=target.tls)
        # A proxy in the clear is told the whole URL.
        in_clear = self._proxy is not None and not target.tls
        self._path = f"http://{target.address}{target.path}" if in_clear else target.path
        self._connection: http.client.HTTPConnection | None = None
        self._socket: DeadlineSocket | None = None
        self._is_in_use = self._is_closed = False

    def send(self, request: Request, span_count: int, timeout_s: float) -> Answer:
        self._is_in_use = True
        try:
            return self._send(request, span_count, timeout_s)
        finally:
            self._is_in_use = False
            if self._is_closed:
                self._disconnect()

    def _send(self, request: Request, span_count: int, timeout_s: float) -> Answer:
        encoded = self._wire.encode(request, span_count)
        if encoded.body is None:
            return Answer(encoded.span_count, encoded.rejected_count, encoded.rejection_reason)
        deadline = time.monotonic() + timeout_s
        headers = self._headers()
        body = encoded.body
        if self._target.compression == "gzip":
            body = gzip.compress(body, _GZIP_LEVEL, mtime=0)
        status, answer_headers, answer = self._exchange(body, headers, deadline)
        if status == 401 and self._token.has_changed():
            raise Retryable("the token was replaced meanwhile")
        if 200 <= status < 300:
            return self._accepted(answer_headers, answer, encoded)
        raise _translated(status, answer_headers, answer)

    def _headers(self) -> dict[str, str]:
        headers = {
            "content-type": _PROTOBUF,
            "accept": _PROTOBUF,
            "accept-encoding": "identity",
            "user-agent": f"infertrace/{VERSION}",
            **self._target.headers,
            **dict(self._token.metadata()),
        }
        if self._proxy is not None and not self._target.tls:
            headers |= self._proxy.headers
        if self._target.compression == "gzip":
            headers["content-encoding"] = "gzip"
        return headers

    def _exchange(
        self, body: bytes, headers: dict[str, str], deadline: float
    ) -> tuple[int, http.client.HTTPMessage, bytes]:
        """One request and its answer. A kept connection may have ended, so that is tried anew."""
        is_kept = self._connection is not None
        try:
            return self._exchange_once(body, headers, deadline)
        except TimeoutError:
            self._disconnect()
            raise Retryable("no answer in time") from None
        except (OSError, http.client.HTTPException) as error:
            self._disconnect()
            if is_kept and not self._is_closed and time.monotonic() < deadline:
                return self._exchange(body, headers, deadline)
            raise Retryable(f"{type(error).__name__}: {error}") from None
        except ValueError:  # a header that HTTP cannot carry, which must not be shown
            self._disconnect()
            raise Retryable("a header cannot be sent") from None

    def _exchange_once(
        self, body: bytes, headers: dict[str, str], deadline: float
    ) -> tuple[int, http.client.HTTPMessage, bytes]:
        connection = self._connected(deadline)
        connection.request("POST", self._path, body, headers)
        response = connection.getresponse()
        answer = response.read(_MAX_ANSWER_BYTES)
        if response.length:  # what is left of the announced length
            raise http.client.IncompleteRead(answer, response.length)
        if response.will_close or not response.isclosed():
            self._disconnect()
        return response.status, response.headers, answer

    def _connected(self, deadline: float) -> http.client.HTTPConnection:
        if self._is_closed:
            raise Retryable("the connection was closed")
        if self._connection is not None and self._socket is not None:
            self._socket.deadline = deadline
            return self._connection
        connection = self._new_connection(max(deadline - time.monotonic(), 0.001))
        connection.connect()
        self._socket = DeadlineSocket(connection.sock, deadline)
        connection.sock = self._socket
        self._connection = connection
        if self._is_closed:  # by another thread, which found nothing to interrupt
            raise Retryable("the connection was closed")
        return connection

    def _new_connection(self, timeout_s: float) -> http.client.HTTPConnection:
        proxy = self._proxy
        host, port = self._host, self._port
        if self._tls is None:
            if proxy is not None:
                host, port = proxy.host, proxy.port
            return http.client.HTTPConnection(host, port, timeout=timeout_s)
        if proxy is None:
            return http.client.HTTPSConnection(host, port, timeout=timeout_s, context=self._tls)
        made = http.client.HTTPSConnection(
            proxy.host, proxy.port, timeout=timeout_s, context=self._tls
        )
        made.set_tunnel(host, port, proxy.headers)
        return made

    def _accepted(
        self, headers: http.client.HTTPMessage, answer: bytes, encoded: Encoded
    ) -> Answer:
        kind = headers.get_content_type() if answer else _PROTOBUF
        if kind == _JSON:
            return _read_json(answer, encoded)
        # Something else answers at this address: the spans are not where they should be.
        if kind != _PROTOBUF:
            raise Retryable(f"it answers {kind}, so it takes no OTLP here")
        return self._wire.read(answer, encoded)

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        self._socket = None
        if connection is not None:
            connection.close()

    def close(self) -> None:
        self._is_closed = True
        socket = self._socket
        if socket is not None:
            socket.interrupt()
        # A thread that uses the socket closes it itself.
        if not self._is_in_use:
            self._disconnect()

    def after_fork_in_child(self) -> None:
        """Close this copy of the descriptor, without a word to the other end."""
        socket, self._socket = self._socket, None
        self._connection = None
        if socket is not None:
            socket.forget()


def _context(target: Target) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=target.certificate_file)
    if target.client_certificate_file:
        context.load_cert_chain(target.client_certificate_file, target.client_key_file)
    return context


def _read_json(answer: bytes, encoded: Encoded) -> Answer:
    """What some servers answer to protobuf."""
    try:
        partial = json.loads(answer).get("partialSuccess") or {}
        rejected = max(0, min(int(partial.get("rejectedSpans") or 0), encoded.span_count))
        message = str(partial.get("errorMessage") or "")
    except (ValueError, TypeError, AttributeError):
        raise Retryable("it answers JSON that is not OTLP's, so it takes no OTLP here") from None
    return Answer(
        encoded.span_count - rejected,
        encoded.rejected_count + rejected,
        message or encoded.rejection_reason,
    )


def _translated(status: int, headers: http.client.HTTPMessage, answer: bytes) -> SendError:
    message = f"HTTP {status}: {_message(headers, answer)}"
    if status == 413 or (status in _REFUSED and says_too_large(message)):
        return TooLarge(message)
    if status in _REFUSED:
        return Refused(message)
    retry_after_s = _retry_after_s(headers, answer)
    if retry_after_s is not None:
        return Retryable(message, retry_after_s)
    if status == _OVERLOADED:
        return Overloaded(message)
    return Stumbled(message) if status == 500 else Retryable(message)


def _message(headers: http.client.HTTPMessage, answer: bytes) -> str:
    kind = headers.get_content_type()
    with contextlib.suppress(WireError, ValueError, AttributeError):
        if kind == _PROTOBUF:
            return read_status_message(answer)
        if kind == _JSON:
            return str(json.loads(answer).get("message", ""))
    return answer[:1000].decode(errors="replace") if kind == "text/plain" else ""


def _retry_after_s(headers: http.client.HTTPMessage, answer: bytes) -> float | None:
    """What `Retry-After` says, or a RetryInfo in the answer. Source: RFC 9110, section 10.2.3."""
    text = headers.get("retry-after", "").strip()
    if text.isascii() and text.isdigit():
        return min(float(text), _MAX_RETRY_AFTER_S)
    if text:
        with contextlib.suppress(ValueError, TypeError, OverflowError):
            moment = email.utils.parsedate_to_datetime(text).timestamp()
            return min(max(moment - time.time(), 0.0), _MAX_RETRY_AFTER_S)
    if headers.get_content_type() != _PROTOBUF:
        return None
    # Here, since it loads protobuf, which takes long and is seldom needed.
    from infertrace.wire.retry_info import retry_delay_s

    return retry_delay_s(answer)
