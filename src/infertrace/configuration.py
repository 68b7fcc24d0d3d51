"""Settings: explicit argument > INFERTRACE_* > the OpenTelemetry variable > default.

OTEL_EXPORTER_OTLP_* configure exporters that speak OTLP. Ours does not, so it ignores them.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

logger = logging.getLogger("infertrace")

# Each problem is logged once, although a process may make many tracers.
_logged_problems: set[str] = set()


class Settings(NamedTuple):
    """How a tracer works. Times in seconds, sizes in bytes."""

    endpoint: str
    service_name: str
    resource_attributes: Mapping[str, str]
    headers: Mapping[str, str]
    sample_rate: float
    enabled: bool
    max_buffer_bytes: int
    max_batch_bytes: int
    export_interval_s: float
    resource_interval_s: float
    gpu_device_index: int
    exit_timeout_s: float
    flush_on_sigterm: bool
    sender_process: bool
    certificate_file: str | None
    client_certificate_file: str | None
    client_key_file: str | None
    token: str | None
    token_file: str | None
    compression: str
    spool_dir: str | None


def resolve(arguments: Mapping[str, Any], environ: Mapping[str, str]) -> Settings:
    """Resolve every setting; an argument of None counts as not given.

    Raises ValueError for a bad argument: names it, what it expects and what it got. A bad
    variable, which may be meant for another program, logs one warning, and the next source in
    the order counts.
    """
    settings, _, problems = resolve_with_sources(arguments, environ)
    for problem in problems:
        if problem not in _logged_problems:
            _logged_problems.add(problem)
            logger.warning("%s; it is ignored", problem)
    return settings


def resolve_with_sources(
    arguments: Mapping[str, Any], environ: Mapping[str, str]
) -> tuple[Settings, Mapping[str, str], list[str]]:
    """The settings; the source of each (`argument`, `default` or a variable); bad variables."""
    values: dict[str, Any] = {}
    sources = dict.fromkeys(Settings._fields, "default")
    problems: list[str] = []
    for setting in _SETTINGS:
        value = arguments.get(setting.name)
        values[setting.name] = setting.default
        if value is not None:
            values[setting.name] = _checked(setting.name, value, setting.check)
            sources[setting.name] = "argument"
            continue
        for variable, read in setting.sources:
            text = environ.get(variable, "").strip()
            if not text:
                continue
            try:
                values[setting.name] = _checked(variable, text, read, environ)
            except ValueError as error:
                problems.append(str(error))
                continue
            sources[setting.name] = variable
            break
    if not values["service_name"]:
        attributes = values["resource_attributes"]
        values["service_name"] = attributes.get("service.name", "unknown_service")
    while conflict := _conflict(values):
        names, message = conflict
        from_variables = [name for name in names if sources[name] not in ("argument", "default")]
        if not from_variables:
            raise ValueError(message)
        problems.append(f"{sources[from_variables[0]]}: {message}")
        for name in from_variables:
            values[name], sources[name] = None, "default"
    return Settings(**values), sources, problems


def _conflict(values: Mapping[str, Any]) -> tuple[tuple[str, ...], str] | None:
    """The settings that cannot be combined and the reason, or None."""
    pair = ("client_certificate_file", "client_key_file")
    if bool(values[pair[0]]) != bool(values[pair[1]]):
        return pair, "client_certificate_file and client_key_file: expected both or neither"
    if values["token"] and values["token_file"]:
        return ("token", "token_file"), "token and token_file: expected one of them, got both"
    for name in ("certificate_file", "client_certificate_file"):
        if values[name] and not values["endpoint"].startswith("https://"):
            return (name,), f"{name}: expected an endpoint https://HOST:PORT with it"
    return None


class _BadValue(ValueError):
    """Names the argument or the variable, what it expects and what it got."""


def _checked(name: str, value: Any, check: Callable[..., Any], *rest: Any) -> Any:
    try:
        return check(value, *rest)
    except _BadValue:  # already names another variable, on which this one depends
        raise
    except (TypeError, ValueError) as error:
        # A header is often a credential: the error must not print it.
        secret = name.lower().endswith(("headers", "token"))
        shown = "a value not shown here" if secret else repr(value)
        raise _BadValue(f"{name}: {error}, got {shown}") from None


class _Setting(NamedTuple):
    name: str
    check: Callable[[Any], Any]
    """Validates an argument; raises ValueError saying what is expected."""
    default: Any
    sources: tuple[tuple[str, Callable[[str, Mapping[str, str]], Any]], ...]
    """Variables in order of precedence, each with the function that parses it."""


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError("expected a non-empty text")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError("expected a text without lone surrogates") from None
    return value


def _endpoint(value: Any) -> str:
    text = _text(value)
    scheme, separator, rest = text.rpartition("://")
    if scheme == "file" and rest.startswith("/") and not rest.endswith("/"):
        return text
    host, colon, port = rest.rstrip("/").rpartition(":")
    known = scheme in ("http", "https") if separator else True
    if not (known and colon and host and port.isdecimal() and 0 < int(port) < 65536):
        raise ValueError("expected HOST:PORT, http://HOST:PORT, https://HOST:PORT or file:///PATH")
    return text


def _number(low: float, high: float) -> Callable[[Any], float]:
    def check(value: Any) -> float:
        number = math.nan if isinstance(value, bool) else float(value)
        if not low <= number <= high:
            raise ValueError
        return number

    return _saying(f"expected a number from {low:g} to {high:g}", check)


def _integer(low: int, high: int) -> Callable[[Any], int]:
    def check(value: Any) -> int:
        number = -1 if isinstance(value, (bool, float)) else int(value)
        if not low <= number <= high:
            raise ValueError
        return number

    return _saying(f"expected an integer from {low} to {high}", check)


def _flag(value: Any) -> bool:
    truth = {"true": True, "1": True, "false": False, "0": False}.get(str(value).lower())
    if truth is None:
        raise ValueError("expected true or false")
    return truth


def _pairs(value: Any) -> Mapping[str, str]:
    """A mapping of texts, or `key=value,key=value` with percent-encoded values."""
    if isinstance(value, Mapping):
        if not all(isinstance(text, str) for pair in value.items() for text in pair):
            raise ValueError("expected texts as keys and values")
        return dict(value)
    from urllib.parse import unquote  # not at the top: few tracers need it, and it is slow to load

    pairs = {}
    for part in _text(value).split(","):
        key, equals, text = part.partition("=")
        if part.strip() and not (equals and key.strip()):
            raise ValueError("expected key=value,key=value")
        if part.strip():
            pairs[key.strip()] = unquote(text.strip())
    return pairs


def _headers(value: Any) -> Mapping[str, str]:
    return {key.lower(): text for key, text in _pairs(value).items()}


def _file(value: Any) -> str:
    """Its absolute path, since the sender process may have another current directory."""
    path = Path(value)
    try:
        with path.open("rb"):
            return str(path.absolute())
    except OSError as error:
        raise ValueError(f"expected a file that can be read ({error.strerror})") from None


def _directory(value: Any) -> str:
    if os.name != "posix":
        raise ValueError("a spool needs a POSIX system")
    path = Path(value)
    if path.exists() and not path.is_dir():
        raise ValueError("expected a directory, or a name for one")
    return str(path.absolute())


def _token(value: Any) -> str:
    token = _text(value).strip()
    if not token.isascii() or not token.isprintable() or " " in token:
        raise ValueError("expected printable ASCII without spaces")
    return token


def _compression(value: Any) -> str:
    if value not in ("none", "gzip"):
        raise ValueError("expected none or gzip")
    return str(value)


def _saying(expected: str, check: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def checked(value: Any) -> Any:
        try:
            return check(value)
        except (TypeError, ValueError):
            raise ValueError(expected) from None

    return checked


def _from_text(check: Callable[[Any], Any]) -> Callable[[str, Mapping[str, str]], Any]:
    return lambda text, environ: check(text)


def _sampler_share(name: str, environ: Mapping[str, str]) -> float:
    """The sample rate that OTEL_TRACES_SAMPLER and OTEL_TRACES_SAMPLER_ARG mean.

    Every sampler is parent-based here: a trace is sampled whole or not at all.
    """
    kind = name.removeprefix("parentbased_")
    if kind == "always_on":
        return 1.0
    if kind == "always_off":
        return 0.0
    if kind != "traceidratio":
        raise ValueError(
            "expected always_on, always_off or traceidratio, with or without parentbased_"
        )
    argument = environ.get("OTEL_TRACES_SAMPLER_ARG", "").strip()
    share = _checked("OTEL_TRACES_SAMPLER_ARG", argument, _number(0, 1)) if argument else 1.0
    return float(share)


def _setting(
    name: str,
    check: Callable[[Any], Any],
    default: Any,
    *opentelemetry: tuple[str, Callable[[str, Mapping[str, str]], Any]],
) -> _Setting:
    own = (f"INFERTRACE_{name.upper()}", _from_text(check))
    return _Setting(name, check, default, (own, *opentelemetry))


_KIB: Final = 1024
_MIB: Final = 1024 * _KIB
_HOUR_S: Final = 3600

_SETTINGS: Final = (
    _setting("endpoint", _endpoint, "localhost:4317"),
    _setting("service_name", _text, None, ("OTEL_SERVICE_NAME", _from_text(_text))),
    _setting("resource_attributes", _pairs, {}, ("OTEL_RESOURCE_ATTRIBUTES", _from_text(_pairs))),
    _setting("headers", _headers, {}),
    _setting("sample_rate", _number(0, 1), 1.0, ("OTEL_TRACES_SAMPLER", _sampler_share)),
    _setting("enabled", _flag, True, ("OTEL_SDK_DISABLED", lambda text, environ: not _flag(text))),
    _setting("max_buffer_bytes", _integer(64 * _KIB, 1024 * _MIB), 8 * _MIB),
    _setting("max_batch_bytes", _integer(4 * _KIB, 4 * _MIB), _MIB),
    _setting("export_interval_s", _number(0.01, _HOUR_S), 1.0),
    _setting("resource_interval_s", _number(0, _HOUR_S), 1.0),
    _setting("gpu_device_index", _integer(0, 1023), 0),
    _setting("exit_timeout_s", _number(0, _HOUR_S), 2.0),
    _setting("flush_on_sigterm", _flag, False),
    _setting("sender_process", _flag, True),
    _setting("certificate_file", _file, None),
    _setting("client_certificate_file", _file, None),
    _setting("client_key_file", _file, None),
    _setting("token", _token, None),
    _setting("token_file", _file, None),
    _setting("compression", _compression, "none"),
    _setting("spool_dir", _directory, None),
)
