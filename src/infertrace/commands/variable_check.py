"""Finds environment variables that look like ours but that infertrace ignores."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from infertrace.commands.finding import NOTE, Finding
from infertrace.otlp import exporter_variables

if TYPE_CHECKING:
    from infertrace.configuration import Settings

_PREFIX: Final = "INFERTRACE_"
_OF_THE_BUILD: Final = ("INFERTRACE_PURE", "INFERTRACE_REQUIRE_NATIVE")
_ALIKE: Final = 0.88  # how similar a name has to be to one of ours, 0 to 1
_ALIKE_ENDS: Final = 0.6  # the same for the part after the prefix


def check_variables(environ: Mapping[str, str]) -> Iterator[Finding]:
    """A note on each variable that looks like one of ours but is none, with the nearest of ours."""
    known = _known()
    for name in sorted(environ):
        if name in known:
            continue
        upper = name.upper()
        ours = upper.startswith(_PREFIX)
        nearest = _nearest(upper, known, _ALIKE)
        if ours and not nearest:
            ends = {other.removeprefix(_PREFIX): other for other in known}
            nearest = ends.get(_nearest(upper.removeprefix(_PREFIX), list(ends), _ALIKE_ENDS), "")
        if nearest:
            yield Finding(f"variable, {name}", NOTE, f"no such variable: {nearest} may be meant")
        elif ours:
            yield Finding(f"variable, {name}", NOTE, "infertrace has no such variable")


def check_opentelemetry(
    environ: Mapping[str, str], settings: Settings, sources: Mapping[str, str]
) -> Iterator[Finding]:
    """A note if OpenTelemetry's variables name an endpoint and another one counts."""
    for name in exporter_variables.names("ENDPOINT"):
        if environ.get(name) and settings.protocol == "infertrace":
            source = next(
                (sources[it] for it in ("protocol", "endpoint") if sources[it] != "default"),
                "default",
            )
            detail = f"ignored: where spans go is said by another ({source})"
            yield Finding(f"variable, {name}", NOTE, detail)


def _nearest(name: str, known: Sequence[str], alike: float) -> str:
    return next(iter(difflib.get_close_matches(name, known, 1, alike)), "")


def _known() -> list[str]:
    from infertrace import backend, program
    from infertrace.collector import options as collector_options
    from infertrace.configuration import Settings

    return [
        *(f"{_PREFIX}{name.upper()}" for name in Settings._fields),
        *(option.variable for option in collector_options.OPTIONS),
        f"{collector_options.PREFIX}CONFIG",
        backend.VARIABLE,
        program.INSTRUMENT,
        program.REPORT,
        *_OF_THE_BUILD,
    ]
