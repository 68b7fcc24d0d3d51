"""`infertrace export`: writes stored spans as Parquet files, or as a file of OTLP in JSON."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Final

from infertrace.distribution import missing

DEFAULT_STORE_URL = "duckdb:///infertrace.duckdb"
USAGE_ERROR = 2
OTLP_SUFFIXES: Final = (".otlp.jsonl", ".otlp.jsonl.gz", ".otlp.jsonl.zst")
OTLP_NAME: Final = "spans.otlp.jsonl"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the command."""
    parser.add_argument(
        "--store",
        default=DEFAULT_STORE_URL,
        metavar="URL",
        help="where the spans are; no collector may have a DuckDB file open at the same time "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--to",
        type=Path,
        required=True,
        metavar="PATH",
        help=f"where to write: a folder, or a file whose name ends in {', '.join(OTLP_SUFFIXES)}",
    )
    parser.add_argument(
        "--format",
        choices=("parquet", "otlp"),
        help="Parquet files by day and model, or OTLP in JSON, one request a line (default: "
        f"Parquet for a folder; otlp writes {OTLP_NAME} there)",
    )
    for option, text in (("--since", "started then or later"), ("--until", "started before")):
        parser.add_argument(
            option, metavar="TIME", help=f"only spans that {text}: RFC 3339, such as "
            "2026-01-31T00:00:00Z",
        )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Export the spans; returns the exit status."""
    try:
        from infertrace.collector.otlp_files.export import export_otlp
        from infertrace.collector.store.parquet_export import export_parquet
        from infertrace.collector.store.registry import open_store
        from infertrace.collector.store.store import StoreError
        from infertrace.collector.store.timestamps import parse_rfc3339
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == "infertrace":
            raise
        return _fail(missing(error.name, "collector"))
    try:
        since = 0 if args.since is None else parse_rfc3339(args.since)
        until = time.time_ns() if args.until is None else parse_rfc3339(args.until)
        to = _otlp_file(args.to, args.format)
        store = open_store(args.store)
        left_out, reason = 0, ""
        try:
            if to is None:
                count = export_parquet(store, args.to, since, until)
            else:
                count, left_out, reason = export_otlp(store, to, since, until)
        finally:
            store.close()
    except (ValueError, StoreError, OSError) as error:
        return _fail(str(error))
    print(f"infertrace export: {count} spans to {to or args.to}")
    if left_out:
        _fail(f"{left_out} spans left out, the first for {reason}")
    return int(left_out > 0)


def _otlp_file(to: Path, chosen: str | None) -> Path | None:
    """The file of OTLP to write, if that is what is asked for; raises ValueError and OSError."""
    is_file = to.name.endswith(OTLP_SUFFIXES) and not to.is_dir()
    if is_file and chosen == "parquet":
        raise ValueError("--to: expected a folder for --format parquet, got a file of OTLP")
    if is_file or chosen != "otlp":
        return to if is_file else None
    to.mkdir(mode=0o700, parents=True, exist_ok=True)
    return to / OTLP_NAME


def _fail(reason: str) -> int:
    print(f"infertrace export: {' '.join(reason.split())}", file=sys.stderr)
    return USAGE_ERROR
