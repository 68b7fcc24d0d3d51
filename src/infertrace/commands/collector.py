"""`infertrace collector`: takes spans in over gRPC, stores them, answers over HTTP."""

from __future__ import annotations

import argparse
import logging
import queue
import re
import signal
import sys
from pathlib import Path

DEFAULT_GRPC_ADDRESS = "127.0.0.1:4317"
DEFAULT_HTTP_ADDRESS = "127.0.0.1:8080"
DEFAULT_STORE_URL = "duckdb:///infertrace.duckdb"
_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
_BYTES = {"MB": 10**6, "GB": 10**9, "TB": 10**12}
USAGE_ERROR = 2  # the exit status of a command that was asked for what cannot be


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the command."""
    parser.add_argument(
        "--grpc",
        default=DEFAULT_GRPC_ADDRESS,
        metavar="HOST:PORT",
        help="where to take spans; port 0 takes a free one (default: %(default)s)",
    )
    parser.add_argument(
        "--http",
        default=DEFAULT_HTTP_ADDRESS,
        metavar="HOST:PORT",
        help="where to answer; port 0 takes a free one (default: %(default)s)",
    )
    parser.add_argument(
        "--store",
        default=DEFAULT_STORE_URL,
        metavar="URL",
        help="duckdb:///PATH, relative to here, duckdb:////PATH, absolute, "
        "postgresql://USER@HOST/DATABASE, or memory: "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--retain",
        type=_duration,
        metavar="AGE",
        help="delete spans that started longer ago, such as 12h or 7d (default: keep all)",
    )
    parser.add_argument(
        "--max-bytes",
        type=_size,
        metavar="SIZE",
        help="delete the oldest spans when the store grows beyond it, such as 500MB or 20GB",
    )
    parser.add_argument(
        "--token-file",
        type=Path,
        metavar="PATH",
        help="file with the token that producers and readers must show; needed to listen beyond "
        "this machine",
    )

    for option, text in (
        ("--tls-cert", "PEM file with the certificate chain for gRPC; with --tls-key"),
        ("--tls-key", "PEM file with the key of that certificate"),
        ("--tls-client-ca", "PEM file with the authority whose producers alone may send (mTLS)"),
    ):
        parser.add_argument(option, type=Path, metavar="PATH", help=text)


def _duration(text: str) -> int:
    """Nanoseconds."""
    match = re.fullmatch(r"(\d{1,6})([smhd])", text, re.ASCII)
    if match is None or int(match[1]) == 0:
        raise argparse.ArgumentTypeError(f"expected a time such as 90m, 12h or 7d, got {text!r}")
    return int(match[1]) * _SECONDS[match[2]] * 1_000_000_000


def _size(text: str) -> int:
    """Bytes."""
    match = re.fullmatch(r"(\d{1,9})(MB|GB|TB)", text, re.ASCII)
    if match is None or int(match[1]) == 0:
        raise argparse.ArgumentTypeError(f"expected a size such as 500MB or 20GB, got {text!r}")
    return int(match[1]) * _BYTES[match[2]]


def run(args: argparse.Namespace) -> int:
    """Serve until SIGTERM or SIGINT; returns the exit status."""
    try:
        from infertrace.collecting.authorization import read_token
        from infertrace.collecting.listen_address import AddressError
        from infertrace.collecting.server import Collector, TokenRequiredError
        from infertrace.collecting.tls import TlsFiles
        from infertrace.storing.opening import shown_url
        from infertrace.storing.retention import Retention
        from infertrace.storing.store import StoreError
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == "infertrace":
            raise
        return _fail(f"{error.name} is not installed: pip install 'infertrace[collector]'")

    logging.basicConfig(format="infertrace collector: %(levelname)s: %(message)s")
    # A queue because its put, unlike Event.set, may interrupt the get of the same thread.
    signals: queue.SimpleQueue[int] = queue.SimpleQueue()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda received, _: signals.put(received))
    try:
        token = read_token(args.token_file) if args.token_file else None
    except (OSError, ValueError) as error:
        return _fail(f"--token-file: {error}")
    if (args.tls_cert is None) != (args.tls_key is None):
        return _fail("--tls-cert and --tls-key: expected both or neither")
    if args.tls_client_ca is not None and args.tls_cert is None:
        return _fail("--tls-client-ca: expected --tls-cert and --tls-key with it")
    tls = TlsFiles(args.tls_cert, args.tls_key, args.tls_client_ca) if args.tls_cert else None
    try:
        retention = Retention(args.retain, args.max_bytes)
        collector = Collector(args.grpc, args.http, args.store, token, retention, tls)
        collector.start()
    except AddressError as error:
        return _fail(f"{error}; choose another address with --{error.protocol}")
    except TokenRequiredError as error:
        return _fail(f"{error}: give one with --token-file")
    except (ValueError, StoreError, OSError) as error:
        return _fail(str(error))
    print(
        f"infertrace collector: gRPC on {collector.grpc_address}, "
        f"HTTP on {collector.http_address}, store {shown_url(args.store)}",
        flush=True,
    )
    signals.get()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)  # who cannot wait says so once more
    collector.stop()
    return 0


def _fail(reason: str) -> int:
    # Reasons from a library may have several lines.
    print(f"infertrace collector: {' '.join(reason.split())}", file=sys.stderr)
    return USAGE_ERROR
