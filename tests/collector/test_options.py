"""An argument before the environment before the file before the default; and the log."""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from infertrace.collector.forwarding.forward_target import parse_forwards
from infertrace.collector.options import (
    OPTIONS,
    OptionError,
    Options,
    add_arguments,
    resolve,
)
from infertrace.commands.collector_logging import JsonFormatter

DAY = 86_400 * 10**9
SECRET = "correct-horse-battery"


def options(*arguments: str, **environ: str) -> Options:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return resolve(parser.parse_args(arguments), environ)


@pytest.fixture
def config(tmp_path: Path) -> Any:
    path = tmp_path / "collector.toml"

    def write(text: str) -> str:
        path.write_text(text)
        return str(path)

    return write


def test_defaults() -> None:
    found = options()
    assert (found.grpc, found.http) == ("127.0.0.1:4317", "127.0.0.1:8080")
    assert (found.otlp_http, found.otlp_origin) == ("127.0.0.1:4318", None)
    assert not found.given
    assert found.store == "duckdb:///infertrace.duckdb"
    assert (found.retain_ns, found.max_bytes, found.query_timeout_ns) == (None, None, 30 * 10**9)
    assert (found.log_format, found.log_level) == ("text", "warning")
    assert found.token_file is None


VALUES: dict[str, tuple[list[str], list[Any]]] = {
    "grpc": (["[::1]:1", "h:2", "h:3"], ["[::1]:1", "h:2", "h:3"]),
    "http": (["h:1", "h:2", "h:3"], ["h:1", "h:2", "h:3"]),
    "otlp-http": (["h:1", "off", "h:3"], ["h:1", None, "h:3"]),
    "otlp-origin": (
        ["https://a", "https://B:1/, http://c", "*"],
        [("https://a",), ("https://b:1", "http://c"), ("*",)],
    ),
    "default-model": (
        ["vllm=llama", "a=b/c,d=e=f", "s=m"],
        [{"vllm": "llama"}, {"a": "b/c", "d": "e=f"}, {"s": "m"}],
    ),
    "forward": (
        (urls := ["infertrace://a:1", "otlp/grpc://b:2?share=0.5,otlp/http://c", "otlp/grpc://d"]),
        [parse_forwards(url) for url in urls],
    ),
    "store": (["memory:", "duckdb:///x", "postgresql://y"],) * 2,
    "retain": (["7d", "8d", "9d"], [7 * DAY, 8 * DAY, 9 * DAY]),
    "max-bytes": (["20GB", "500MB", "1TB"], [20 * 10**9, 500 * 10**6, 10**12]),
    "model-metrics": (["on", "off", "on"], [True, False, True]),
    "query-timeout": (["1s", "2m", "3h"], [10**9, 120 * 10**9, 3 * 3_600 * 10**9]),
    "log-format": (["json", "text", "json"],) * 2,
    "log-level": (["info", "debug", "error"],) * 2,
    **{
        name: (["a", "b", "c"], [Path("a"), Path("b"), Path("c")])
        for name in ("token-file", "tls-cert", "tls-key", "tls-client-ca")
    },
}


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.name)
def test_where_a_value_comes_from(option: Any, config: Any) -> None:
    (first, second, third), (by_argument, by_environment, by_file) = VALUES[option.name]
    path = config(f'{option.name} = "{third}"')
    argument = (f"--{option.name}", first)
    variable = {f"INFERTRACE_COLLECTOR_{option.key.upper()}": second}

    def value(*arguments: str, **environ: str) -> tuple[Any, str]:
        found = options(*arguments, **environ)
        return getattr(found, option.field), found.sources[option.field]

    named = ("--config", path)
    assert value(*named, *argument, **variable) == (by_argument, argument[0])
    assert value(*named, **variable) == (by_environment, *variable)
    assert value(*named) == (by_file, f"{path}: {option.name}")
    assert value(INFERTRACE_COLLECTOR_CONFIG=path)[0] == by_file
    assert value(**dict.fromkeys(variable, "")) == (
        None if option.default is None else option.parse(option.default),
        argument[0],
    )


@pytest.mark.parametrize(
    ("name", "wrong", "expected"),
    [
        ("retain", "7", "expected a time such as"),
        ("retain", "0d", "expected a time such as"),
        ("model-metrics", "yes", "expected on or off"),
        ("query-timeout", "1.5", "expected a time such as"),
        ("max-bytes", "20", "expected a size such as"),
        ("max-bytes", "-1GB", "expected a size such as"),
        ("http", "80", "expected HOST:PORT"),
        ("otlp-http", "on", "expected HOST:PORT with a port from 0 to 65535, got 'on', or off"),
        ("otlp-origin", "app.example.com", "expected origins such as https://app.example.com,"),
        ("otlp-origin", "https://a/path", "expected origins such as https://app.example.com,"),
        ("default-model", "llama", "expected SERVICE=MODEL, with commas between them, got 'llama'"),
        ("default-model", "vllm=", "expected SERVICE=MODEL, with commas between them, got 'vllm='"),
        ("log-format", "xml", "expected text or json, got 'xml'"),
        ("log-level", "loud", "expected error or warning or info or debug, got 'loud'"),
    ],
)
def test_a_wrong_value_names_its_source(name: str, wrong: str, expected: str, config: Any) -> None:
    variable = f"INFERTRACE_COLLECTOR_{name.upper().replace('-', '_')}"
    path = config(f'{name} = "{wrong}"')
    for source, given in (
        (f"--{name}", lambda: options(f"--{name}={wrong}")),
        (variable, lambda: options(**{variable: wrong})),
        (f"{path}: {name}", lambda: options("--config", path)),
    ):
        with pytest.raises(OptionError) as failure:
            given()
        assert str(failure.value).startswith(f"{source}: {expected}")


def test_a_list_is_given_once_or_several_times() -> None:
    found = options("--otlp-origin=https://a,https://b", "--otlp-origin=https://c")
    assert found.otlp_origin == ("https://a", "https://b", "https://c")
    assert found.given == {"otlp_origin"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("color = 'red'", "color: no such option; expected grpc, http, store,"),
        ("grpc = 4317", "grpc: expected a text in quotes, such as"),
        ("[store]\npassword = 'hush'", "store: expected a text in quotes, such as"),
        ("grpc: h:1", "not a TOML file: "),
        ("\x00", "not a TOML file: "),
    ],
)
def test_a_wrong_file(text: str, expected: str, config: Any) -> None:
    path = config(text)
    with pytest.raises(OptionError) as failure:
        options("--config", path)
    assert str(failure.value).startswith(f"{path}: {expected}")
    assert "hush" not in str(failure.value)


def test_a_file_that_is_not_there() -> None:
    with pytest.raises(OptionError, match=r"^--config: .*No such file"):
        options("--config", "/no/such.toml")
    with pytest.raises(OptionError, match=r"^INFERTRACE_COLLECTOR_CONFIG: .*No such file"):
        options(INFERTRACE_COLLECTOR_CONFIG="/no/such.toml")


def test_a_collector_of_a_file_and_the_environment(config: Any, tmp_path: Path) -> None:
    """A real process, which logs JSON, and no secret."""
    token = tmp_path / "token"
    token.write_text(SECRET)
    path = config('grpc = "127.0.0.1:0"\nhttp = "0.0.0.0:1"\nlog-level = "info"')
    environ = {
        **os.environ,
        "INFERTRACE_COLLECTOR_CONFIG": path,
        "INFERTRACE_COLLECTOR_HTTP": "127.0.0.1:0",
        "INFERTRACE_COLLECTOR_LOG_FORMAT": "json",
        "INFERTRACE_COLLECTOR_TOKEN_FILE": str(token),
    }
    command = [sys.executable, "-m", "infertrace", "collector", "--store", "memory:"]
    process = subprocess.Popen(
        command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert "store memory:" in process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0
    lines = [json.loads(line) for line in errors.splitlines()]
    assert [line["message"] for line in lines if line["logger"].startswith("infertrace.")] == [
        "ready",
        "SIGTERM: finishing what is in progress",
        "stopped",
    ]
    assert {line["level"] for line in lines} == {"info"}
    assert SECRET not in errors


def test_a_password_is_not_logged() -> None:
    url = f"postgresql://me:{SECRET}@127.0.0.1:1/spans?password={SECRET}"
    for store in (url, f"mysql://me:{SECRET}@h/x"):
        done = subprocess.run(
            [sys.executable, "-m", "infertrace", "collector", "--grpc", "127.0.0.1:0"],
            env={
                **os.environ,
                "INFERTRACE_COLLECTOR_HTTP": "127.0.0.1:0",
                "INFERTRACE_COLLECTOR_STORE": store,
                "INFERTRACE_COLLECTOR_LOG_LEVEL": "debug",
                "INFERTRACE_COLLECTOR_LOG_FORMAT": "json",
            },
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 2
        assert SECRET not in done.stdout + done.stderr
        assert done.stderr.splitlines()[-1].startswith("infertrace collector: ")
    assert "INFERTRACE_COLLECTOR_STORE: expected duckdb:///PATH" in done.stderr


def test_a_line_of_json() -> None:
    try:
        raise ValueError("a\nb")
    except ValueError:
        record = logging.LogRecord(
            "infertrace.x", logging.ERROR, "x.py", 1, "lost %d\n", (3,), sys.exc_info()
        )
    text = JsonFormatter().format(record)
    assert "\n" not in text
    line = json.loads(text)
    assert (line["level"], line["logger"], line["message"]) == ("error", "infertrace.x", "lost 3\n")
    assert line["exception"].endswith("ValueError: a\nb")
    assert line["time"].endswith("Z")
