"""Settings: precedence, OpenTelemetry's variables, and errors that name what was wrong."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infertrace import configuration
from infertrace.configuration import resolve, resolve_with_sources
from infertrace.testing import SpanRecorder


def test_defaults() -> None:
    settings = resolve({}, {})
    assert settings.endpoint == "localhost:4317"
    assert settings.service_name == "unknown_service"
    assert settings.sample_rate == 1.0
    assert settings.enabled is True
    assert settings.max_buffer_bytes == 8 * 1024 * 1024


def test_precedence() -> None:
    environ = {"OTEL_SERVICE_NAME": "otel"}
    assert resolve({}, environ).service_name == "otel"
    environ["INFERTRACE_SERVICE_NAME"] = "own"
    assert resolve({}, environ).service_name == "own"
    assert resolve({"service_name": "argument"}, environ).service_name == "argument"
    assert resolve({"service_name": None}, {"INFERTRACE_SERVICE_NAME": " "}).service_name == (
        "unknown_service"
    )


def test_opentelemetry_variables() -> None:
    settings = resolve(
        {},
        {
            "OTEL_RESOURCE_ATTRIBUTES": "service.name=from%20resource, host.arch = arm64,",
            "OTEL_TRACES_SAMPLER": "parentbased_traceidratio",
            "OTEL_TRACES_SAMPLER_ARG": "0.25",
            "OTEL_SDK_DISABLED": "true",
        },
    )
    assert settings.service_name == "from resource"
    assert settings.resource_attributes["host.arch"] == "arm64"
    assert settings.sample_rate == 0.25
    assert settings.enabled is False


@pytest.mark.parametrize(
    ("name", "rate"),
    [
        ("always_on", 1.0),
        ("always_off", 0.0),
        ("traceidratio", 1.0),
        ("parentbased_always_on", 1.0),
        ("parentbased_always_off", 0.0),
    ],
)
def test_samplers(name: str, rate: float) -> None:
    assert resolve({}, {"OTEL_TRACES_SAMPLER": name}).sample_rate == rate


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"endpoint": "nowhere"}, "endpoint: expected HOST:PORT, .*got 'nowhere'"),
        ({"endpoint": "ftp://host:1"}, "endpoint: expected HOST:PORT"),
        ({"endpoint": "host:99999"}, "endpoint: expected HOST:PORT"),
        ({"endpoint": "http://host:1/path"}, "endpoint: expected HOST:PORT"),
        ({"sample_rate": 1.5}, "sample_rate: expected a number from 0 to 1, got 1.5"),
        ({"sample_rate": True}, "sample_rate: expected a number from 0 to 1, got True"),
        ({"max_buffer_bytes": 10}, "max_buffer_bytes: expected an integer from 65536 to"),
        ({"max_buffer_bytes": 1e6}, "max_buffer_bytes: expected an integer"),
        ({"service_name": ""}, "service_name: expected a non-empty text, got ''"),
        ({"service_name": 7}, "service_name: expected a non-empty text, got 7"),
        ({"service_name": "\ud800"}, "service_name: expected a text without lone surrogates"),
        ({"resource_attributes": {"a": 1}}, "resource_attributes: expected texts"),
        ({"export_interval_s": 0}, "export_interval_s: expected a number from 0.01 to 3600"),
    ],
)
def test_a_bad_argument_raises(arguments: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        resolve(arguments, {})


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({"INFERTRACE_ENDPOINT": ":4317"}, "INFERTRACE_ENDPOINT: expected HOST:PORT"),
        ({"INFERTRACE_SAMPLE_RATE": "abc"}, "INFERTRACE_SAMPLE_RATE: .*got 'abc'"),
        ({"OTEL_TRACES_SAMPLER": "xray"}, "OTEL_TRACES_SAMPLER: expected always_on"),
        (
            {"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "2"},
            "OTEL_TRACES_SAMPLER_ARG: expected a number from 0 to 1, got '2'",
        ),
        ({"INFERTRACE_ENABLED": "maybe"}, "INFERTRACE_ENABLED: expected true or false"),
        ({"OTEL_RESOURCE_ATTRIBUTES": "a"}, "OTEL_RESOURCE_ATTRIBUTES: expected key=value"),
        ({"INFERTRACE_SERVICE_NAME": "caf\udce9"}, "INFERTRACE_SERVICE_NAME: .*surrogates"),
        ({"INFERTRACE_CLIENT_KEY_FILE": __file__}, "INFERTRACE_CLIENT_KEY_FILE: .*both or neither"),
        ({"INFERTRACE_CERTIFICATE_FILE": __file__}, "INFERTRACE_CERTIFICATE_FILE: .*https://"),
    ],
)
def test_a_bad_variable_is_one_warning_and_the_default(
    environ: Any, message: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(configuration, "_logged_problems", set())
    for _ in range(3):
        assert resolve({}, environ) == resolve({}, {})
    (said,) = caplog.messages
    assert re.match(message, said)
    assert said.endswith("; it is ignored")


def test_a_bad_variable_leaves_the_next_one_its_turn() -> None:
    environ = {"INFERTRACE_SAMPLE_RATE": "7", "OTEL_TRACES_SAMPLER": "always_off"}
    assert resolve({}, environ).sample_rate == 0.0


def test_an_argument_goes_before_a_variable_that_cannot_be_with_it() -> None:
    settings = resolve({"token": "mine"}, {"INFERTRACE_TOKEN_FILE": __file__})
    assert (settings.token, settings.token_file) == ("mine", None)


def test_a_header_is_not_printed(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(ValueError, match="a value not shown here"):
        resolve({"headers": {"authorization": 7}}, {})
    resolve({}, {"INFERTRACE_HEADERS": "topsecret"})
    assert "a value not shown here" in caplog.text
    assert "topsecret" not in caplog.text


@given(st.dictionaries(st.sampled_from(list(resolve({}, {})._fields)), st.text(max_size=20)))
def test_any_text_in_the_environment_is_taken_or_named(drawn: dict[str, str]) -> None:
    environ = {f"INFERTRACE_{name.upper()}": text for name, text in drawn.items()}
    _, _, problems = resolve_with_sources({}, environ)
    assert {problem.split(":")[0] for problem in problems} <= environ.keys()


def test_configure_refuses_as_a_whole(tracer: Any, recorded_spans: SpanRecorder) -> None:
    recorded_spans.capture(tracer)
    with pytest.raises(ValueError, match="sample_rate"):
        tracer.configure(service_name="new", sample_rate=7)
    tracer.start_span("m").end()
    assert recorded_spans.one().service_name == "tests"
    with pytest.raises(TypeError, match="'servicename' is not a setting; expected one of endpoint"):
        tracer.configure(servicename="x")
    with pytest.raises(ValueError, match="max_buffer_bytes: can only be set"):
        tracer.configure(max_buffer_bytes=1 << 20)


def test_a_disabled_tracer_needs_no_collector(new_tracer: Any) -> None:
    tracer = new_tracer("localhost:1", enabled=False)
    with tracer.start_span("m") as span:
        assert not span.is_recording
    assert tracer.flush(0)
    assert tracer.shutdown(0)
    assert tracer.stats()["produced"] == 0


def test_secrets_are_not_shown() -> None:
    for arguments in ({"token": "s3 cret"}, {"headers": "s3 cret"}):
        with pytest.raises(ValueError, match="a value not shown here") as caught:
            resolve(arguments, {})
        assert "s3" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"certificate_file": __file__}, "certificate_file: expected an endpoint https://"),
        ({"client_key_file": __file__}, "expected both or neither"),
        ({"token": "a", "token_file": __file__}, "token and token_file: expected one of them"),
        ({"token_file": "/nowhere"}, r"token_file: expected a file that can be read \(No such"),
        ({"compression": "zstd"}, "compression: expected none or gzip, got 'zstd'"),
        ({"agent": "/run/agent.sock"}, "agent: expected unix:///PATH, got '/run/agent.sock'"),
        ({"agent": "unix://agent.sock"}, "agent: expected unix:///PATH"),
        ({"agent": "unix:///"}, "agent: expected unix:///PATH"),
        ({"agent": "unix:///" + "x" * 99}, "agent: expected a path of at most 99 bytes"),
        ({"sender_process": "two"}, "sender_process: expected shared, own or none, got 'two'"),
    ],
)
def test_connections(arguments: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        resolve(arguments, {})


def test_files_are_absolute(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "token").write_text("t")
    monkeypatch.chdir(tmp_path)
    assert resolve({"token_file": "token"}, {}).token_file == str(tmp_path / "token")


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        *((value, "shared") for value in (True, "true", "1", "shared", "SHARED", None)),
        *((value, "none") for value in (False, "false", "0", "none")),
        ("own", "own"),
    ],
)
def test_who_sends_is_a_choice_of_three_and_was_one_of_two(given: object, meant: str) -> None:
    assert resolve({"sender_process": given}, {}).sender_process == meant
    variables = {} if given is None else {"INFERTRACE_SENDER_PROCESS": str(given)}
    assert resolve({}, variables).sender_process == meant
