"""Runs its own PostgreSQL server, on loopback, as a user without privileges.

Where TimescaleDB is installed there are two kinds: with the extension preloaded, and without.
"""

from __future__ import annotations

import itertools
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

START_TIMEOUT_S = "60"
PARTITIONS, TIMESCALEDB = "postgresql", "timescaledb"
DESCRIPTIONS = {PARTITIONS: "native partitions", TIMESCALEDB: "a hypertable of TimescaleDB"}
# Stops the server and removes its folder when its standard input ends, which happens however the
# process that holds the other end dies.
_KEEPER = """
import shutil, subprocess, sys
sys.stdin.read()
subprocess.run(sys.argv[2:], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/")
shutil.rmtree(sys.argv[1], ignore_errors=True)
"""


def binaries() -> Path:
    """The folder of initdb and pg_ctl."""
    if found := shutil.which("initdb"):
        return Path(found).resolve().parent
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not versions:
        raise RuntimeError("these tests start a PostgreSQL server; install PostgreSQL 14 or newer")
    return versions[-1].parent


def kinds() -> list[str]:
    """The available kinds of server; lists the first anyway, which fails saying why."""
    try:
        share = subprocess.run(
            [binaries() / "pg_config", "--sharedir"], capture_output=True, text=True, check=True
        ).stdout.strip()
    except (RuntimeError, OSError, subprocess.CalledProcessError):
        return [PARTITIONS]
    has_extension = (Path(share) / "extension" / "timescaledb.control").exists()
    return [PARTITIONS, TIMESCALEDB] if has_extension else [PARTITIONS]


class Cluster:
    """A running server, in its own folder."""

    def __init__(self, kind: str = PARTITIONS, fsync: str = "off") -> None:
        self.kind = kind
        # The tests kill processes, never the machine: no fsync is needed to survive that.
        self._options = f"-c fsync={fsync} -c max_connections=100"
        self._options += " -c min_wal_size=32MB -c max_wal_size=64MB"  # CI's disk is small
        if kind == TIMESCALEDB:
            self._options += " -c shared_preload_libraries=timescaledb"
            self._options += " -c timescaledb.telemetry_level=off"
        self._binaries = binaries()
        # initdb refuses to run as root; "nobody" owns nothing else.
        self._as = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"]
        if os.geteuid() != 0:
            self._as = []
        # Not in pytest's folder, which no other user may enter; a socket's path must be short.
        self._folder = Path(tempfile.mkdtemp(prefix="infertrace-pg-", dir="/tmp"))
        if self._as:
            shutil.chown(self._folder, "nobody", "nogroup")
        self._data = self._folder / "data"
        self._keeper = subprocess.Popen(
            [sys.executable, "-c", _KEEPER, self._folder, *self._stop("immediate")],
            stdin=subprocess.PIPE,
            start_new_session=True,  # keep the terminal's signals from it
        )
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]
        self._names = itertools.count()
        self._databases: list[str] = []
        self._run(
            "initdb", "-D", self._data, "-U", "tests", "--auth=trust", "--no-sync", "-E", "UTF8"
        )
        self.start()
        self._admin = self.url("postgres")

    def _command(self, program: str, *arguments: object) -> list[str]:
        return [*self._as, str(self._binaries / program), *map(str, arguments)]

    def _run(self, program: str, *arguments: object) -> None:
        self._call(self._command(program, *arguments))

    def _call(self, command: list[str]) -> None:
        subprocess.run(
            command, check=True, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL, cwd="/"
        )

    def _stop(self, mode: str) -> list[str]:
        return self._command("pg_ctl", "stop", "-w", "-D", self._data, "-m", mode)

    def start(self) -> None:
        options = f"-p {self._port} -c listen_addresses=127.0.0.1 -c unix_socket_directories= "
        options += self._options
        log = self._folder / "log"
        self._run(
            "pg_ctl",
            "start",
            "-w",
            "-t",
            START_TIMEOUT_S,
            "-D",
            self._data,
            "-l",
            log,
            "-o",
            options,
        )

    def stop(self, mode: str = "fast") -> None:
        """`immediate` is a crash: nothing is written, and the log is replayed at the next start."""
        self._call(self._stop(mode))

    def url(self, database: str) -> str:
        return f"postgresql://tests@127.0.0.1:{self._port}/{database}"

    def new_database(self) -> str:
        """The URL of an empty database."""
        # Imported here, since the tests of wheels run without a PostgreSQL client.
        import psycopg

        name = f"spans{next(self._names)}"
        with psycopg.connect(self._admin, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        self._databases.append(name)
        return self.url(name)

    def drop_databases(self) -> None:
        """Each takes megabytes, and hundreds of tests have one."""
        if not self._databases:
            return
        import psycopg

        with psycopg.connect(self._admin, autocommit=True) as connection:
            while self._databases:
                connection.execute(f"DROP DATABASE {self._databases.pop()} WITH (FORCE)")

    def close(self) -> None:
        self._keeper.communicate()
