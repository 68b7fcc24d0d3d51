"""`infertrace why`: says why a request was slow, as a collector that has its spans finds it."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator, Mapping
from typing import Any, Final

from infertrace.commands.collector_answers import (
    CollectorError,
    add_address,
    answer_json,
    own_token,
)
from infertrace.exporting.log_text import one_line

USAGE_ERROR: Final = 2
_TRACE_ID: Final = re.compile(r"[0-9a-fA-F]{32}")
_WIDTH: Final = 78


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the command."""
    parser.add_argument(
        "trace_id", type=_trace_id, metavar="TRACE_ID", help="32 hexadecimal digits"
    )
    add_address(parser)
    parser.add_argument(
        "--json", action="store_true", help="print the answer of the collector as it is"
    )


def run(args: argparse.Namespace) -> int:
    """Print the answer; returns 0, or 1 where the collector has none."""
    try:
        answer = ask(args.http, args.trace_id, own_token())
    except CollectorError as error:
        print(f"infertrace: {one_line(str(error))}", file=sys.stderr)
        return 1
    if args.json:
        json.dump(answer, sys.stdout, indent=2, ensure_ascii=False)
        print()
    else:
        print("\n".join(sentences(answer)))
    return 0


def ask(http: str, trace_id: str, token: str | None = None) -> dict[str, Any]:
    """What the collector at an address answers about a trace; raises CollectorError."""
    found: dict[str, Any] = answer_json(http, f"/traces/{trace_id}/why", token=token)
    return found


def sentences(answer: Mapping[str, Any]) -> Iterator[str]:
    """An answer as lines of text; what senders named cannot steer the terminal."""
    return map(one_line, _lines(answer))


def _lines(answer: Mapping[str, Any]) -> Iterator[str]:
    name = answer.get("request_id", answer["span_id"])
    yield f"Request {name} of {answer['model_name']}, {answer['start_time']}"
    yield f"(trace {answer['trace_id']})"
    yield answer["summary"]
    yield _phases(answer)
    for number, finding in enumerate(answer["findings"], 1):
        yield ""
        yield (
            f"{number}. {finding['cause']}: {finding['explained_ms']:,.0f} ms, "
            f"{100 * finding['share']:.0f} % of its time"
        )
        yield f"   {finding['sentence']}"
        if (culprit := finding["culprit"]) is not None:
            yield f"   infertrace why {culprit['trace_id']}  # the request that caused it"
        if finding["steps"]:
            steps = ", ".join(str(step["index"]) for step in finding["steps"])
            yield f"   engine {finding['steps'][0]['engine']}, worst steps first: {steps}"
    yield ""
    yield answer["unexplained"]
    for unknown in answer["unknown"]:
        yield f"Not known: {unknown}"


def _phases(answer: Mapping[str, Any]) -> str:
    """A bar of the phases, each as wide as its share."""
    phases = answer["phases"]
    if not phases or not answer["duration_ms"]:
        return f"[{'?' * _WIDTH}]"
    bar = ""
    for letter, name in (("q", "queue_ms"), ("p", "prefill_ms"), ("d", "decode_ms")):
        bar += letter * round(_WIDTH * phases.get(name, 0.0) / answer["duration_ms"])
    named = ", ".join(
        f"{name.removesuffix('_ms')} {value:,.0f} ms" for name, value in phases.items()
    )
    return f"[{bar[:_WIDTH].ljust(_WIDTH, '.')}] {named}"


def _trace_id(text: str) -> str:
    if not _TRACE_ID.fullmatch(text):
        raise argparse.ArgumentTypeError(f"expected 32 hexadecimal digits, got {text[:100]!r}")
    return text.lower()
