"""The process: its one line, its signals, its errors, and what a kill leaves behind."""

from __future__ import annotations

import random
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import duckdb
import grpc
import pytest

from collector_client import NewSpan, OpenClient
from infertrace.collector.server import Collector
from infertrace.collector.store.registry import open_store
from infertrace.collector.store.store import StoreError

START = (
    "import argparse, sys\n"
    "from infertrace.commands import collector\n"
    "parser = argparse.ArgumentParser()\n"
    "collector.add_arguments(parser)\n"
    "sys.exit(collector.run(parser.parse_args()))\n"
)
READY = re.compile(r"infertrace collector: gRPC on (\S+), HTTP on (\S+), store (\S+)\n")
WAIT_S = 60


class Process:
    """`infertrace collector` as a separate process."""

    def __init__(self, *arguments: str) -> None:
        self.popen = subprocess.Popen(
            [sys.executable, "-c", START, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def ready(self) -> tuple[str, str]:
        assert self.popen.stdout is not None
        line = self.popen.stdout.readline()
        match = READY.fullmatch(line)
        assert match, (line, self.popen.communicate()[1])
        return match[1], match[2]

    def end(self, number: int | None = None) -> tuple[int, str, str]:
        if number is not None:
            self.popen.send_signal(number)
        out, errors = self.popen.communicate(timeout=WAIT_S)
        return self.popen.returncode, out, errors


@pytest.fixture
def start() -> Iterator[Callable[..., Process]]:
    processes: list[Process] = []

    def start_one(
        store: str, grpc_at: str = "127.0.0.1:0", http_at: str = "127.0.0.1:0", *more: str
    ) -> Process:
        arguments = ("--grpc", grpc_at, "--http", http_at, "--store", store, *more)
        processes.append(Process(*arguments))
        return processes[-1]

    yield start_one
    for process in processes:
        process.popen.kill()
        process.popen.communicate()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_in_order(
    start: Callable[..., Process],
    file_url: str,
    tmp_path: Path,
    open_client: OpenClient,
    new_span: NewSpan,
    number: signal.Signals,
) -> None:
    process = start(file_url)
    client = open_client(*process.ready())
    client.send(*[new_span() for _ in range(3)])
    assert process.end(number) == (0, "", "")
    assert not list(tmp_path.glob("*.wal"))  # the checkpoint folded it in
    with duckdb.connect(str(tmp_path / "spans.duckdb"), read_only=True) as connection:
        assert connection.execute("SELECT count(*) FROM spans").fetchall() == [(3,)]


def test_a_signal_lets_calls_in_progress_finish(
    start: Callable[..., Process],
    file_url: str,
    tmp_path: Path,
    open_client: OpenClient,
    new_span: NewSpan,
) -> None:
    process = start(file_url)
    client = open_client(*process.ready())
    stored = 0
    stopped = threading.Event()
    begun = threading.Event()

    def produce() -> None:
        nonlocal stored
        while not stopped.is_set():
            try:
                stored += client.send(*[new_span() for _ in range(50)]).accepted_count
            except grpc.RpcError:
                return
            begun.set()

    threads = [threading.Thread(target=produce) for _ in range(1)]
    for thread in threads:
        thread.start()
    assert begun.wait(WAIT_S)
    assert process.end(signal.SIGTERM)[0] == 0
    stopped.set()
    for thread in threads:
        thread.join()
    with duckdb.connect(str(tmp_path / "spans.duckdb"), read_only=True) as connection:
        assert connection.execute("SELECT count(*) FROM spans").fetchone() == (stored,)


@pytest.mark.parametrize("seed", range(10))
def test_what_was_acknowledged_survives_a_kill(
    start: Callable[..., Process],
    file_url: str,
    open_client: OpenClient,
    new_span: NewSpan,
    seed: int,
) -> None:
    chance = random.Random(seed)
    process = start(file_url)
    client = open_client(*process.ready())
    acknowledged: set[str] = set()
    kill_after = chance.randint(1, 40)
    enough = threading.Event()

    def produce() -> None:
        sequence = 1
        for number in range(10_000):
            spans = [new_span() for _ in range(chance.randint(1, 60))]
            try:
                client.send(*spans, producer_id=b"p" * 16, first_span_sequence=sequence)
            except grpc.RpcError:
                enough.set()
                return
            sequence += len(spans)
            acknowledged.update(span.span_id.hex() for span in spans)
            if number == kill_after:
                enough.set()

    thread = threading.Thread(target=produce)
    thread.start()
    assert enough.wait(WAIT_S)
    process.end(signal.SIGKILL)
    thread.join()

    again = start(file_url)
    reader = open_client(*again.ready())
    stored = set()
    url: str | None = "/spans?limit=10000"
    while url:
        answer = reader.http.get(url)
        stored |= {span["span_id"] for span in answer.json()}
        url = answer.links.get("next", {}).get("url")
    assert acknowledged <= stored
    (account,) = reader.get("/ledger")["producers"]
    assert account["stored"] == len(stored)  # the same transaction wrote the account
    assert again.end(signal.SIGTERM)[0] == 0


@pytest.mark.parametrize("protocol", ["grpc", "http", "otlp-http"])
def test_a_port_that_is_taken(start: Callable[..., Process], tmp_path: Path, protocol: str) -> None:
    with Collector("127.0.0.1:0", "127.0.0.1:0", "memory:") as other:
        taken = other.grpc_address if protocol == "grpc" else other.http_address
        at = {"grpc": "127.0.0.1:0", "http": "127.0.0.1:0", "otlp-http": "off", protocol: taken}
        store = f"duckdb:///{tmp_path / 'new.duckdb'}"
        process = start(store, at["grpc"], at["http"], "--otlp-http", at["otlp-http"])
        status, out, errors = process.end()
    assert (status, out) == (2, "")
    assert errors == (
        f"infertrace collector: --{protocol}: cannot listen on {taken}: in use already, or not of "
        "this machine; choose another address\n"
    )
    assert not (tmp_path / "new.duckdb").exists()


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["--otlp-http", "127.0.0.1:0"], r"OTLP over HTTP on 127\.0\.0\.1:\d+"),
        (["--otlp-http", "off"], "OTLP over HTTP is off"),
        # The default address has another program, or it has not; the collector starts anyway.
        ([], r"(no )?OTLP over HTTP(, since| on) 127\.0\.0\.1:4318.*"),
    ],
)
def test_it_says_where_otlp_over_http_goes(
    start: Callable[..., Process], given: list[str], expected: str
) -> None:
    process = start("memory:", "127.0.0.1:0", "127.0.0.1:0", *given)
    process.ready()
    assert process.popen.stdout is not None
    assert re.fullmatch(f"infertrace collector: {expected}\n", process.popen.stdout.readline())
    page = r"infertrace collector: the page is at http://127\.0\.0\.1:\d+/\n"
    assert re.fullmatch(page, process.popen.stdout.readline())
    assert process.end(signal.SIGTERM) == (0, "", "")


def test_two_collectors_with_the_default_address(start: Callable[..., Process]) -> None:
    processes = [start("memory:"), start("memory:")]
    lines = []
    for process in processes:
        process.ready()
        assert process.popen.stdout is not None
        lines.append(process.popen.stdout.readline())
    assert any("4318 is in use" in line for line in lines)


@pytest.mark.parametrize(
    ("store", "grpc_at", "expected"),
    [
        ("memory:", "nonsense", "--grpc: expected HOST:PORT"),
        ("memory:", "0.0.0.0:0", "needs a token: give one with --token-file"),
        ("sqlite:///x", "127.0.0.1:0", "--store: expected duckdb:///PATH"),
        ("duckdb:////no/such/folder/x.duckdb", "127.0.0.1:0", "cannot open /no/such/folder"),
    ],
)
def test_what_cannot_be_is_one_line(
    start: Callable[..., Process], store: str, grpc_at: str, expected: str
) -> None:
    status, out, errors = start(store, grpc_at).end()
    assert (status, out) == (2, "")
    assert expected in errors
    assert errors.count("\n") == 1


def test_tls_files_are_named_with_their_source(
    start: Callable[..., Process], tmp_path: Path
) -> None:
    path = tmp_path / "collector.toml"
    for given, expected in (
        ('tls-key = "/no.key"', "tls-key: expected tls-cert and tls-key, both\n"),
        ('tls-client-ca = "/no.pem"', "tls-client-ca: expected tls-cert and tls-key, both\n"),
        ('tls-cert = "/no.pem"\ntls-key = "/no.key"', "tls-key: [Errno 2] No such file"),
    ):
        path.write_text(given)
        process = start("memory:", "127.0.0.1:0", "127.0.0.1:0", "--config", str(path))
        status, out, errors = process.end()
        assert (status, out) == (2, "")
        assert errors.startswith(f"infertrace collector: {path}: {expected}")
        assert errors.count("\n") == 1


def test_a_store_that_another_process_holds(start: Callable[..., Process], file_url: str) -> None:
    first = start(file_url)
    first.ready()
    status, _, errors = start(file_url).end()
    assert status == 2
    assert "cannot open" in errors
    assert errors.count("\n") == 1


def test_the_token_file_is_read(
    start: Callable[..., Process], tmp_path: Path, open_client: OpenClient
) -> None:
    path = tmp_path / "token"
    path.write_text("correct-horse-battery")
    process = start("memory:", "127.0.0.1:0", "127.0.0.1:0", "--token-file", str(path))
    addresses = process.ready()
    assert open_client(*addresses).error("/spans")[0] == 401
    assert open_client(*addresses, "correct-horse-battery").get("/spans") == []
    status, _, errors = start("memory:", "127.0.0.1:0", "127.0.0.1:0", "--token-file", "/no").end()
    assert status == 2
    assert errors.startswith("infertrace collector: --token-file: ")


def test_importing_the_command_is_cheap() -> None:
    code = (
        "import sys\n"
        "before = set(sys.modules)\n"
        "import infertrace.commands.collector\n"
        "heavy = {'duckdb', 'pyarrow', 'fastapi', 'uvicorn', 'grpc', 'google.protobuf'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize(
    "missing", ["duckdb", "pyarrow", "fastapi", "prometheus_client", "uvicorn"]
)
def test_without_the_extra(missing: str) -> None:
    code = f"import sys; sys.modules[{missing!r}] = None\n{START}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == (
        f"infertrace collector: {missing} is not installed: "
        "pip install 'infertrace-sdk[collector]'\n"
    )


def test_store_urls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    open_store("duckdb:///relative.duckdb").close()
    assert (tmp_path / "relative.duckdb").exists()
    open_store(f"duckdb:///{tmp_path / 'absolute.duckdb'}").close()
    assert (tmp_path / "absolute.duckdb").exists()
    open_store("memory:").close()
    for wrong in ("", "memory", "memory:x", "duckdb:", "duckdb:x", "duckdb:///", "mysql://x"):
        with pytest.raises(ValueError, match="store: expected duckdb:///PATH"):
            open_store(wrong)
    with pytest.raises(StoreError, match="cannot open the PostgreSQL database"):
        open_store("postgresql://127.0.0.1:1/spans")


def test_a_file_that_is_not_ours(tmp_path: Path) -> None:
    path = tmp_path / "x.duckdb"
    with duckdb.connect(str(path)) as connection:
        connection.execute("CREATE TABLE theirs (a INTEGER)")
    with pytest.raises(StoreError, match="not a store of infertrace"):
        open_store(f"duckdb:///{path}")
    path.write_bytes(b"not a database" * 1_000)
    with pytest.raises(StoreError, match="cannot open"):
        open_store(f"duckdb:///{path}")


def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.duckdb"
    open_store(f"duckdb:///{path}").close()
    with duckdb.connect(str(path)) as connection:
        connection.execute("UPDATE schema_version SET version = 1000")
    with pytest.raises(StoreError, match="schema has version 1000"):
        open_store(f"duckdb:///{path}")


def without_what_came_with_version_3(connection: duckdb.DuckDBPyConnection) -> None:
    connection.execute("DROP TABLE resources")
    for column in ("flags", "producer_id", "resource_id"):
        connection.execute(f"ALTER TABLE spans DROP COLUMN IF EXISTS {column}")


def test_an_older_schema_is_migrated(tmp_path: Path) -> None:
    path = tmp_path / "x.duckdb"
    open_store(f"duckdb:///{path}").close()
    with duckdb.connect(str(path)) as connection:
        connection.execute("UPDATE schema_version SET version = 1")
        connection.execute("DROP TABLE applied")
        without_what_came_with_version_3(connection)
    for _ in range(2):
        open_store(f"duckdb:///{path}").close()
    with duckdb.connect(str(path), read_only=True) as connection:
        assert connection.execute("SELECT version FROM schema_version").fetchall() == [(3,)]


def test_a_failed_start_lets_go_of_its_ports() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    for _ in range(2):
        with pytest.raises(StoreError):
            Collector(f"127.0.0.1:{port}", "127.0.0.1:0", "duckdb:////no/such/x.duckdb").start()
    with Collector(f"127.0.0.1:{port}", "127.0.0.1:0", "memory:"):
        pass


def test_a_full_disk_is_survived(
    start: Callable[..., Process], file_url: str, open_client: OpenClient, new_span: NewSpan
) -> None:
    """Nothing is acknowledged while the file cannot grow; ingest continues once it can."""
    resource = pytest.importorskip("resource")
    if not hasattr(resource, "prlimit"):
        pytest.skip("the limits of another process cannot be set here")
    process = start(file_url)
    client = open_client(*process.ready())
    pid = process.popen.pid
    acknowledged = 0

    def send_some() -> None:
        nonlocal acknowledged
        spans = [new_span(status_message=new_span().trace_id.hex() * 50) for _ in range(200)]
        acknowledged += client.send(*spans).accepted_count

    send_some()
    unlimited = resource.prlimit(pid, resource.RLIMIT_FSIZE, (1_000_000, resource.RLIM_INFINITY))

    def fill_the_disk() -> None:
        for _ in range(100):
            send_some()

    with pytest.raises(grpc.RpcError) as failure:
        fill_the_disk()
    assert failure.value.code() is grpc.StatusCode.UNAVAILABLE
    resource.prlimit(pid, resource.RLIMIT_FSIZE, unlimited)
    for _ in range(3):
        send_some()
    assert len(client.get("/spans", limit=10_000)) >= acknowledged
    assert process.end(signal.SIGTERM)[0] == 0


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A separate file system of a few megabytes."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(folder)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("a file system cannot be mounted here")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.mark.parametrize("killed", [False, True], ids=["goes on", "killed"])
def test_a_disk_that_is_really_full(
    start: Callable[..., Process],
    small_disk: Path,
    open_client: OpenClient,
    new_span: NewSpan,
    killed: bool,
) -> None:
    """The same on a real full disk: acknowledged spans are there once it has room again."""
    url = f"duckdb:///{small_disk / 'spans.duckdb'}"
    process = start(url)
    client = open_client(*process.ready())
    acknowledged: set[str] = set()

    def send_some() -> None:
        spans = [new_span(status_message=random.randbytes(1_000).hex()) for _ in range(200)]
        client.send(*spans)
        acknowledged.update(span.span_id.hex() for span in spans)

    def fill_the_disk() -> None:
        for _ in range(1_000):
            send_some()

    with pytest.raises(grpc.RpcError) as failure:
        fill_the_disk()
    assert failure.value.code() is grpc.StatusCode.UNAVAILABLE
    if killed:
        process.end(signal.SIGKILL)
    subprocess.run(["mount", "-o", "remount,size=200m", small_disk], check=True)
    if killed:
        process = start(url)
        client = open_client(*process.ready())
    send_some()
    stored = {span["span_id"] for span in client.get("/spans", limit=10_000)}
    assert acknowledged <= stored
    assert process.end(signal.SIGTERM)[0] == 0
