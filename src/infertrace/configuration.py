"""Settings: explicit argument > INFERTRACE_* > the OpenTelemetry variable > default.

OTEL_EXPORTER_OTLP_* configure exporters that speak OTLP, so they count where ours does. It does
where it is told to, and where they name the only endpoint.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping

from infertrace.log import logger
from infertrace.named_tuple import NamedTuple
from infertrace.otlp import exporter_variables
from infertrace.otlp.endpoint import TRACES_PATH, parse, with_traces_path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Final


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
    gpu_device_index: int | None
    exit_timeout_s: float
    flush_on_sigterm: bool
    sender_process: str
    agent: str | None
    certificate_file: str | None
    client_certificate_file: str | None
    client_key_file: str | None
    token: str | None
    token_file: str | None
    compression: str
    spool_dir: str | None
    protocol: str
    conventions: tuple[str, ...]
    timeout_s: float


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

    def resolve_one(setting: _Setting) -> None:
        value, source = _first(setting, arguments, environ, problems)
        values[setting.name] = value
        sources[setting.name] = source

    resolve_one(_PROTOCOL)
    if values["protocol"] is None:
        _follow_endpoint(arguments, environ, values, sources, problems)
    else:
        resolve_one(_endpoint_setting(values["protocol"]))
    speaks_otlp = values["protocol"] != "infertrace"
    for setting in _SETTINGS:
        resolve_one(setting._replace(sources=setting.sources + setting.of_otlp * speaks_otlp))
    if speaks_otlp and sources["max_batch_bytes"] == "default":
        values["max_batch_bytes"] = _OTLP_BATCH_BYTES
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


def _first(
    setting: _Setting, arguments: Mapping[str, Any], environ: Mapping[str, str], problems: list[str]
) -> tuple[Any, str]:
    """The value of a setting and its source; adds what is wrong with a variable to `problems`."""
    value = arguments.get(setting.name)
    if value is not None:
        return _checked(setting.name, value, setting.check), "argument"
    for variable, read in setting.sources:
        text = environ.get(variable, "").strip()
        if not text:
            continue
        try:
            return _checked(variable, text, read, environ), variable
        except ValueError as error:
            problems.append(str(error))
    return setting.default, "default"


def _follow_endpoint(
    arguments: Mapping[str, Any],
    environ: Mapping[str, str],
    values: dict[str, Any],
    sources: dict[str, str],
    problems: list[str],
) -> None:
    """The endpoint decides on the protocol that nobody has named."""
    found, source = _first(_endpoint_setting("infertrace"), arguments, environ, problems)
    values["endpoint"], values["protocol"] = found, "infertrace"
    sources["endpoint"] = source
    if source != "default":
        return
    if not any(environ.get(name, "").strip() for name in exporter_variables.names("ENDPOINT")):
        return
    protocol, protocol_source = _first(_OTLP_PROTOCOL, {}, environ, problems)
    endpoint = _endpoint_setting(protocol)
    # Ours was looked at above.
    theirs = endpoint._replace(sources=endpoint.sources[1:])
    found, source = _first(theirs, {}, environ, problems)
    if source == "default":
        return
    values["endpoint"], values["protocol"] = found, protocol
    sources["endpoint"] = source
    sources["protocol"] = protocol_source if protocol_source != "default" else source


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
        secret = name.lower().endswith(("headers", "token")) or "@" in str(value)
        shown = "a value not shown here" if secret else repr(value)
        raise _BadValue(f"{name}: {error}, got {shown}") from None


class _Setting(NamedTuple):
    name: str
    check: Callable[[Any], Any]
    """Validates an argument; raises ValueError saying what is expected."""
    default: Any
    sources: tuple[tuple[str, Callable[[str, Mapping[str, str]], Any]], ...]
    """Variables in order of precedence, each with the function that parses it."""
    of_otlp: tuple[tuple[str, Callable[[str, Mapping[str, str]], Any]], ...] = ()
    """Those that follow where OTLP is spoken."""


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
    known = (scheme in ("http", "https") if separator else True) and "@" not in host
    if not (known and colon and host and port.isdecimal() and 0 < int(port) < 65536):
        raise ValueError("expected HOST:PORT, http://HOST:PORT, https://HOST:PORT or file:///PATH")
    return text


def _otlp_grpc_endpoint(value: Any) -> str:
    found = parse(_text(value))
    if found.path.strip("/"):
        raise ValueError("expected HOST:PORT, http://HOST[:PORT] or https://HOST[:PORT]")
    return found._replace(path="").url


def _otlp_http_endpoint(value: Any) -> str:
    """A URL that ends as the specification's does is that of the traces, another is the base."""
    found = parse(_text(value))
    return (found if found.path.endswith(TRACES_PATH) else with_traces_path(found)).url


_ENDPOINTS: Final = {
    "infertrace": (_endpoint, "localhost:4317"),
    "otlp/grpc": (_otlp_grpc_endpoint, "http://localhost:4317"),
    "otlp/http": (_otlp_http_endpoint, "http://localhost:4318/v1/traces"),
}


def _endpoint_setting(protocol: str) -> _Setting:
    """How the endpoint is read where this protocol is spoken."""

    def of(variable: str) -> Callable[[str, Mapping[str, str]], Any]:
        return lambda text, environ: exporter_variables.endpoint(variable, text, protocol, environ)

    check, default = _ENDPOINTS[protocol]
    made = _setting("endpoint", check, default)
    if protocol == "infertrace":
        return made
    theirs = tuple((name, of(name)) for name in exporter_variables.names("ENDPOINT"))
    return made._replace(sources=made.sources + theirs)


def _protocol(value: Any) -> str:
    if value not in _ENDPOINTS:
        raise ValueError(f"expected {', '.join(_ENDPOINTS)}")
    return str(value)


def _conventions(value: Any) -> tuple[str, ...]:
    """Names, as a sequence or with commas between them."""
    from infertrace.otlp import conventions  # its table is for few tracers

    given = value.split(",") if isinstance(value, str) else tuple(value)
    names = tuple(dict.fromkeys(str(name).strip() for name in given))
    conventions.bits(names)
    if not names:
        raise ValueError("expected at least one name")
    return names


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


def _sender_process(value: Any) -> str:
    """Also true and false, which it was before there were three."""
    text = str(value).lower()
    found = {"true": "shared", "1": "shared", "false": "none", "0": "none"}.get(text, text)
    if found not in ("shared", "own", "none"):
        raise ValueError("expected shared, own or none")
    return found


def _agent(value: Any) -> str:
    """The URL of a Unix socket, in its shortest form."""
    text = _text(value)
    if os.name != "posix":
        raise ValueError("an agent needs a POSIX system")
    path = text.removeprefix("unix://")
    if path == text or not path.startswith("/") or path.endswith("/"):
        raise ValueError("expected unix:///PATH")
    if len(os.fsencode(path)) > _MAX_SOCKET_BYTES:
        raise ValueError(f"expected a path of at most {_MAX_SOCKET_BYTES} bytes")
    return text


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
    return _checked_headers(_pairs(value))


def _checked_headers(pairs: Mapping[str, str]) -> Mapping[str, str]:
    """With names in lower case; what both may hold is what gRPC sends."""
    import re

    found = {key.lower(): text for key, text in pairs.items()}
    for key, text in found.items():
        if not (re.fullmatch(_HEADER_NAME, key) and text.isascii() and text.isprintable()):
            raise ValueError(
                "expected names of letters, digits, '-', '_' and '.', and values of printable ASCII"
            )
    return found


def _file(value: Any) -> str:
    """Its absolute path, since the sender process may have another current directory."""
    from pathlib import Path  # slow to load, as `re` is: for few tracers

    path = Path(value)
    try:
        with path.open("rb"):
            return str(path.absolute())
    except OSError as error:
        raise ValueError(f"expected a file that can be read ({error.strerror})") from None


def _directory(value: Any) -> str:
    if os.name != "posix":
        raise ValueError("a spool needs a POSIX system")
    from pathlib import Path

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


def _of_otlp(
    name: str, read: Callable[[str], Any]
) -> tuple[tuple[str, Callable[[str, Mapping[str, str]], Any]], ...]:
    return tuple((variable, _from_text(read)) for variable in exporter_variables.names(name))


# What fits into `sockaddr_un` with a zero at its end (104 bytes, more on Linux), less what a
# socket's name ends with while it is made.
_MAX_SOCKET_BYTES: Final = 103 - len(".new")
_HEADER_NAME: Final = r"[a-z0-9_.-]+"
_KIB: Final = 1024
_MIB: Final = 1024 * _KIB
_HOUR_S: Final = 3600

# What is sent is three or four times as large, and receivers in Go take 4 MiB.
_OTLP_BATCH_BYTES: Final = 256 * _KIB

_PROTOCOL: Final = _setting("protocol", _protocol, None)
_OTLP_PROTOCOL: Final = _Setting(
    "protocol",
    _protocol,
    exporter_variables.DEFAULT_PROTOCOL,
    _of_otlp("PROTOCOL", exporter_variables.protocol),
)
_SETTINGS: Final = (
    _setting("service_name", _text, None, ("OTEL_SERVICE_NAME", _from_text(_text))),
    _setting("resource_attributes", _pairs, {}, ("OTEL_RESOURCE_ATTRIBUTES", _from_text(_pairs))),
    _setting("headers", _headers, {})._replace(
        of_otlp=_of_otlp("HEADERS", lambda text: _checked_headers(exporter_variables.headers(text)))
    ),
    _setting("sample_rate", _number(0, 1), 1.0, ("OTEL_TRACES_SAMPLER", _sampler_share)),
    _setting("enabled", _flag, True, ("OTEL_SDK_DISABLED", lambda text, environ: not _flag(text))),
    _setting("max_buffer_bytes", _integer(64 * _KIB, 1024 * _MIB), 8 * _MIB),
    _setting("max_batch_bytes", _integer(4 * _KIB, 4 * _MIB), _MIB),
    _setting("export_interval_s", _number(0.01, _HOUR_S), 1.0),
    _setting("resource_interval_s", _number(0, _HOUR_S), 1.0),
    _setting("gpu_device_index", _integer(0, 1023), None),
    _setting("exit_timeout_s", _number(0, _HOUR_S), 2.0),
    _setting("flush_on_sigterm", _flag, False),
    _setting("sender_process", _sender_process, "shared"),
    _setting("agent", _agent, None),
    _setting("certificate_file", _file, None)._replace(of_otlp=_of_otlp("CERTIFICATE", _file)),
    _setting("client_certificate_file", _file, None)._replace(
        of_otlp=_of_otlp("CLIENT_CERTIFICATE", _file)
    ),
    _setting("client_key_file", _file, None)._replace(of_otlp=_of_otlp("CLIENT_KEY", _file)),
    _setting("token", _token, None),
    _setting("token_file", _file, None),
    _setting("compression", _compression, "none")._replace(
        of_otlp=_of_otlp("COMPRESSION", _compression)
    ),
    _setting("spool_dir", _directory, None),
    _setting("conventions", _conventions, ("otel",)),
    _setting("timeout_s", _number(0.05, _HOUR_S), 10.0)._replace(
        of_otlp=_of_otlp("TIMEOUT", exporter_variables.timeout_s)
    ),
)
