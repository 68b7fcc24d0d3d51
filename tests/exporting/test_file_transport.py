"""Spans that go to a file: whole batches, whoever writes, dies or runs out of room."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.internal.decoder import _DecodeVarint32  # type: ignore[attr-defined]

from backend_recording import assert_closed
from infertrace.exporting.answer import Retryable
from infertrace.exporting.file_transport import FileTransport, Unreadable, read_batches
from infertrace.generated.span_pb2 import SendSpanBatchRequest

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture
def sender() -> None:
    """No gRPC is in play."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "spans of today.binpb"


def endpoint(path: Path) -> str:
    return f"file://{str(path).replace(' ', '%20')}"


def requests(*paths: Path) -> list[SendSpanBatchRequest]:
    """As the protobuf runtime reads them."""
    found = []
    for path in paths:
        data, position = path.read_bytes(), 0
        while position < len(data):
            size, position = _DecodeVarint32(data, position)
            found.append(SendSpanBatchRequest.FromString(data[position : position + size]))
            position += size
    return found


def test_a_file_takes_what_a_collector_would(new_tracer: Callable[..., Any], path: Path) -> None:
    tracer = new_tracer(endpoint(path), resource_attributes={"zone": "a"})
    for number in range(3):
        tracer.start_span("m", batch_size=number).end()
        assert tracer.flush(30)
    assert tracer.shutdown()
    assert tracer.stats()["delivered"] == 3
    *batches, goodbye = requests(path)
    assert [span.inference.batch_size for request in batches for span in request.spans] == [0, 1, 2]
    assert [request.batch_sequence for request in (*batches, goodbye)] == [1, 2, 3, 4]
    assert goodbye.final
    assert goodbye.produced_count == 3
    assert len({request.producer_id for request in (*batches, goodbye)}) == 1
    assert [SendSpanBatchRequest.FromString(found) for found in read_batches(path)] == [
        *batches,
        goodbye,
    ]


def test_a_full_file_is_renamed_and_nothing_is_lost(path: Path) -> None:
    transport = FileTransport(path, max_bytes=1000)
    sent = [
        SendSpanBatchRequest(batch_sequence=number, producer_id=bytes(90)) for number in range(50)
    ]
    for request in sent:
        transport.send((request.SerializeToString(),), 0, 1)
    transport.close()
    moved = len(list(path.parent.iterdir())) - 1
    assert moved > 1
    files = [*(path.with_name(f"{path.name}.{number + 1}") for number in range(moved)), path]
    assert all(file.stat().st_size <= 1000 for file in files)
    assert requests(*files) == sent


def test_a_batch_larger_than_a_file_still_goes(path: Path) -> None:
    transport = FileTransport(path, max_bytes=10)
    for size in (100, 200):
        transport.send((bytes(size // 2), bytes(size // 2)), 0, 1)
    transport.close()
    assert list(read_batches(path)) == [bytes(200)]
    assert list(read_batches(path.with_name(f"{path.name}.1"))) == [bytes(100)]


WRITER = """
import sys
from pathlib import Path
from infertrace.exporting.file_transport import FileTransport
transport = FileTransport(Path(sys.argv[1]), max_bytes=20_000)
for number in range(300):
    transport.send((f"{sys.argv[2]} {number} ".encode() * 20,), 0, 1)
"""


def test_processes_share_a_file(path: Path) -> None:
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, path, name]) for name in ("a", "b", "c")
    ]
    assert [writer.wait(60) for writer in writers] == [0, 0, 0]
    found = [batch for file in path.parent.iterdir() for batch in read_batches(file)]
    expected = [f"{name} {number} ".encode() * 20 for name in "abc" for number in range(300)]
    assert sorted(found) == sorted(expected)


def test_a_file_taken_away_is_made_anew(path: Path) -> None:
    transport = FileTransport(path)
    transport.send((b"first",), 0, 1)
    taken = path.rename(path.with_name("taken"))
    transport.send((b"second",), 0, 1)
    path.unlink()
    transport.send((b"third",), 0, 1)
    transport.close()
    assert list(read_batches(taken)) == [b"first"]
    assert list(read_batches(path)) == [b"third"]


@pytest.mark.parametrize("missing", [1, 301], ids=["within the batch", "within its length"])
def test_after_a_killed_writer_comes_another_file(path: Path, missing: int) -> None:
    first = FileTransport(path)
    first.send((b"whole",), 0, 1)
    first.send((bytes(300),), 0, 1)
    first.close()
    os.truncate(path, path.stat().st_size - missing)
    second = FileTransport(path)
    second.send((b"later",), 0, 1)
    second.close()
    assert list(read_batches(path)) == [b"later"]
    damaged = read_batches(path.with_name(f"{path.name}.1"))
    assert next(damaged) == b"whole"
    with pytest.raises(Unreadable, match="ends within a batch"):
        next(damaged)


NO_ROOM = """
import json, resource, signal, sys, infertrace
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
tracer = infertrace.Tracer(sys.argv[1], export_interval_s=0.05, resource_interval_s=0)
tracer.start_span("m").end()
assert tracer.flush(30)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
tracer.start_span("m", tags={"long": "x" * 5000}).end()
stuck = tracer.flush(0.5), tracer.stats()
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
print(json.dumps([*stuck, tracer.flush(30), tracer.stats()]))
"""


def test_no_room_keeps_the_file_whole_and_the_spans_waiting(backend: Any, path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", NO_ROOM, endpoint(path)],
        env={**os.environ, "INFERTRACE_BACKEND": backend.NAME},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    flushed, stuck, flushed_later, later = json.loads(done.stdout)
    assert (flushed, stuck["delivered"], stuck["pending"]) == (False, 1, 1)
    assert (flushed_later, later["delivered"], later["pending"]) == (True, 2, 0)
    assert_closed(later)
    assert sum(len(request.spans) for request in requests(path)) == 2
    assert "cannot deliver spans, will keep trying" in done.stderr


def test_a_missing_folder_is_said_and_waited_for(
    new_tracer: Callable[..., Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "later"
    tracer = new_tracer(f"file://{folder}/spans")
    tracer.start_span("m").end()
    assert not tracer.flush(0.3)
    assert f"No such file or directory: '{folder}/spans'" in caplog.text
    folder.mkdir()
    assert tracer.flush(30)
    assert len(requests(folder / "spans")) == 1


def test_a_file_of_something_else(path: Path) -> None:
    path.write_bytes(b"\xff" * 100)
    with pytest.raises(Unreadable, match="not a file of batches"):
        list(read_batches(path))


def test_a_folder_is_retried(tmp_path: Path) -> None:
    with pytest.raises(Retryable, match="Is a directory"):
        FileTransport(tmp_path).send((b"",), 0, 1)


@pytest.mark.parametrize("bad", ["file://relative", "file:///folder/", "file://", "file:x"])
def test_a_bad_path(new_tracer: Callable[..., Any], bad: str) -> None:
    with pytest.raises(ValueError, match=r"endpoint: expected .* or file:///PATH, got"):
        new_tracer(bad)


def test_forked_children_write_to_it_too(backend: Any, path: Path) -> None:
    program = """
        import os, sys, infertrace
        tracer = infertrace.Tracer(sys.argv[1])
        tracer.start_span("parent").end()
        assert tracer.flush(30)
        children = []
        for number in range(3):
            child = os.fork()
            if child == 0:
                tracer.start_span("child").end()
                os._exit(not tracer.shutdown())
            children.append(child)
        assert [os.waitpid(child, 0)[1] for child in children] == [0, 0, 0]
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), endpoint(path)],
        env={**os.environ, "INFERTRACE_BACKEND": backend.NAME},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    names = [span.inference.model_name for request in requests(path) for span in request.spans]
    assert sorted(names) == ["child", "child", "child", "parent"]


def test_the_script_of_the_docs(new_tracer: Callable[..., Any], path: Path) -> None:
    (script,) = re.findall(r"```python\n(.*?)```", (DOCS / "file-export.md").read_text(), re.S)
    assert len(script.splitlines()) <= 10
    tracer = new_tracer(endpoint(path))
    for _ in range(3):
        tracer.start_span("gpt-4", "decode").end()
        assert tracer.flush(30)
    done = subprocess.run(
        [sys.executable, "-c", script, path],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 3
    assert all("gpt-4 decode" in line for line in done.stdout.splitlines())
