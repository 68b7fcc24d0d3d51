"""`infertrace top`: what a collector's models are doing, in a terminal."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from infertrace.commands.collector_answers import (
    CollectorError,
    add_address,
    answer_json,
    own_token,
)
from infertrace.commands.termination_signals import TerminationSignals
from infertrace.distribution import missing
from infertrace.exporting.log_text import one_line

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table

_REFRESH_S: Final = 1.0
_OVERVIEW_EVERY: Final = 5  # refreshes: it reads all spans of the window
_TAIL_ROWS: Final = 12
_COLUMNS: Final = 40
_BARS: Final = " ▁▂▃▄▅▆▇█"
_USAGE_ERROR: Final = 2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the command."""
    add_address(parser)
    parser.add_argument(
        "--window", default="15m", metavar="TIME", help="how far back to count (default: 15m)"
    )
    parser.add_argument("--model", help="only this model")
    parser.add_argument("--once", action="store_true", help="print it once and end")
    parser.add_argument("--json", action="store_true", help="print the answers once, as JSON")


def run(args: argparse.Namespace) -> int:
    """Show it until Ctrl-C, or once; returns 0, or 1 where the collector does not answer."""
    screen = _Screen(args)
    try:
        if args.json:
            json.dump(screen.answers(), sys.stdout, indent=2, ensure_ascii=False)
            print()
            return 0
        try:
            from rich.console import Console
            from rich.live import Live
        except ModuleNotFoundError as error:
            if error.name is None or error.name.partition(".")[0] != "rich":
                raise
            print(f"infertrace: {missing('rich', 'top')}", file=sys.stderr)
            return _USAGE_ERROR
        console = Console()
        if args.once:
            console.print(screen.shown(screen.answers()))
            return 0
        # Not a KeyboardInterrupt: where that is raised in a callback, the interpreter ignores it.
        signals = TerminationSignals()
        with Live(screen.shown(screen.answers()), console=console, screen=True) as live:
            while not signals.has_come(_REFRESH_S):
                live.update(screen.shown(screen.answers()))
        return 0
    except CollectorError as error:
        print(f"infertrace: {one_line(str(error))}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 0


class _Screen:
    """What is shown, and what it is made of: `/overview`, `/tail`, `/ledger`."""

    def __init__(self, args: argparse.Namespace) -> None:
        self._http = args.http
        self._window = args.window
        self._filters = [] if args.model is None else [("model", args.model)]
        self._token = own_token()
        self._place: int | None = None
        self._tail: list[dict[str, Any]] = []
        self._skipped = 0
        self._overview: dict[str, Any] = {}
        self._refreshes = 0

    def _ask(self, path: str, parameters: Sequence[tuple[str, str]]) -> Any:
        return answer_json(self._http, path, parameters, self._token)

    def answers(self) -> dict[str, Any]:
        """The answers of the collector now; the overview every few times."""
        if self._refreshes % _OVERVIEW_EVERY == 0:
            asked = [*self._filters, ("window", self._window), ("columns", str(_COLUMNS))]
            self._overview = self._ask("/overview", asked)
        self._refreshes += 1
        asked = [*self._filters, ("limit", str(_TAIL_ROWS))]
        if self._place is not None:
            asked.append(("after", str(self._place)))
        tail = self._ask("/tail", asked)
        if self._place is not None:
            self._skipped += tail["skipped"] + tail["forgotten"]
        self._place = tail["next"]
        self._tail = [*self._tail, *tail["spans"]][-_TAIL_ROWS:]
        return {
            "overview": self._overview,
            "tail": {"spans": self._tail, "skipped": self._skipped},
            "ledger": ledger_totals(self._ask("/ledger", [("limit", "1000")])["producers"]),
        }

    def shown(self, answers: Mapping[str, Any]) -> Group:
        from rich.console import Group
        from rich.text import Text

        ledger = answers["ledger"]
        line = (
            f"{ledger['produced']:,} produced = {ledger['stored']:,} stored + "
            f"{ledger['pending']:,} pending + {ledger['dropped']:,} dropped"
        )
        overview = answers["overview"]
        return Group(
            Text(f"infertrace · {self._http} · last {self._window}", style="bold"),
            Text(line, style="red" if ledger["dropped"] else "dim"),
            _models(overview["models"]),
            Text(
                f"{overview['total']:,} requests of {overview['model_count']} models"
                + (", more models are not shown" if overview["truncated"] else ""),
                style="dim",
            ),
            _arrivals(answers["tail"]["spans"]),
            Text(f"{answers['tail']['skipped']:,} more came and are not shown", style="dim"),
        )


def ledger_totals(producers: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """The sums over the producers that number their spans."""
    sums = {"produced": 0, "stored": 0, "pending": 0, "dropped": 0}
    for producer in producers:
        if producer["numbered"]:
            stored, pending = producer["stored"], producer["pending"]
            dropped = max(0, producer["produced"] - stored - pending)
            sums["produced"] += stored + pending + dropped
            sums["stored"] += stored
            sums["pending"] += pending
            sums["dropped"] += dropped
    return sums


def sparkline(counts: Sequence[int]) -> str:
    """A bar of a character for each count, as high as its share of the largest one."""
    most = max(counts, default=0) or 1
    # What is not 0 is never drawn as nothing.
    return "".join(_BARS[-(-count * (len(_BARS) - 1) // most)] for count in counts)


_NUMBERS: Final[tuple[tuple[str, str, Callable[[float], str]], ...]] = (
    ("req/s", "requests_per_second", lambda value: f"{value:.1f}"),
    ("errors", "error_rate", lambda value: f"{100 * value:.1f} %"),
    ("tok/s", "tokens_per_second", lambda value: f"{value:,.0f}"),
    ("p50", "p50_ms", lambda value: _milliseconds(value)),
    ("p95", "p95_ms", lambda value: _milliseconds(value)),
    ("p99", "p99_ms", lambda value: _milliseconds(value)),
    ("ttft p95", "time_to_first_token_p95_ms", lambda value: _milliseconds(value)),
    ("itl p95", "inter_token_latency_p95_ms", lambda value: _milliseconds(value)),
    ("queue p95", "queue_wait_time_p95_ms", lambda value: _milliseconds(value)),
)


def _milliseconds(value: float) -> str:
    return f"{value / 1_000:.2f} s" if value >= 1_000 else f"{value:.1f} ms"


def _table(*titles: str) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for title in titles:
        table.add_column(title, no_wrap=True)
    return table


def _models(models: Sequence[Mapping[str, Any]]) -> Table:
    table = _table("model", "requests")
    for title, _, _ in _NUMBERS:
        table.add_column(title, justify="right", no_wrap=True)
    for model in models:
        cells = ["-" if model.get(key) is None else show(model[key]) for _, key, show in _NUMBERS]
        table.add_row(
            _text(model["model_name"]),
            sparkline(model["columns"]["counts"]),
            *cells,
            style="red" if model["error_rate"] > 0.01 else "",
        )
    return table


def _arrivals(spans: Sequence[Mapping[str, Any]]) -> Table:
    table = _table("arrived last", "model", "status", "took", "first token", "tokens")
    for span in reversed(spans):
        first = span.get("time_to_first_token_ms")
        table.add_row(
            _text(span.get("request_id", span["trace_id"])),
            _text(span.get("model_name", "-")),
            span["status"],
            _milliseconds(span["duration_ms"]),
            "-" if first is None else _milliseconds(first),
            f"{span.get('input_tokens', '-')} → {span.get('output_tokens', '-')}",
            style="red" if span["status"] == "ERROR" else "",
        )
    return table


def _text(name: str) -> Any:
    """What a sender named: no markup, and nothing that steers the terminal."""
    from rich.text import Text

    return Text(one_line(name), overflow="ellipsis")
