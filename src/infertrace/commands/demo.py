"""`infertrace demo`: a simulated model server, traced into its own collector."""

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
import signal
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from infertrace.collector.diagnosis.usual import MIN_REQUESTS
from infertrace.collector.options import DEFAULT_GRPC_ADDRESS, DEFAULT_HTTP_ADDRESS
from infertrace.commands.collector import USAGE_ERROR
from infertrace.commands.collector_answers import CollectorError
from infertrace.commands.collector_process import CollectorProcess
from infertrace.commands.simulated_server import MODELS, SimulatedServer
from infertrace.commands.why import ask, sentences
from infertrace.gpu import get_gpu_metrics, gpu_reason
from infertrace.tracer import Tracer

_DEFAULT_DURATION_S: Final = 10.0
_PROGRESS_INTERVAL_S: Final = 0.5
_RESTART_AFTER_S: Final = 2.0
_FLUSH_TIMEOUT_S: Final = 30.0
_HTTP_TIMEOUT_S: Final = 10.0
_SEED: Final = 20_260_101
_MAX_SECONDS: Final = 86_400.0
# Of the requests that are asked about: those that began before enough of them had ended.
_MAX_EARLY: Final = 50


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the command."""
    parser.add_argument(
        "--duration",
        type=_seconds,
        default=_DEFAULT_DURATION_S,
        metavar="SECONDS",
        help="how long the model server runs (default: %(default)g)",
    )
    parser.add_argument(
        "--outage",
        type=_seconds,
        default=0.0,
        metavar="SECONDS",
        help="stop the collector for that long in the middle (default: not at all)",
    )
    parser.add_argument(
        "--once", action="store_true", help="exit after the report instead of serving on"
    )
    parser.add_argument(
        "--grpc",
        default=DEFAULT_GRPC_ADDRESS,
        metavar="HOST:PORT",
        help="where the collector receives spans (default: %(default)s)",
    )
    parser.add_argument(
        "--http",
        default=DEFAULT_HTTP_ADDRESS,
        metavar="HOST:PORT",
        help="where the collector answers queries (default: %(default)s)",
    )
    parser.add_argument(
        "--store",
        metavar="URL",
        help="as for the collector (default: a DuckDB file, deleted with the demo)",
    )


def run(args: argparse.Namespace) -> int:
    """Run the demo; returns the exit status, 1 if spans are missing at the end."""
    with contextlib.ExitStack() as stack:
        store = args.store
        if store is None:
            directory = tempfile.mkdtemp(prefix="infertrace-demo-")
            stack.callback(shutil.rmtree, directory, ignore_errors=True)
            store = f"duckdb:///{Path(directory, 'spans.duckdb')}"
        # SIGTERM ends the demo as Ctrl-C does: collector stopped, store closed.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        collector = CollectorProcess(args.grpc, args.http, store)
        stack.callback(collector.stop)
        try:
            if not collector.start():
                return USAGE_ERROR
            print(
                f"Collector (process {collector.pid}): gRPC on {collector.grpc}, "
                f"HTTP on {collector.http}, store {store}"
            )
            tracer = Tracer(f"http://{collector.grpc}", service_name="demo-model-server")
            stack.callback(tracer.shutdown)
            began = time.time()
            complete = _run_model_server(tracer, collector, args.duration, args.outage)
            _print_report(collector.http, tracer)
            _print_slowest(collector.http, MODELS[0].name, began)
            if not args.once:
                _invite(collector.http)
                threading.Event().wait()
        except KeyboardInterrupt:
            # Another one must not keep this process from ending the collector's.
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, signal.SIG_IGN)
            print("\nStopping the collector.", flush=True)
            return 0
        return 0 if complete else 1


def _run_model_server(
    tracer: Tracer, collector: CollectorProcess, duration_s: float, outage_s: float
) -> bool:
    """Serve for `duration_s` and show progress; True if every span was delivered."""
    servers = [SimulatedServer(tracer, model, _SEED + n) for n, model in enumerate(MODELS)]
    began = time.monotonic()
    outage_at = began + duration_s / 2 if outage_s else float("inf")
    for server in servers:
        server.start()
    try:
        while (elapsed_s := time.monotonic() - began) < duration_s:
            if time.monotonic() >= outage_at:
                outage_at = float("inf")
                collector.restart_after(outage_s)
            collector.keep_up(_RESTART_AFTER_S)
            _print_progress(elapsed_s, duration_s, tracer.stats(), collector)
            time.sleep(min(_PROGRESS_INTERVAL_S, duration_s - elapsed_s))
    finally:
        for server in servers:
            server.stop()
    flush_until = time.monotonic() + _FLUSH_TIMEOUT_S
    while not tracer.flush(_PROGRESS_INTERVAL_S) and time.monotonic() < flush_until:
        collector.keep_up(_RESTART_AFTER_S)
        _print_progress(duration_s, duration_s, tracer.stats(), collector)
    stats = tracer.stats()
    _print_progress(duration_s, duration_s, stats, collector)
    print()
    steps = sum(server.steps for server in servers)
    slowest_ms = 1e3 * max(server.slowest_tracing_s for server in servers)
    print(f"{steps} steps served; tracing held up the slowest of them by {slowest_ms:.2f} ms.")
    return stats["produced"] == stats["delivered"]


def _print_progress(
    elapsed_s: float, duration_s: float, stats: Mapping[str, Any], collector: CollectorProcess
) -> None:
    width = 24
    done = round(width * min(elapsed_s / duration_s, 1.0)) if duration_s else width
    state = "up" if collector.is_running() else "down"
    line = (
        f"[{'#' * done}{'.' * (width - done)}] {elapsed_s:4.1f} s  "
        f"{stats['produced']:6d} spans  {stats['delivered']:6d} delivered  "
        f"{stats['pending']:5d} pending  collector {state}"
    )
    # A terminal overwrites the line; a file gets one line each time.
    print(f"\r{line:<100}", end="", flush=True) if sys.stdout.isatty() else print(line, flush=True)


def _print_report(http: str, tracer: Tracer) -> None:
    try:
        models = _get(http, "/models")
        producers = _get(http, "/ledger")["producers"]
    except OSError as error:
        print(f"The collector at http://{http} does not answer: {error}")
        models, producers = [], []
    print()
    _print_table(
        ("model", "requests", "p50 ms", "p95 ms", "p99 ms", "tokens/s", "errors"),
        [
            (
                model["model_name"],
                f"{model['sample_count']}",
                *(f"{model[f'p{percent}_ms']:.1f}" for percent in (50, 95, 99)),
                f"{model['tokens_per_second']:.0f}" if "tokens_per_second" in model else "-",
                f"{100 * model['error_rate']:.1f} %",
            )
            for model in models
        ],
    )
    print(f"\n{_gpu_line()}\n")
    stats = tracer.stats()
    dropped = ", ".join(f"{count} {reason}" for reason, count in stats["dropped"].items())
    print(
        f"Ledger here: {stats['produced']} produced = {stats['delivered']} delivered "
        f"+ {stats['pending']} pending + {sum(stats['dropped'].values())} dropped"
        + (f" ({dropped})" if dropped else "")
        + (f"; {stats['handed_over']} handed over" if stats["handed_over"] else "")
    )
    for producer in producers[:1]:
        print(
            f"Ledger at the collector: {producer['stored']} of {producer['produced']} stored, "
            f"{producer['completeness']:.0%} complete"
        )


def _print_slowest(http: str, model: str, since_s: float) -> None:
    """Say why the slowest request since a time, seconds since 1970, took so long.

    Not of the first ones, unless there are no others: nothing is usual before them.
    """
    try:
        query = urllib.parse.urlencode(
            {"model": model, "operation": "inference", "since": f"{since_s:.3f}", "limit": 10_000}
        )
        requests = _get(http, f"/spans?{query}")
        requests.sort(key=lambda span: span["duration_ms"], reverse=True)
        answers = []
        for span in requests[:_MAX_EARLY]:
            answers.append(ask(http, span["trace_id"]))
            if answers[-1]["baseline"]["request_count"] >= MIN_REQUESTS:
                break
        else:
            answers = answers[:1]
        if not answers:
            return
    except (OSError, CollectorError) as error:
        print(f"\nWhy the slowest one was slow is not known: {error}")
        return
    early = len(answers) - 1
    but = f", but for {early} that came before anything was usual" if early else ""
    print(f"\nThe slowest of {len(requests)} requests{but}, as `infertrace why` tells of it:\n")
    print("\n".join(sentences(answers[early])))


def _print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    for row in (header, tuple("-" * width for width in widths), *rows):
        first, *numbers = (
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        print("  ".join((first, *numbers)))


def _gpu_line() -> str:
    gpu = get_gpu_metrics()
    if not gpu:
        return f"GPU: none ({gpu_reason()})"
    parts = [f"GPU: {gpu['gpu_device_id']}"]
    if "gpu_utilization_percent" in gpu:
        parts.append(f"{gpu['gpu_utilization_percent']:.0f} %")
    if "gpu_memory_used_bytes" in gpu:
        used, total = gpu["gpu_memory_used_bytes"], gpu["gpu_memory_total_bytes"]
        parts.append(f"{used / 2**30:.1f} of {total / 2**30:.1f} GiB")
    return ", ".join(parts)


def _invite(http: str) -> None:
    print(
        f"\nStill serving. Try:\n  curl 'http://{http}/spans?model=gpt-4&limit=3'\n"
        "or open this, drag a box around the slow requests, and read why they were slow:\n"
        f"  http://{http}/?view=explore&last=5m&f.model=gpt-4\nCtrl-C ends."
    )
    sys.stdout.flush()


def _get(http: str, path: str) -> Any:
    with urllib.request.urlopen(f"http://{http}{path}", timeout=_HTTP_TIMEOUT_S) as answer:
        return json.load(answer)


def _seconds(text: str) -> float:
    number = float(text)
    if not 0 <= number <= _MAX_SECONDS:
        raise argparse.ArgumentTypeError(f"expected 0 to {_MAX_SECONDS:g} seconds, got {text}")
    return number
