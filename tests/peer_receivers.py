"""Receivers of OTLP that others make, each in its own process on loopback, and what they keep."""

from __future__ import annotations

import json
import os
import signal
import socket
import sqlite3
import subprocess
import sysconfig
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, Final, Literal

import httpx

import peer_programs
from lasting_address import lasting_address

START_TIMEOUT_S: Final = 120
STOP_TIMEOUT_S: Final = 30

Attributes = dict[str, Any]


class PeerProgram(ABC):
    """One on the same addresses, HOST:PORT, however often it starts; `folder` is for its files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.grpc, self.http, self.query = (lasting_address() for _ in range(3))
        self._popen: subprocess.Popen[bytes] | None = None

    @staticmethod
    @abstractmethod
    def install() -> Path:
        """Its program; raises NotInstalled."""

    @abstractmethod
    def command(self) -> list[str]: ...

    def environment(self) -> Mapping[str, str]:
        return {}

    @property
    def pid(self) -> int:
        assert self._popen is not None
        return self._popen.pid

    def start(self) -> None:
        """Returns when it takes spans."""
        with (self.folder / "output.log").open("ab") as output:
            self._popen = subprocess.Popen(
                self.command(),
                env={**os.environ, **self.environment()},
                stdout=output,
                stderr=output,
            )
        deadline = time.monotonic() + START_TIMEOUT_S
        for address in (self.grpc, self.http):
            while not _listens(address):
                if self._popen.poll() is not None or time.monotonic() > deadline:
                    self.kill()
                    said = (self.folder / "output.log").read_text("utf-8", "replace")[-2000:]
                    raise RuntimeError(f"{type(self).__name__} did not start: {said}")
                time.sleep(0.1)

    def kill(self) -> None:
        """By SIGKILL."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """As its makers mean it."""
        self._end(signal.SIGTERM)

    def _end(self, number: int) -> None:
        if self._popen is None:
            return
        process, self._popen = self._popen, None
        process.send_signal(number)
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class PeerReceiver(PeerProgram):
    """One that tells what it has got."""

    keeps_across_a_kill = True
    """Whether `spans` has after a kill what it had before."""

    @abstractmethod
    def spans(self) -> dict[str, Attributes]:
        """The attributes of each span that it has, by its id in hexadecimal."""


class Jaeger(PeerReceiver):
    """Everything in one process; its spans are in its memory."""

    keeps_across_a_kill = False
    install = staticmethod(peer_programs.jaeger)

    def command(self) -> list[str]:
        addresses = {
            "collector.otlp.grpc": self.grpc,
            "collector.otlp.http": self.http,
            "query.http-server": self.query,
        }
        for other in (
            "query.grpc-server",
            "collector.grpc-server",
            "collector.http-server",
            "admin.http",
        ):
            addresses[other] = lasting_address()
        return [str(self.install()), *(f"--{k}.host-port={v}" for k, v in addresses.items())]

    def spans(self) -> dict[str, Attributes]:
        api = f"http://{self.query}/api"
        return {
            span["spanID"]: {tag["key"]: tag["value"] for tag in span["tags"]}
            for service in _json(f"{api}/services")["data"] or []
            if service != "jaeger-all-in-one"
            for trace in _json(f"{api}/traces", service=service, limit=100_000)["data"]
            for span in trace["spans"]
        }


class OpenTelemetryCollector(PeerReceiver):
    """It writes what it gets to a file, as JSON or as protobuf."""

    install = staticmethod(peer_programs.otelcol)

    def __init__(self, folder: Path, encoding: Literal["json", "proto"] = "json") -> None:
        super().__init__(folder)
        self._file = folder / "spans"
        self._encoding = encoding

    def command(self) -> list[str]:
        protocols = {"grpc": {"endpoint": self.grpc}, "http": {"endpoint": self.http}}
        # Its JSON is YAML.
        settings = {
            "receivers": {"otlp": {"protocols": protocols}},
            "exporters": {
                "file": {"path": str(self._file), "format": self._encoding, "append": True}
            },
            "service": {
                "pipelines": {"traces": {"receivers": ["otlp"], "exporters": ["file"]}},
                "telemetry": {"metrics": {"level": "none"}},
            },
        }
        path = self.folder / "otelcol.yaml"
        path.write_text(json.dumps(settings))
        return [str(self.install()), "--config", str(path)]

    def spans(self) -> dict[str, Attributes]:
        assert self._encoding == "json"
        requests = [json.loads(line) for line in self._whole_lines()]
        return {span["spanId"]: _of_otlp(span["attributes"]) for span in _otlp_spans(requests)}

    def _whole_lines(self) -> list[str]:
        # A kill may cut the last one.
        lines = self._file.read_text("utf-8").splitlines(keepends=True)
        return [line for line in lines if line.endswith("\n")]

    def span_count(self) -> int:
        """How many spans its file of protobuf has."""
        from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

        assert self._encoding == "proto"
        count, at = 0, 0
        content = self._file.read_bytes()
        while at < len(content):
            end = at + 4 + int.from_bytes(content[at : at + 4], "big")
            data = TracesData.FromString(content[at + 4 : end])
            count += sum(
                len(scope.spans) for group in data.resource_spans for scope in group.scope_spans
            )
            at = end
        return count


class Phoenix(PeerReceiver):
    """Arize Phoenix, on its SQLite."""

    install = staticmethod(peer_programs.phoenix)

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.query = self.http

    def command(self) -> list[str]:
        return [str(self.install()), "serve"]

    def environment(self) -> Mapping[str, str]:
        host, _, port = self.http.rpartition(":")
        return {
            "PHOENIX_WORKING_DIR": str(self.folder),
            "PHOENIX_HOST": host,
            "PHOENIX_PORT": port,
            "PHOENIX_GRPC_PORT": self.grpc.rpartition(":")[2],
            "PHOENIX_TELEMETRY_ENABLED": "false",
        }

    def spans(self) -> dict[str, Attributes]:
        return {
            span["context"]["span_id"]: span["attributes"]
            for page in self._pages()
            for span in page
        }

    def _pages(self) -> Iterator[Iterable[Any]]:
        cursor: dict[str, str] = {}
        while True:
            url = f"http://{self.query}/v1/projects/default/spans"
            page = _json(url, limit=1000, **cursor)
            yield page["data"]
            if not page["next_cursor"]:
                return
            cursor = {"cursor": page["next_cursor"]}

    def span_count(self) -> int:
        """How many spans its database has."""
        database = f"file:{self.folder / 'phoenix.db'}?mode=ro"
        with closing(sqlite3.connect(database, uri=True)) as connection:
            (count,) = connection.execute("SELECT count(*) FROM spans").fetchone()
            return int(count)


class Rotel(PeerProgram):
    """It keeps nothing: it sends what it gets on by OTLP over gRPC to `destination`, or nowhere."""

    install = staticmethod(peer_programs.rotel)

    def __init__(self, folder: Path, destination: str | None = None) -> None:
        super().__init__(folder)
        self._destination = destination

    def command(self) -> list[str]:
        command = [str(self.install()), "start"]
        command += ["--otlp-grpc-endpoint", self.grpc, "--otlp-http-endpoint", self.http]
        command += ["--pid-file", str(self.folder / "pid"), "--log-file", str(self.folder / "log")]
        if self._destination is None:
            return [*command, "--exporter", "blackhole"]
        command += ["--exporter", "otlp", "--otlp-exporter-protocol", "grpc"]
        return [*command, "--otlp-exporter-endpoint", f"http://{self._destination}"]

    def environment(self) -> Mapping[str, str]:
        return {"LD_LIBRARY_PATH": str(sysconfig.get_config_var("LIBDIR"))}


def _json(url: str, **parameters: str | int) -> Any:
    answer = httpx.get(url, params=parameters, trust_env=False, timeout=60)
    answer.raise_for_status()
    return answer.json()


def _otlp_spans(requests: Iterable[Any]) -> Iterator[Any]:
    for request in requests:
        for group in request["resourceSpans"]:
            for scope in group["scopeSpans"]:
                yield from scope["spans"]


def _of_otlp(attributes: Iterable[Any]) -> Attributes:
    """Of texts, numbers and truths in OTLP's JSON."""
    found = {}
    for attribute in attributes:
        ((kind, value),) = attribute["value"].items()
        found[attribute["key"]] = int(value) if kind == "intValue" else value
    return found


def _listens(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port))).close()
    except OSError:
        return False
    return True
