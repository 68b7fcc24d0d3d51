"""`infertrace agent`: the sender that processes share, in the foreground, for several users."""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import signal
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from infertrace.commands.agent_http import AgentHttp
    from infertrace.configuration import Settings
    from infertrace.exporting.agent_service import AgentService
    from infertrace.exporting.agent_spool import AgentSpool
    from infertrace.exporting.introduction import Introduction

USAGE_ERROR: Final = 2
_DEFAULT_SOCKET: Final = "unix:///run/infertrace/agent.sock"
_DEFAULT_MODE: Final = 0o660
_DEFAULT_SPOOL_MIB: Final = 256
_MIB: Final = 1024 * 1024
_MAX_SPOOL_MIB: Final = 1024 * 1024
_NOW: Final = 0.0  # the deadline: whoever holds it is another agent, and stays


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the command."""
    parser.add_argument(
        "--socket",
        metavar="unix:///PATH",
        help=f"where tracers connect (default: INFERTRACE_AGENT, or {_DEFAULT_SOCKET})",
    )
    parser.add_argument(
        "--socket-mode",
        type=_mode,
        default=_DEFAULT_MODE,
        metavar="OCTAL",
        help=f"who may connect: the socket's mode (default: {_DEFAULT_MODE:o})",
    )
    parser.add_argument(
        "--spool-dir",
        type=Path,
        metavar="DIR",
        help="where to keep what ended processes have left (default: in memory)",
    )
    parser.add_argument(
        "--spool-mib",
        type=_spool_mib,
        default=_DEFAULT_SPOOL_MIB,
        metavar="N",
        help="how much of it, in MiB (default: %(default)s)",
    )
    parser.add_argument(
        "--forward",
        metavar="ENDPOINT",
        help="send all spans there, whatever the tracers say; INFERTRACE_TOKEN_FILE, "
        "INFERTRACE_HEADERS, INFERTRACE_CERTIFICATE_FILE and so on say how",
    )
    parser.add_argument(
        "--protocol", help="of --forward: infertrace (default), otlp/grpc or otlp/http"
    )
    parser.add_argument(
        "--http", metavar="HOST:PORT", help="where to answer /health and /metrics (default: none)"
    )
    parser.add_argument(
        "--token-file",
        type=Path,
        metavar="FILE",
        help="wanted as a bearer token for /metrics; needed beyond loopback",
    )


def _mode(text: str) -> int:
    try:
        number = int(text, 8)
    except ValueError:
        number = -1
    if not 0 <= number <= 0o777:
        raise argparse.ArgumentTypeError(f"expected an octal mode from 0 to 777, got {text!r}")
    return number


def _spool_mib(text: str) -> int:
    number = int(text) if text.isascii() and text.isdigit() else 0
    if not 1 <= number <= _MAX_SPOOL_MIB:
        raise argparse.ArgumentTypeError(
            f"expected an integer from 1 to {_MAX_SPOOL_MIB}, got {text!r}"
        )
    return number


def run(options: argparse.Namespace) -> int:
    """Serve until SIGTERM or SIGINT; returns the exit status."""
    from infertrace.configuration import resolve

    logging.basicConfig(
        format="infertrace agent: %(levelname)s: %(message)s", level=logging.INFO, stream=sys.stderr
    )
    try:
        settings = resolve(
            {"agent": options.socket, "endpoint": options.forward, "protocol": options.protocol},
            os.environ,
        )
        url = settings.agent or resolve({"agent": _DEFAULT_SOCKET}, os.environ).agent or ""
    except ValueError as error:
        message = str(error)
        for name, option in (("agent: ", "--socket: "), ("endpoint: ", "--forward: ")):
            message = option + message.removeprefix(name) if message.startswith(name) else message
        return _fail(message)
    try:
        from infertrace.exporting import host_sender  # noqa: F401
    except ImportError as error:
        return _fail(f"not possible on this platform: {error}")
    if options.protocol is not None and options.forward is None:
        return _fail("--protocol: expected --forward with it")
    if settings.endpoint.startswith("file:") and options.forward is not None:
        return _fail("--forward: expected an address of a collector, got a file")
    with contextlib.ExitStack() as stack:
        try:
            return _serve(options, url, settings, stack)
        except (OSError, ValueError) as error:
            return _fail(str(error))


def _serve(
    options: argparse.Namespace, url: str, settings: Settings, stack: contextlib.ExitStack
) -> int:
    """Raises OSError and ValueError where it cannot begin."""
    from infertrace.exporting.agent_service import AgentService, listen
    from infertrace.exporting.directory_lock import DirectoryLock

    path = Path(url.removeprefix("unix://"))
    spool = _open_spool(options, stack)
    _enter(stack, DirectoryLock(path.with_name(f"{path.name}.lock"), _NOW), url)
    listener, inode = listen(path, options.socket_mode)
    forward = _forward(options, settings)
    service = AgentService(listener, path, inode, spool=spool, forward=forward)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, service.stop)
    http = _open_http(options, service)
    wire = settings.protocol if forward is not None else "infertrace"
    threading.Thread(target=service.get_ready, args=(wire,), daemon=True).start()
    _say_ready(url, options, http)
    service.run()
    logging.getLogger(__name__).info("stopped")
    sys.stdout.flush()
    os._exit(0)  # threads may wait for collectors that do not answer


def _open_spool(options: argparse.Namespace, stack: contextlib.ExitStack) -> AgentSpool | None:
    if options.spool_dir is None:
        return None
    from infertrace.exporting.agent_spool import AgentSpool

    spool = AgentSpool(options.spool_dir.absolute(), options.spool_mib * _MIB)
    _enter(stack, spool.lock(), f"--spool-dir: {options.spool_dir}")
    return spool


def _enter(
    stack: contextlib.ExitStack, lock: contextlib.AbstractContextManager[None], what: str
) -> None:
    try:
        stack.enter_context(lock)
    except TimeoutError:
        raise OSError(f"{what}: another agent uses it") from None


def _forward(options: argparse.Namespace, settings: Settings) -> Introduction | None:
    if options.forward is None:
        return None
    from infertrace.exporting.introduction import Introduction
    from infertrace.exporting.target import Target

    return Introduction(Target.of(settings), max_batch_bytes=settings.max_batch_bytes)


def _open_http(options: argparse.Namespace, service: AgentService) -> AgentHttp | None:
    from infertrace.collector.authorization import read_token
    from infertrace.collector.listen_address import ListenAddress
    from infertrace.commands.agent_http import AgentHttp

    token = None
    if options.token_file is not None:
        try:
            token = read_token(options.token_file)
        except (OSError, ValueError) as error:
            raise ValueError(f"--token-file: {error}") from None
    if options.http is None:
        return None
    try:
        address = ListenAddress.parse(options.http)
    except ValueError as error:
        raise ValueError(f"--http: {error}") from None
    if token is None and not address.is_loopback:
        raise ValueError(f"--http: {address} is not loopback: give a token with --token-file")
    try:
        return AgentHttp(address, token, service.status, lambda: service.is_healthy)
    except OSError as error:
        raise OSError(f"--http: cannot listen on {address}: {error.strerror}") from None


def _say_ready(url: str, options: argparse.Namespace, http: AgentHttp | None) -> None:
    parts = [f"listening at {url}"]
    if options.spool_dir is not None:
        parts.append(f"spool {options.spool_dir} up to {options.spool_mib} MiB")
    if options.forward is not None:
        parts.append(f"all spans to {options.forward}")
    if http is not None:
        parts.append(f"HTTP on {options.http.rpartition(':')[0]}:{http.port}")
    print(f"infertrace agent: {', '.join(parts)}", flush=True)


def _fail(reason: str) -> int:
    print(f"infertrace agent: {' '.join(reason.split())}", file=sys.stderr)
    return USAGE_ERROR
