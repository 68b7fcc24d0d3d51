"""`infertrace export`: writes stored spans as Parquet files, by day and model."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from infertrace.distribution import missing

DEFAULT_STORE_URL = "duckdb:///infertrace.duckdb"
USAGE_ERROR = 2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the command."""
    parser.add_argument(
        "--store",
        default=DEFAULT_STORE_URL,
        metavar="URL",
        help="where the spans are; no collector may have a DuckDB file open at the same time "
        "(default: %(default)s)",
    )
    parser.add_argument("--to", type=Path, required=True, metavar="DIR", help="where to write")
    for option, text in (("--since", "started then or later"), ("--until", "started before")):
        parser.add_argument(
            option, metavar="TIME", help=f"only spans that {text}: RFC 3339, such as "
            "2026-01-31T00:00:00Z",
        )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Export the spans; returns the exit status."""
    try:
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
        store = open_store(args.store)
        try:
            count = export_parquet(store, args.to, since, until)
        finally:
            store.close()
    except (ValueError, StoreError, OSError) as error:
        return _fail(str(error))
    print(f"infertrace export: {count} spans to {args.to}")
    return 0


def _fail(reason: str) -> int:
    print(f"infertrace export: {' '.join(reason.split())}", file=sys.stderr)
    return USAGE_ERROR
