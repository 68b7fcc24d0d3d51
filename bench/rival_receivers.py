"""Receivers of OTLP that others make: those that the tests install on first use, and run.

One that cannot be had is named, with the reason, in the answer.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.environment import REPOSITORY

NAMES = ("rotel", "otelcol", "phoenix")


@functools.cache
def _receivers() -> Any:
    """The module of the tests that has them."""
    sys.path.append(str(REPOSITORY / "tests"))
    import peer_receivers

    return peer_receivers


def missing(names: Iterable[str] = NAMES) -> dict[str, str]:
    """Those that cannot be had here, and why; installs the others."""
    reasons = {}
    for name in names:
        try:
            _kind(name).install()
        except _receivers().peer_programs.NotInstalled as error:
            reasons[name] = str(error)
    return reasons


@contextmanager
def running_rival(name: str, folder: Path) -> Iterator[Any]:
    """A receiver with its addresses `grpc` and `http`, its `pid`, and what it has.

    `folder` is for what it keeps.
    """
    kind = _kind(name)
    rival = kind(folder, "proto") if name == "otelcol" else kind(folder)
    rival.start()
    try:
        yield rival
    finally:
        rival.stop()


def _kind(name: str) -> Any:
    receivers = _receivers()
    return {
        "rotel": receivers.Rotel,
        "otelcol": receivers.OpenTelemetryCollector,
        "phoenix": receivers.Phoenix,
    }[name]
