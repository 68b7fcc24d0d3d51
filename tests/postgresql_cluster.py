"""A PostgreSQL server of its own, on loopback, as a user without privileges."""

from __future__ import annotations

import itertools
import os
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path

import psycopg

START_TIMEOUT_S = "60"


def binaries() -> Path:
    """Where initdb and pg_ctl are."""
    if found := shutil.which("initdb"):
        return Path(found).resolve().parent
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not versions:
        raise RuntimeError("these tests start a PostgreSQL server; install PostgreSQL 14 or newer")
    return versions[-1].parent


class Cluster:
    """Starts with the first database that is made, in a folder of its own."""

    def __init__(self, fsync: str = "off") -> None:
        # The tests kill processes, never the machine: no fsync is needed to survive that.
        self._fsync = fsync
        self._binaries = binaries()
        # initdb refuses to run as root; "nobody" owns nothing else.
        self._as = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"]
        if os.geteuid() != 0:
            self._as = []
        # Not in pytest's folder, which no other user may enter; a socket's path is short.
        self._folder = Path(tempfile.mkdtemp(prefix="infertrace-pg-", dir="/tmp"))
        if self._as:
            shutil.chown(self._folder, "nobody", "nogroup")
        self._data = self._folder / "data"
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]
        self._names = itertools.count()
        self._run(
            "initdb", "-D", self._data, "-U", "tests", "--auth=trust", "--no-sync", "-E", "UTF8"
        )
        self.start()
        self._admin = self.url("postgres")

    def _run(self, program: str, *arguments: object) -> None:
        command = [*self._as, str(self._binaries / program), *map(str, arguments)]
        subprocess.run(
            command, check=True, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL, cwd="/"
        )

    def start(self) -> None:
        options = f"-p {self._port} -c listen_addresses=127.0.0.1 -c unix_socket_directories= "
        options += f"-c fsync={self._fsync} -c max_connections=100"
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
        self._run("pg_ctl", "stop", "-w", "-D", self._data, "-m", mode)

    def url(self, database: str) -> str:
        return f"postgresql://tests@127.0.0.1:{self._port}/{database}"

    def new_database(self) -> str:
        """The URL of an empty one."""
        name = f"spans{next(self._names)}"
        with psycopg.connect(self._admin, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return self.url(name)

    def close(self) -> None:
        self.stop("immediate")
        shutil.rmtree(self._folder, ignore_errors=True)
