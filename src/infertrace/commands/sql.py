"""`infertrace sql`: asks a running collector's embedded store, whose file it has locked."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from infertrace.commands.collector_answers import (
    CollectorError,
    add_address,
    answer_bytes,
    own_token,
)
from infertrace.exporting.log_text import one_line

_TABLE: Final = "table"
_TEXTS: Final = (_TABLE, "json", "csv")
_FILES: Final = ("parquet", "arrow")
_MAX_CELL: Final = 60  # characters


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the command."""
    parser.add_argument(
        "query", help="one SELECT of DuckDB; the view all_spans has every column of docs/fields.md"
    )
    add_address(parser)
    parser.add_argument(
        "--format",
        choices=(*_TEXTS, *_FILES),
        default=_TABLE,
        help="how to write the rows (default: %(default)s)",
    )
    parser.add_argument("--limit", type=int, metavar="ROWS", help="at most so many rows")
    parser.add_argument("--output", type=Path, metavar="FILE", help="where to write them")


def run(args: argparse.Namespace) -> int:
    """Print or write the rows; returns 0, or 1 where the collector has none."""
    if args.format in _FILES and args.output is None and sys.stdout.isatty():
        print(f"infertrace: {args.format} is for a file: give one with --output", file=sys.stderr)
        return 1
    parameters = [("query", args.query)]
    parameters.append(("format", "json" if args.format == _TABLE else args.format))
    if args.limit is not None:
        parameters.append(("limit", str(args.limit)))
    try:
        body, headers = answer_bytes(args.http, "/sql", parameters, own_token())
    except CollectorError as error:
        print(f"infertrace: {one_line(str(error))}", file=sys.stderr)
        return 1
    if args.format == _TABLE:
        answer = json.loads(body)
        names = [column["name"] for column in answer["columns"]]
        text = "\n".join(table_lines(names, answer["rows"]))
        body = f"{text}\n".encode()
    if args.output is None:
        sys.stdout.buffer.write(body)
        sys.stdout.flush()
    else:
        args.output.write_bytes(body)
    if headers["X-Truncated"] == "true":
        print("infertrace: there are more rows; raise --limit to see them", file=sys.stderr)
    return 0


def table_lines(names: Sequence[str], rows: Sequence[Sequence[Any]]) -> Iterator[str]:
    """Rows as aligned text; what senders named cannot steer the terminal."""
    shown = [[_cell(value) for value in row] for row in (names, *rows)]
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    numeric = [
        all(isinstance(row[place], int | float | None) for row in rows)
        for place in range(len(names))
    ]
    for number, row in enumerate(shown):
        cells = zip(row, widths, numeric, strict=True)
        yield "  ".join(
            cell.rjust(width) if is_number else cell.ljust(width)
            for cell, width, is_number in cells
        ).rstrip()
        if not number:
            yield "  ".join("-" * width for width in widths)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    text = one_line(text)
    return text if len(text) <= _MAX_CELL else f"{text[: _MAX_CELL - 1]}…"
