"""What `infertrace agent` says over HTTP: its health, and its numbers for Prometheus."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Final

from infertrace.version import VERSION

if TYPE_CHECKING:
    from infertrace.collector.authorization import BearerToken
    from infertrace.collector.listen_address import ListenAddress

_TIMEOUT_S: Final = 10.0
# Source: Prometheus, "Exposition formats", text.
_CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
_ESCAPES: Final = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})


class AgentHttp:
    """Answers from when it is made; raises OSError where the address cannot be listened on."""

    def __init__(
        self,
        address: ListenAddress,
        token: BearerToken | None,
        status: Callable[[], Mapping[str, Any]],
        is_healthy: Callable[[], bool],
    ) -> None:
        """token: wanted from whoever asks for the numbers."""

        class Handler(_Handler):
            pass

        Handler.status = staticmethod(status)
        Handler.is_healthy = staticmethod(is_healthy)
        Handler.token = token

        class Server(ThreadingHTTPServer):
            address_family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
            daemon_threads = True

        self._server = Server((address.host, address.port), Handler)
        self.port: int = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, daemon=True).start()


class _Handler(BaseHTTPRequestHandler):
    status: Callable[[], Mapping[str, Any]]
    is_healthy: Callable[[], bool]
    token: BearerToken | None
    timeout = _TIMEOUT_S
    server_version = "infertrace"
    sys_version = ""

    def do_GET(self) -> None:
        if self.path == "/health":
            is_healthy = self.is_healthy()
            self._answer(
                200 if is_healthy else 503,
                "application/json",
                json.dumps({"status": "ok" if is_healthy else "unavailable"}),
            )
        elif self.path != "/metrics":
            self._answer(404, "text/plain", "expected /health or /metrics\n")
        elif self.token is not None and not self.token.permits(self.headers["authorization"]):
            self._answer(401, "text/plain", "expected authorization: Bearer TOKEN\n")
        else:
            self._answer(200, _CONTENT_TYPE, "".join(_exposition(self.status())))

    def _answer(self, code: int, content_type: str, text: str) -> None:
        body = text.encode()
        self.send_response(code)
        self.send_header("content-type", content_type)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Not one line for each request."""


def _exposition(status: Mapping[str, Any]) -> Iterator[str]:
    held = status["held"]
    spool = status.get("spool", {"bytes": 0, "max_bytes": 0})
    yield from _family("info", "gauge", "The version.", {f'{{version="{VERSION}"}}': 1})
    plain: tuple[tuple[str, str, str, float], ...] = (
        ("start_time_seconds", "gauge", "When it started.", status["since"]),
        ("clients", "gauge", "Traced processes that are connected.", len(status["clients"])),
        ("targets", "gauge", "Places that spans go to now.", len(status["targets"])),
        ("spans_delivered_total", "counter", "Spans delivered.", status["delivered"]),
        (
            "gone_spans_delivered_total",
            "counter",
            "Of these, those of processes that had ended.",
            status["delivered_for_the_gone"],
        ),
        (
            "gone_spans_rejected_total",
            "counter",
            "Spans of processes that had ended, which the collector refused.",
            status["rejected_for_the_gone"],
        ),
        (
            "unreadable_total",
            "counter",
            "What ended processes had left, and nobody could read.",
            status["unreadable"],
        ),
        ("spool_bytes", "gauge", "What lies in the spool.", spool["bytes"]),
        ("spool_max_bytes", "gauge", "What may lie there; 0: no spool.", spool["max_bytes"]),
    )
    for name, kind, text, value in plain:
        yield from _family(name, kind, text, {"": value})
    for name, key, text in (
        ("held_processes", "held", "Ended processes whose spans are held."),
        ("held_spans", "spans", "Spans held when they came, for processes that have ended."),
        ("held_bytes", "bytes", "What these take."),
    ):
        values: dict[str, float] = {}
        for entry in held:
            labels = f'{{target="{_label(entry["target"])}",wire="{_label(entry["wire"])}"}}'
            # Targets that differ by their credentials look alike.
            values[labels] = values.get(labels, 0) + entry[key]
        yield from _family(name, "gauge", text, values)


def _family(name: str, kind: str, text: str, values: Mapping[str, float]) -> Iterator[str]:
    whole = f"infertrace_agent_{name}"
    yield f"# HELP {whole} {text}\n# TYPE {whole} {kind}\n"
    for labels, value in values.items():
        yield f"{whole}{labels} {value}\n"


def _label(text: str) -> str:
    return text.translate(_ESCAPES)
