"""Asks a running collector over HTTP, with its token."""

from __future__ import annotations

import argparse
import json
import os
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from typing import Any, Final

from infertrace.collector.options import DEFAULT_HTTP_ADDRESS

_TIMEOUT_S: Final = 60.0


class CollectorError(Exception):
    """The collector has no answer; the text says why."""


def add_address(parser: argparse.ArgumentParser) -> None:
    """Declare the option `--http`."""
    parser.add_argument(
        "--http",
        default=DEFAULT_HTTP_ADDRESS,
        metavar="ADDRESS",
        help="where the collector answers queries: HOST:PORT, http://... or https://... "
        "(default: %(default)s); INFERTRACE_TOKEN is its token",
    )


def own_token() -> str | None:
    """The token of the environment."""
    return os.environ.get("INFERTRACE_TOKEN")


def answer_bytes(
    http: str, path: str, parameters: Sequence[tuple[str, str]] = (), token: str | None = None
) -> tuple[bytes, Mapping[str, str]]:
    """The body of an answer, and its headers; raises CollectorError."""
    base = http if http.startswith(("http://", "https://")) else f"http://{http}"
    query = f"?{urllib.parse.urlencode(parameters)}" if parameters else ""
    headers = {} if token is None else {"authorization": f"Bearer {token}"}
    request = urllib.request.Request(f"{base.rstrip('/')}{path}{query}", headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer:
            return answer.read(), answer.headers
    except urllib.error.HTTPError as error:
        raise CollectorError(_reason(error)) from None
    except (OSError, ValueError) as error:
        raise CollectorError(f"the collector at {base} does not answer: {error}") from None


def answer_json(
    http: str, path: str, parameters: Sequence[tuple[str, str]] = (), token: str | None = None
) -> Any:
    """The answer as JSON; raises CollectorError."""
    body, _ = answer_bytes(http, path, parameters, token)
    try:
        return json.loads(body)
    except ValueError as error:
        raise CollectorError(f"what answers at {http} is no collector: {error}") from None


def _reason(error: urllib.error.HTTPError) -> str:
    try:
        return str(json.load(error)["error"])
    except (ValueError, KeyError, TypeError, OSError):
        return f"the collector answers {error.code} {error.reason}"
