"""The options of the collector, from the command line, the environment and a file.

An argument comes before `INFERTRACE_COLLECTOR_<OPTION>`, that before the TOML file of `--config`
(`INFERTRACE_COLLECTOR_CONFIG`), and that before the default. In the file, options have the names
that they have on the command line, without the dashes in front.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infertrace.collector.forwarding.forward_target import ForwardTarget, parse_forwards
from infertrace.collector.listen_address import ListenAddress

DEFAULT_GRPC_ADDRESS = "127.0.0.1:4317"
DEFAULT_HTTP_ADDRESS = "127.0.0.1:8080"
DEFAULT_OTLP_HTTP_ADDRESS = "127.0.0.1:4318"
OFF = "off"
PREFIX = "INFERTRACE_COLLECTOR_"
LOG_FORMATS = ("text", "json")
LOG_LEVELS = ("error", "warning", "info", "debug")
_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
_BYTES = {"MB": 10**6, "GB": 10**9, "TB": 10**12}
_MAX_FILE_BYTES = 1_000_000


class OptionError(ValueError):
    """An option has a wrong value; the text names where it came from."""


@dataclass(frozen=True)
class Option:
    """One option; `parse` raises ValueError, whose text says what was expected."""

    name: str
    metavar: str
    help: str
    parse: Callable[[str], Any] = str
    default: str | None = None
    unit: str = ""
    is_list: bool = False
    """It may be given several times, or once with commas."""

    @property
    def key(self) -> str:
        """Its attribute among the arguments."""
        return self.name.replace("-", "_")

    @property
    def field(self) -> str:
        """Its attribute in `Options`, with the unit of its value."""
        return f"{self.key}_{self.unit}" if self.unit else self.key

    @property
    def variable(self) -> str:
        """Its variable of the environment."""
        return PREFIX + self.key.upper()


def _duration(text: str) -> int:
    """Nanoseconds."""
    match = re.fullmatch(r"(\d{1,6})([smhd])", text, re.ASCII)
    if match is None or int(match[1]) == 0:
        raise ValueError(f"expected a time such as 90m, 12h or 7d, got {text!r}")
    return int(match[1]) * _SECONDS[match[2]] * 1_000_000_000


def _size(text: str) -> int:
    """Bytes."""
    match = re.fullmatch(r"(\d{1,9})(MB|GB|TB)", text, re.ASCII)
    if match is None or int(match[1]) == 0:
        raise ValueError(f"expected a size such as 500MB or 20GB, got {text!r}")
    return int(match[1]) * _BYTES[match[2]]


def _address(text: str) -> str:
    return str(ListenAddress.parse(text))


def _address_or_off(text: str) -> str | None:
    try:
        return None if text == OFF else _address(text)
    except ValueError as error:
        raise ValueError(f"{error}, or {OFF}") from None


def _origins(text: str) -> tuple[str, ...]:
    """The origins of a list with commas, as browsers write them."""
    origins = tuple(filter(None, (part.strip().rstrip("/").lower() for part in text.split(","))))
    for origin in origins:
        if origin != "*" and not re.fullmatch(r"[a-z][a-z0-9+.-]*://[^/\s]+", origin):
            raise ValueError(
                "expected origins such as https://app.example.com, with commas between them, or "
                f"*, got {origin[:100]!r}"
            )
    return origins


def _default_models(text: str) -> dict[str, str]:
    """Models by the names of their services."""
    found = {}
    for pair in filter(None, (part.strip() for part in text.split(","))):
        service, _, model = pair.partition("=")
        if not service or not model:
            raise ValueError(
                f"expected SERVICE=MODEL, with commas between them, got {pair[:100]!r}"
            )
        found[service] = model
    return found


def _one_of(allowed: tuple[str, ...]) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in allowed:
            raise ValueError(f"expected {' or '.join(allowed)}, got {text[:100]!r}")
        return text

    return parse


def _on_or_off(text: str) -> bool:
    if text not in ("on", OFF):
        raise ValueError(f"expected on or {OFF}, got {text[:100]!r}")
    return text == "on"


OPTIONS = (
    Option("grpc", "HOST:PORT", "where to take spans; port 0 takes a free one", _address,
           DEFAULT_GRPC_ADDRESS),
    Option("http", "HOST:PORT", "where to answer; port 0 takes a free one", _address,
           DEFAULT_HTTP_ADDRESS),
    Option("store", "URL", "duckdb:///PATH, relative to here, duckdb:////PATH, absolute, "
           "postgresql://USER@HOST/DATABASE, or memory:", str, "duckdb:///infertrace.duckdb"),
    Option("otlp-http", "HOST:PORT", f"where to take OTLP over HTTP, or {OFF}", _address_or_off,
           DEFAULT_OTLP_HTTP_ADDRESS),
    Option("otlp-origin", "ORIGIN", "web pages of this origin may send there, such as "
           "https://app.example.com; may be repeated (default: none)", _origins, is_list=True),
    Option("default-model", "SERVICE=MODEL", "the model of spans of OTLP that do not say theirs; "
           "may be repeated", _default_models, is_list=True),
    Option("forward", "URL", "where to pass on what is durable: otlp/grpc://HOST:PORT, "
           "otlp/http://HOST:PORT/PATH, infertrace://HOST:PORT; ?share=0.1 for a share of the "
           "traces; may be repeated (default: nowhere)", parse_forwards, is_list=True),
    Option("retain", "AGE", "delete spans that started longer ago, such as 12h or 7d (default: "
           "keep all)", _duration, unit="ns"),
    Option("max-bytes", "SIZE", "delete the oldest spans when the store grows beyond it, such as "
           "500MB or 20GB (default: keep all)", _size),
    Option("query-timeout", "TIME", "interrupt a query that takes longer, such as 10s or 2m",
           _duration, "30s", "ns"),
    Option("model-metrics", "on|off", "whether /metrics has histograms of the requests of models, "
           "50 models at most", _on_or_off, OFF),
    Option("token-file", "PATH", "file with the token that producers and readers must show; "
           "needed to listen beyond this machine", Path),
    Option("tls-cert", "PATH", "PEM file with the certificate chain, for gRPC and HTTP; with "
           "--tls-key",
           Path),
    Option("tls-key", "PATH", "PEM file with the key of that certificate", Path),
    Option("tls-client-ca", "PATH", "PEM file with the authority whose clients alone may connect "
           "(mTLS)", Path),
    Option("log-format", "FORMAT", "text, or json for one object a line", _one_of(LOG_FORMATS),
           "text"),
    Option("log-level", "LEVEL", f"the least that is logged: {', '.join(LOG_LEVELS)}",
           _one_of(LOG_LEVELS), "warning"),
)  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="TOML file with these options; an argument or a variable such as "
        f"{PREFIX}STORE comes before it",
    )
    for option in OPTIONS:
        default = "" if option.default is None else f" (default: {option.default})"
        parser.add_argument(
            f"--{option.name}",
            metavar=option.metavar,
            help=option.help + default,
            action="append" if option.is_list else "store",
        )


@dataclass(frozen=True)
class Options:
    """The value of each of `OPTIONS`, and in `sources`, by the same names, where it came from.

    `given` has the names of those that somebody chose.
    """

    grpc: str
    http: str
    otlp_http: str | None
    otlp_origin: tuple[str, ...] | None
    default_model: Mapping[str, str] | None
    forward: tuple[ForwardTarget, ...] | None
    store: str
    retain_ns: int | None
    max_bytes: int | None
    query_timeout_ns: int
    model_metrics: bool
    token_file: Path | None
    tls_cert: Path | None
    tls_key: Path | None
    tls_client_ca: Path | None
    log_format: str
    log_level: str
    sources: Mapping[str, str]
    given: frozenset[str]


def resolve(arguments: argparse.Namespace, environ: Mapping[str, str]) -> Options:
    """The value of every option; raises OptionError."""
    path, source = arguments.config, "--config"
    if path is None and environ.get(PREFIX + "CONFIG"):
        path, source = Path(environ[PREFIX + "CONFIG"]), PREFIX + "CONFIG"
    file = {} if path is None else _read(path, source)
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    given: set[str] = set()
    for option in OPTIONS:
        text, source = getattr(arguments, option.key), f"--{option.name}"
        if isinstance(text, list):
            text = ",".join(text)
        if text is None and environ.get(option.variable):
            text, source = environ[option.variable], option.variable
        if text is None and option.name in file:
            text, source = file[option.name], f"{path}: {option.name}"
        if text is None:
            text = option.default
        else:
            given.add(option.field)
        try:
            values[option.field] = None if text is None else option.parse(text)
        except ValueError as error:
            raise OptionError(f"{source}: {error}") from None
        sources[option.field] = source
    return Options(**values, sources=sources, given=frozenset(given))


def _read(path: Path, source: str) -> dict[str, str]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        with path.open("rb") as file:
            text = file.read(_MAX_FILE_BYTES).decode()
        found: dict[str, Any] = tomllib.loads(text)
    except OSError as error:
        raise OptionError(f"{source}: {error}") from error
    except ValueError as error:  # of TOML, or of UTF-8
        raise OptionError(f"{path}: not a TOML file: {error}") from error
    allowed = [option.name for option in OPTIONS]
    for name, value in found.items():
        if name not in allowed:
            raise OptionError(
                f"{path}: {name[:100]}: no such option; expected {', '.join(allowed)}"
            )
        if not isinstance(value, str):
            # The value may be a table that holds what should not be shown.
            kind = type(value).__name__
            raise OptionError(f'{path}: {name}: expected a text in quotes, such as "…", got {kind}')
    return found
