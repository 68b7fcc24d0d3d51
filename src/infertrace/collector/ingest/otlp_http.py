"""OTLP over HTTP, as an ASGI application: protobuf and JSON, compressed or not.

https://opentelemetry.io/docs/specs/otlp/#otlphttp
"""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus

from grpc import StatusCode

from infertrace.collector.authorization import BearerToken
from infertrace.collector.counters import Counters
from infertrace.collector.ingest import otlp_json
from infertrace.collector.ingest.content_encodings import decompressed, normalized
from infertrace.collector.ingest.http_body import BodyBudget, Receive, Scope, Send, too_large
from infertrace.collector.ingest.ingestion import RETRY_DELAY_S, Ingestion, Refusal, RefusalKind
from infertrace.collector.ingest.other_signals import SIGNALS, OtherSignals
from infertrace.collector.ingest.otlp.default_models import DefaultModels
from infertrace.collector.ingest.otlp_answers import (
    JSON,
    PROTOBUF,
    export_response,
    misdirected,
    status,
)
from infertrace.collector.ingest.otlp_batches import decode_export
from infertrace.collector.ingest.otlp_grpc import ANSWER_WITHIN_S, COMMIT_TIMEOUT_S
from infertrace.collector.ingest.reading_places import PlaceLimits
from infertrace.collector.ingest.request_batches import DecodedRequest
from infertrace.collector.ingest.sent_spans import PassOn
from infertrace.collector.ingest.wire_fields import RequestError
from infertrace.collector.store.group_commit import GroupCommit

MAX_BODY_BYTES = 64 * 1024 * 1024  # what OTLP recommends; also when decompressed
MAX_READING_BYTES = 256 * 1024 * 1024  # of all bodies that are being read
READING_PLACES = 64
PLACES_PER_CONNECTION = 1
MAX_WAITING_REQUESTS = 4_096
READING_TURN_S = 1.0  # for a body to arrive while other requests wait
ANY_ORIGIN = "*"

TRACES_PATH = "/v1/traces"
_SIGNAL_PATHS = {f"/v1/{signal}": signal for signal in SIGNALS}
_PREFLIGHT_S = 7_200  # how long a browser may remember an answer about an origin
_HEADER_NAMES = re.compile(rb"[A-Za-z0-9!#$%&'*+.^_`|~, -]{0,4096}")
_PLAIN = "text/plain; charset=utf-8"

_HTTP_STATUSES = {
    RefusalKind.TOKEN: HTTPStatus.UNAUTHORIZED,
    RefusalKind.INVALID: HTTPStatus.BAD_REQUEST,
    RefusalKind.TOO_LARGE: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    # A 4xx other than 429 would have the sender drop its spans.
    RefusalKind.SLOW: HTTPStatus.SERVICE_UNAVAILABLE,
    RefusalKind.BUSY: HTTPStatus.TOO_MANY_REQUESTS,
    RefusalKind.UNAVAILABLE: HTTPStatus.SERVICE_UNAVAILABLE,
}
_CODES = {
    HTTPStatus.BAD_REQUEST: StatusCode.INVALID_ARGUMENT,
    HTTPStatus.UNAUTHORIZED: StatusCode.UNAUTHENTICATED,
    HTTPStatus.FORBIDDEN: StatusCode.PERMISSION_DENIED,
    HTTPStatus.NOT_FOUND: StatusCode.UNIMPLEMENTED,
    HTTPStatus.METHOD_NOT_ALLOWED: StatusCode.UNIMPLEMENTED,
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE: StatusCode.INVALID_ARGUMENT,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: StatusCode.INVALID_ARGUMENT,
    HTTPStatus.TOO_MANY_REQUESTS: StatusCode.RESOURCE_EXHAUSTED,
    HTTPStatus.SERVICE_UNAVAILABLE: StatusCode.UNAVAILABLE,
}

_log = logging.getLogger(__name__)

Headers = Mapping[bytes, bytes]


@dataclass(frozen=True)
class _Answer:
    status: HTTPStatus
    content_type: str = ""
    body: bytes = b""
    headers: tuple[tuple[bytes, bytes], ...] = ()


class _Stop(Exception):
    """A request ends with this answer before anything of its body is read."""

    def __init__(self, status: HTTPStatus, reason: str, *headers: tuple[bytes, bytes]) -> None:
        super().__init__(reason)
        self.status = status
        self.headers = headers


class OtlpHttpApp:
    """Answers a POST once its spans are durable.

    `origins` are those of web pages that may send, `*` for any; a browser names the origin of a
    page in a header, and nobody else does.
    """

    def __init__(
        self,
        writer: GroupCommit,
        counters: Counters,
        other_signals: OtherSignals,
        models: DefaultModels,
        token: BearerToken | None = None,
        origins: Collection[str] = (),
        pass_on: PassOn | None = None,
    ) -> None:
        limits = PlaceLimits(
            READING_PLACES,
            PLACES_PER_CONNECTION,
            MAX_WAITING_REQUESTS,
            READING_TURN_S,
            ANSWER_WITHIN_S,
        )
        self._ingestion = Ingestion(writer, counters, limits, token, pass_on)
        self._other_signals = other_signals
        self._decode = partial(decode_export, models=models, is_passed_on=self._ingestion.passes_on)
        self._origins = frozenset(origins)
        self._reading = BodyBudget(MAX_READING_BYTES, MAX_BODY_BYTES)
        # One after another, which they would take under the GIL anyway: the objects of a JSON
        # text take several times its bytes.
        self._json_thread = ThreadPoolExecutor(1, thread_name_prefix="infertrace-json")

    def close(self) -> None:
        """End the threads that decode; no request may follow."""
        self._ingestion.close()
        self._json_thread.shutdown(wait=False, cancel_futures=True)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        headers: Headers = dict(scope["headers"])
        try:
            answer = await self._answer(scope, headers, receive)
        except _Stop as stop:
            self._ingestion.count_refusal()
            answer = _refused(stop.status, str(stop), headers, stop.headers)
        except Refusal as refusal:
            answer = _refused(_HTTP_STATUSES[refusal.kind], str(refusal), headers)
        origin = headers.get(b"origin")
        allowed = self._cors(origin) if origin is not None and self._allows(origin) else ()
        await send(
            {
                "type": "http.response.start",
                "status": int(answer.status),
                "headers": [
                    *(
                        [(b"content-type", answer.content_type.encode())]
                        if answer.content_type
                        else []
                    ),
                    (b"content-length", b"%d" % len(answer.body)),
                    *answer.headers,
                    *allowed,
                ],
            }
        )
        await send({"type": "http.response.body", "body": answer.body})

    async def _answer(self, scope: Scope, headers: Headers, receive: Receive) -> _Answer:
        origin = headers.get(b"origin")
        if origin is not None and not self._allows(origin):
            raise _Stop(
                HTTPStatus.FORBIDDEN,
                f"origin: {origin[:100].decode('latin-1')} may not send spans; --otlp-origin "
                "allows it",
            )
        if scope["method"] == "OPTIONS":
            return _preflight(headers)
        self._ingestion.admit(headers.get(b"authorization"))
        self._require_traces(scope)
        content_type = _content_type(headers)
        try:
            encoding = normalized(headers.get(b"content-encoding", b"").decode("latin-1"))
        except RequestError as error:
            raise _Stop(HTTPStatus.BAD_REQUEST, str(error)) from None
        if _declared_bytes(headers) > MAX_BODY_BYTES:
            raise _Stop(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, too_large(MAX_BODY_BYTES))
        is_json = content_type == JSON
        with self._reading.body(receive) as read:
            decoded = await self._ingestion.durable(
                read,
                self._decode_json if is_json else self._decode,
                peer="%s:%s" % (scope.get("client") or ("", 0)),
                commit_timeout_s=COMMIT_TIMEOUT_S,
                answer_within_s=ANSWER_WITHIN_S,
                unpack=partial(_unpacked, encoding=encoding),
                executor=self._json_thread if is_json else None,
            )
        if (reason := misdirected(decoded)) is not None:
            raise self._ingestion.refusal(RefusalKind.INVALID, reason)
        return _Answer(HTTPStatus.OK, content_type, export_response(decoded, content_type))

    def _decode_json(self, text: bytes) -> DecodedRequest:
        return self._decode(otlp_json.selected.export_request(text))

    def _require_traces(self, scope: Scope) -> None:
        """Raise _Stop for what is not a POST of traces."""
        path = scope["path"].rstrip("/")
        if (signal := _SIGNAL_PATHS.get(path)) is not None:
            raise _Stop(HTTPStatus.NOT_FOUND, self._other_signals.refusal(signal))
        if path not in ("", TRACES_PATH):
            raise _Stop(HTTPStatus.NOT_FOUND, _no_route(path))
        if scope["method"] != "POST":
            raise _Stop(
                HTTPStatus.METHOD_NOT_ALLOWED,
                "405 method not allowed, supported: [POST]",
                (b"allow", b"POST, OPTIONS"),
            )

    def _allows(self, origin: bytes) -> bool:
        return ANY_ORIGIN in self._origins or origin.decode("latin-1") in self._origins

    def _cors(self, origin: bytes) -> tuple[tuple[bytes, bytes], ...]:
        return (b"access-control-allow-origin", origin), (b"vary", b"origin")


def _unpacked(body: bytes, encoding: str) -> bytes:
    return decompressed(body, encoding, MAX_BODY_BYTES)


def _preflight(headers: Headers) -> _Answer:
    """For a browser that asks whether the page may send; which headers makes no difference."""
    wanted = headers.get(b"access-control-request-headers", b"")
    return _Answer(
        HTTPStatus.NO_CONTENT,
        headers=(
            (b"allow", b"POST, OPTIONS"),
            (b"access-control-allow-methods", b"POST"),
            (b"access-control-allow-headers", wanted if _HEADER_NAMES.fullmatch(wanted) else b""),
            (b"access-control-max-age", b"%d" % _PREFLIGHT_S),
        )
        if b"origin" in headers
        else ((b"allow", b"POST, OPTIONS"),),
    )


def _media_type(headers: Headers) -> str:
    text = headers.get(b"content-type", b"").decode("latin-1")
    return text.partition(";")[0].strip().lower()


def _content_type(headers: Headers) -> str:
    found = _media_type(headers)
    if found not in (JSON, PROTOBUF):
        raise _Stop(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            f"415 unsupported media type, supported: [{JSON}, {PROTOBUF}]",
            (b"accept", f"{JSON}, {PROTOBUF}".encode()),
        )
    return found


def _declared_bytes(headers: Headers) -> int:
    text = headers.get(b"content-length", b"0")
    return int(text) if text.isdigit() and len(text) < 20 else 0


def _no_route(path: str) -> str:
    text = f"no such route: {path[:100]}"
    if path.endswith(TRACES_PATH):
        return (
            f"{text}; traces go to {TRACES_PATH}, which OTEL_EXPORTER_OTLP_ENDPOINT gets "
            "appended: leave it out there, or give all of it as OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
        )
    return f"{text}; infertrace takes traces, on {TRACES_PATH}"


def _refused(
    code: HTTPStatus, reason: str, headers: Headers, more: tuple[tuple[bytes, bytes], ...] = ()
) -> _Answer:
    content_type = _media_type(headers)
    if code in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE):
        more = (*more, (b"retry-after", b"%d" % RETRY_DELAY_S))
    if code is HTTPStatus.UNAUTHORIZED:
        more = (*more, (b"www-authenticate", b"Bearer"))
    if content_type not in (JSON, PROTOBUF):
        return _Answer(code, _PLAIN, reason.encode("utf-8", "replace"), more)
    body = status(_CODES[code].value[0], reason, content_type)
    return _Answer(code, content_type, body, more)
