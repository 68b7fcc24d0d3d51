"""`infertrace collector`: takes spans over gRPC and HTTP, stores them, answers over HTTP."""

from __future__ import annotations

import argparse
import gc
import logging
import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

from infertrace.collector.options import (
    DEFAULT_OTLP_HTTP_ADDRESS,
    OptionError,
    Options,
    add_arguments,
    resolve,
)
from infertrace.commands.collector_logging import configure_logging
from infertrace.commands.termination_signals import TerminationSignals
from infertrace.distribution import missing

if TYPE_CHECKING:
    from infertrace.collector.server import Collector

__all__ = ["USAGE_ERROR", "add_arguments", "run"]

USAGE_ERROR = 2  # the exit status of a command that was given impossible options

_log = logging.getLogger(__name__)


def run(args: argparse.Namespace) -> int:
    """Serve until SIGTERM or SIGINT; returns the exit status."""
    try:
        options = resolve(args, os.environ)
        from infertrace.collector.authorization import read_token
        from infertrace.collector.listen_address import AddressError
        from infertrace.collector.server import Collector, TokenRequiredError
        from infertrace.collector.store.registry import StoreUrlError, shown_url
        from infertrace.collector.store.store import Retention, StoreError
        from infertrace.collector.tls import TlsFileError, TlsFiles
    except ModuleNotFoundError as error:
        package = (error.name or "infertrace").partition(".")[0]
        if package == "infertrace":
            raise
        return _fail(missing(package, "collector"))
    except OptionError as error:
        return _fail(str(error))
    configure_logging(options.log_format, options.log_level)
    _allow_open_files()
    _keep_memory()
    signals = TerminationSignals()
    try:
        token = read_token(options.token_file) if options.token_file else None
    except (OSError, ValueError) as error:
        return _fail(f"{options.sources['token_file']}: {error}")
    tls_options = {
        "certificate": "tls_cert",
        "key": "tls_key",
        "client_authority": "tls_client_ca",
    }
    tls_keys = [key for key in tls_options.values() if getattr(options, key) is not None]
    tls = None
    if options.tls_cert is not None and options.tls_key is not None:
        tls = TlsFiles(options.tls_cert, options.tls_key, options.tls_client_ca)
    elif tls_keys:
        return _fail(f"{options.sources[tls_keys[0]]}: expected tls-cert and tls-key, both")
    try:
        retention = Retention(options.retain_ns, options.max_bytes)
        collector = Collector(
            options.grpc,
            options.http,
            options.store,
            token,
            retention,
            tls,
            query_timeout_s=options.query_timeout_ns / 1e9,
            otlp_http_address=_otlp_http_address(options),
            otlp_origins=options.otlp_origin or (),
            default_models=options.default_model,
            forward=options.forward or (),
            has_model_metrics=options.model_metrics,
        )
        collector.start()
    except AddressError as error:
        return _fail(f"{options.sources[error.protocol]}: {error}; choose another address")
    except TokenRequiredError as error:
        return _fail(f"{error}: give one with --token-file")
    except TlsFileError as error:
        return _fail(f"{options.sources[tls_options[error.file]]}: {error}")
    except StoreUrlError as error:
        return _fail(f"{options.sources['store']}: {error.expected}")
    except (ValueError, StoreError, OSError) as error:
        return _fail(str(error))
    # What is loaded now stays: looking through it again takes the GC 30 ms within some query.
    gc.collect()
    gc.freeze()
    _log.info("ready")
    ready = (
        f"infertrace collector: gRPC on {collector.grpc_address}, "
        f"HTTP on {collector.http_address}, store {shown_url(options.store)}"
    )
    # The token is in nothing that is printed: the page asks for it.
    page = f"{'http' if tls is None else 'https'}://{collector.http_address}/"
    # In one piece, so that whoever waits for the first line has the others too.
    sys.stdout.write(
        f"{ready}\ninfertrace collector: {_otlp_http_state(options, collector)}\n"
        f"infertrace collector: the page is at {page}\n"
    )
    sys.stdout.flush()
    _log.info("%s: finishing what is in progress", signals.wait().name)
    collector.stop()
    _log.info("stopped")
    return 0


def _otlp_http_address(options: Options) -> str | None:
    """Where to take OTLP over HTTP: nowhere if others have the default and nobody asked for it."""
    from infertrace.collector.listen_address import ListenAddress, is_free

    address = options.otlp_http
    if address is None or "otlp_http" in options.given or is_free(ListenAddress.parse(address)):
        return address
    return None


def _otlp_http_state(options: Options, collector: Collector) -> str:
    if collector.otlp_http_address is not None:
        return f"OTLP over HTTP on {collector.otlp_http_address}"
    if options.otlp_http is None:
        return "OTLP over HTTP is off"
    return (
        f"no OTLP over HTTP, since {DEFAULT_OTLP_HTTP_ADDRESS} is in use; choose another address "
        "with --otlp-http"
    )


def _allow_open_files() -> None:
    """Raise the limit of open files: each connection is one, and the soft limit is often 1,024."""
    try:
        import resource
    except ModuleNotFoundError:  # Windows has no such limit
        return
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # macOS refuses "unlimited"; the limit then stays as it was.
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _keep_memory() -> None:
    """Have Arrow take its memory where all else does.

    Its own allocator soon gives back what a batch took, and takes it again for the next one, and
    each time the kernel clears all those pages.
    """
    import pyarrow as pa

    pa.set_memory_pool(pa.system_memory_pool())


def _fail(reason: str) -> int:
    # One line: a reason from a library may have several.
    print(f"infertrace collector: {' '.join(reason.split())}", file=sys.stderr)
    return USAGE_ERROR
