"""What happens in a program that `infertrace run` has started, and in its children.

They find `site/sitecustomize.py` by PYTHONPATH. It has libraries traced once they are imported; at
its end each process that recorded something adds a line to the report that the command prints.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from infertrace.tracer import Tracer

logger = logging.getLogger("infertrace")

INSTRUMENT: Final = "INFERTRACE_INSTRUMENT"
"""Names of integrations with commas between them, or `all`."""
REPORT: Final = "INFERTRACE_REPORT_FILE"
"""Where each process writes its line."""
SITE: Final = Path(__file__).parent / "site"

_ALL: Final = "all"
_tracer: Tracer | None = None
_reported_pid = 0


def environment(environ: Mapping[str, str], names: str | None, report: Path) -> dict[str, str]:
    """The variables of a program that is to be traced. Raises ValueError for a wrong name."""
    _names(names or _ALL)
    paths = [str(SITE), *filter(None, [environ.get("PYTHONPATH")])]
    return {
        "INFERTRACE_FLUSH_ON_SIGTERM": "true",
        # vLLM loads what is installed, whoever starts it.
        **(
            {} if names in (None, _ALL) or "vllm" in _names(names) else {"INFERTRACE_VLLM": "false"}
        ),
        **environ,
        "PYTHONPATH": os.pathsep.join(paths),
        INSTRUMENT: names or _ALL,
        REPORT: str(report),
    }


def begin() -> None:
    """Trace what the environment says, in this process. Never raises."""
    chosen = os.environ.get(INSTRUMENT)
    if not chosen:
        return
    try:
        from infertrace import integrations, lifecycle
        from infertrace.integrations import switch

        lifecycle.call_last(_report)
        switch.when_activated(_make_tracer)
        integrations.instrument(*_names(chosen))
    except Exception as error:
        logger.warning("infertrace run: this process is not traced (%r)", error)


def _names(chosen: str) -> tuple[str, ...]:
    from infertrace.integrations.catalog import INTEGRATIONS

    names = tuple(name.strip() for name in chosen.split(",") if name.strip())
    if names == (_ALL,):
        return ()
    for name in names:
        if name not in INTEGRATIONS:
            raise ValueError(f"expected some of {', '.join(INTEGRATIONS)}, got {name!r}")
    return names


def _make_tracer() -> None:
    """While the main thread runs, which alone can see to it that SIGTERM delivers."""
    global _tracer
    if _tracer is None and threading.current_thread() is threading.main_thread():
        from infertrace.tracer import default_tracer

        _tracer = default_tracer()


def _program(path: Path) -> str:
    """What a person calls it: `app.py`, or `uvicorn` of `python -m uvicorn`."""
    return path.parent.name if path.name == "__main__.py" else path.name


def _report() -> None:
    global _reported_pid
    path = os.environ.get(REPORT)
    if not path or _reported_pid == os.getpid():
        return
    _reported_pid = os.getpid()
    from infertrace.integrations import switch
    from infertrace.tracer import default_tracer

    if not switch.activated() or (_tracer is None and not switch.used()):
        return
    line: dict[str, Any] = {
        "pid": os.getpid(),
        "program": _program(Path(sys.argv[0])),
        "traced": switch.activated(),
        "used": switch.used(),
        "stats": default_tracer().stats(),
    }
    try:
        # In one write, so that the lines of several processes do not mix.
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND)
        try:
            os.write(descriptor, (json.dumps(line) + "\n").encode())
        finally:
            os.close(descriptor)
    except OSError:  # the command has ended before
        pass
