"""`infertrace doctor`: says whether spans get from here to the collector, and why not."""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import socket
import time
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Final

from infertrace.commands.endpoint_check import address, port_hint
from infertrace.commands.finding import NOTE, OK, PROBLEM, Finding
from infertrace.commands.gpu_check import check_gpus
from infertrace.commands.installation_check import check_installation
from infertrace.commands.sender_check import check_sender
from infertrace.commands.variable_check import check_opentelemetry, check_variables

if TYPE_CHECKING:
    from infertrace.configuration import Settings

_SECRET: Final = ("headers", "token")
_DISTRIBUTIONS: Final = ("grpcio", "protobuf", "nvidia-ml-py")
_OLDEST_YEAR: Final = 2024  # a clock that shows an earlier year has not been set
_MODEL: Final = "infertrace-doctor"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the command."""
    parser.add_argument("--endpoint", metavar="HOST:PORT", help="instead of the configured one")
    parser.add_argument("--protocol", help="infertrace, otlp/grpc or otlp/http, instead of it")
    parser.add_argument(
        "--timeout",
        type=float,
        default=5.0,
        metavar="SECONDS",
        help="how long to wait for the collector (default: %(default)g)",
    )
    parser.add_argument("--json", action="store_true", help="print a JSON array of the findings")


def run(options: argparse.Namespace) -> int:
    """Check everything; returns 0 if spans arrive, 1 if something prevents that."""
    findings = []
    given = {"endpoint": options.endpoint, "protocol": options.protocol}
    for finding in examine(given, options.timeout):
        findings.append(finding)
        if not options.json:
            print(f"{finding.state:<8} {finding.check}: {finding.detail}", flush=True)
    if options.json:
        print(json.dumps([finding._asdict() for finding in findings], indent=2))
    return int(any(finding.state == PROBLEM for finding in findings))


def examine(given: Mapping[str, str | None], timeout_s: float) -> Iterator[Finding]:
    """All findings, in the order of a span's path to the collector.

    given: arguments of `Tracer`; None is left out.
    """
    installation = check_installation()
    yield installation
    if installation.state == PROBLEM:
        return
    from infertrace.configuration import resolve_with_sources

    yield _versions()
    yield _backend()
    yield _clock()
    yield from check_variables(os.environ)
    try:
        settings, sources, problems = resolve_with_sources(given, os.environ)
    except ValueError as error:
        yield Finding("configuration", PROBLEM, str(error))
        return
    yield from check_opentelemetry(os.environ, settings, sources)
    for problem in problems:
        yield Finding("configuration", PROBLEM, f"{problem}; it is ignored")
    for name, source in sources.items():
        value = getattr(settings, name)
        shown = "(not shown)" if value and name in _SECRET else repr(value)
        yield Finding(f"configuration, {name}", OK, f"{shown} ({source})")
    if not settings.enabled:
        yield Finding("tracing", PROBLEM, f"switched off by {sources['enabled']}")
        return
    yield from check_gpus(settings)
    if settings.endpoint.startswith("file:"):
        yield from _test_span(given, timeout_s)
        return
    yield from check_sender(settings)
    yield _spool(settings)
    reached = _reach(settings, timeout_s)
    yield reached
    if reached.state != PROBLEM:
        # Not at the top: it loads what an incomplete installation lacks.
        from infertrace.commands.protocol_check import check_protocol

        yield check_protocol(settings, timeout_s)
        yield from _test_span(given, timeout_s)


def _versions() -> Finding:
    import infertrace

    versions = [f"infertrace {infertrace.__version__}", f"Python {platform.python_version()}"]
    for name in _DISTRIBUTIONS:
        try:
            versions.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            versions.append(f"no {name}")
    return Finding("versions", OK, ", ".join((*versions, platform.platform())))


def _backend() -> Finding:
    from infertrace import backend

    choice = os.environ.get(backend.VARIABLE)
    if backend.selected.NAME == "native":
        return Finding("backend", OK, "native")
    if choice == "pure":
        return Finding("backend", NOTE, f"pure: {backend.VARIABLE} says so")
    try:
        backend.select("native")
    except ImportError as error:
        return Finding("backend", NOTE, f"pure: the compiled one does not load: {error}")
    return Finding("backend", OK, "pure")


def _clock() -> Finding:
    now = datetime.datetime.now(datetime.timezone.utc)
    monotonic = time.get_clock_info("monotonic")
    detail = f"{now.isoformat(timespec='seconds')}; spans are timed to {monotonic.resolution:g} s"
    if now.year < _OLDEST_YEAR:
        return Finding("clock", PROBLEM, f"{detail}: it has not been set")
    return Finding("clock", OK, detail)


def _spool(settings: Settings) -> Finding:
    if settings.spool_dir is None:
        return Finding("spool", NOTE, "none: what is not delivered ends with the process")
    from infertrace.buffering.spool_reader import left_in

    directory = Path(settings.spool_dir)
    if not os.access(directory if directory.exists() else directory.parent, os.W_OK):
        return Finding("spool", PROBLEM, f"{directory} cannot be written to")
    return Finding("spool", OK, f"{directory} holds {len(left_in(directory))} spools")


def _reach(settings: Settings, timeout_s: float) -> Finding:
    try:
        socket.create_connection(address(settings), timeout_s).close()
    except OSError as error:
        detail = f"{settings.endpoint} cannot be reached: {error}{port_hint(settings)}"
        return Finding("endpoint", PROBLEM, detail)
    return Finding("endpoint", OK, f"{settings.endpoint} takes connections")


def _test_span(given: Mapping[str, str | None], timeout_s: float) -> Iterator[Finding]:
    from infertrace import Tracer

    tracer = Tracer(given["endpoint"], protocol=given["protocol"], export_interval_s=0.05)
    with tracer.start_span(_MODEL, "doctor") as span:
        span.set_tag("infertrace.test", "true")
    tracer.flush(timeout_s)
    stats = tracer.stats()
    tracer.shutdown(timeout_s)
    lost = ", ".join(stats["dropped"]) or "no answer in time"
    if stats["delivered"]:
        yield Finding("test span", OK, f"stored as a span of model {_MODEL}")
    elif stats["produced"] == 0:
        yield Finding("test span", NOTE, "not sampled: sample_rate left it out")
    else:
        yield Finding("test span", PROBLEM, f"not accepted: {lost}")
    failures = stats["thread_failures"]
    yield Finding(
        "background threads",
        PROBLEM if failures else OK,
        f"{failures} errors that nobody foresaw, of which the log has the first"
        if failures
        else "no error",
    )
