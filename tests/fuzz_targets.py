"""The fuzz targets: bytes that become a spool, the values of a span on both backends, a request of
OTLP, or an envelope that becomes one.

    python tests/fuzz_targets.py TARGET CORPUS [-max_total_time=SECONDS ...]

Coverage-guided, by atheris and so by libFuzzer, whose options these are. `faults/test_fuzzing.py`
runs the same functions under hypothesis.
"""

from __future__ import annotations

import os
import struct
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final
from zlib import crc32

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from backend_recording import Recording, available_backends
from infertrace import backend as backends
from infertrace.buffering.left_spans import DamagedSpansError
from infertrace.buffering.spool_file import (
    COMMITTED,
    HEADER,
    MAGIC,
    RECORD,
    WRAP,
    SpoolFile,
    room_for,
)
from infertrace.buffering.spool_reader import LeftSpool
from infertrace.collector.ingest import decoder_choice
from infertrace.collector.ingest import otlp_json as otlp_json_choice
from infertrace.collector.ingest.otlp.export_request import (
    decode_export_request,
    read_export_request,
)
from infertrace.collector.ingest.wire_fields import RequestError
from infertrace.exporting.answer import Answer
from infertrace.exporting.envelope import Request
from infertrace.exporting.spool_drain import Drain
from infertrace.generated.span_setters import SETTERS
from infertrace.limits import MAX_SPAN_BYTES
from infertrace.otlp import translator_choice

EMITTERS: Final = Path(__file__).parent / "collector" / "otlp" / "emitters"
_HEADER_BYTES: Final = 256
_COUNTERS: Final = 12


class Source:
    """Takes values from bytes, then zeros when these are used up."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def __bool__(self) -> bool:
        return self._at < len(self._data)

    def take(self, size: int) -> bytes:
        found = self._data[self._at : self._at + size]
        self._at += size
        return found.ljust(size, b"\0")

    def byte(self) -> int:
        return self.take(1)[0]

    def text(self) -> str:
        size = self.byte()
        raw = self.take(size * 1_000 if size > 250 else size)
        try:
            return raw.decode("utf-8", "surrogatepass")
        except UnicodeDecodeError:
            return raw.decode("latin-1")

    def value(self) -> Any:
        kind = self.byte() % 9
        if kind == 0:
            return int.from_bytes(self.take(self.byte() % 12), "little", signed=True)
        if kind == 1:
            return struct.unpack("<d", self.take(8))[0]
        if kind == 2:
            return self.text()
        if kind == 3:
            return self.take(self.byte())
        return (None, True, False, 1, 0.5)[kind - 4]

    def entries(self) -> dict[Any, Any]:
        return {self.text(): self.value() for _ in range(self.byte() % 5)}


def spool(data: bytes) -> None:
    """Whatever a file holds, its reader and its drain terminate and count correctly."""
    content = data[1:] if data[:1] < b"\x80" else _spool_of(Source(data[1:]))
    with tempfile.TemporaryDirectory(dir=_memory()) as folder:
        path = Path(folder) / "left.spool"
        path.write_bytes(content)
        try:
            left = LeftSpool(path)
        except DamagedSpansError:
            return
        try:
            _check(left, len(content))
        finally:
            left.close()


def _spool_of(source: Source) -> bytes:
    """A file whose records have correct checksums, even if all else in them is wrong."""
    seed = int.from_bytes(source.take(4), sys.byteorder)
    counters = [int.from_bytes(source.take(source.byte() % 9), "little") for _ in range(_COUNTERS)]
    ring = b""
    while source:
        kind = source.byte()
        if kind < 16:
            ring += source.take(kind)
        elif kind < 32:
            ring += struct.pack("=I", WRAP)
        else:
            body = RECORD.pack(0, 0, source.byte(), kind - 32, 0)[8:] + source.take(kind - 32)
            record = struct.pack("=II", COMMITTED, crc32(body, seed)) + body
            ring += record.ljust(room_for(kind - 32), b"\0")
    ring = ring.ljust(-(-len(ring) // 8) * 8, b"\0")
    header = HEADER.pack(MAGIC, seed, _HEADER_BYTES, bytes(16), len(ring), *counters)
    return header.ljust(_HEADER_BYTES, b"\0") + ring


def _check(left: LeftSpool, size: int) -> None:
    records = list(left.records())
    sequences = [record.sequence for record in records]
    assert sequences == sorted(set(sequences))
    assert all(sequence > left.settled_sequence for sequence in sequences)
    assert all(len(record.span) <= MAX_SPAN_BYTES for record in records)
    assert sum(RECORD.size + len(record.span) for record in records) <= size
    sent: list[Request] = []

    def send(request: Request, span_count: int) -> Answer:
        sent.append(request)
        return Answer(1, 0, "")

    drained = Drain(left, max_batch_bytes=200).run(send)
    assert 0 <= drained.delivered <= len(records)
    assert drained.delivered + drained.rejected == len(records)
    assert drained.damaged >= 0


def span(data: bytes) -> None:
    """Any values: nothing raises, and both backends write what the runtime reads, the same."""
    found = []
    for name in available_backends():
        recording = Recording(backends.select(name))
        _record(Source(data), recording)
        spans = recording.take_all()
        counts = recording.recorder.counts()
        assert counts[0] == counts[1] + sum(counts[3])
        for read in spans:
            for field in ("trace_id", "span_id", "start_time_unix_nano", "duration_nanos"):
                read.ClearField(field)
            for event in read.events:
                event.ClearField("time_unix_nano")
        found.append(([read.SerializeToString(deterministic=True) for read in spans], counts))
    assert all(other == found[0] for other in found)


def _record(source: Source, recording: Recording) -> None:
    made = recording.start_span(
        source.value(), source.value(), tags=source.entries(), attributes=source.entries()
    )

    def set_one(method: str, parameter: str) -> None:
        getattr(made, method)(**{parameter: source.value()})

    setters: list[Callable[[], None]] = [
        *(partial(set_one, *setter) for setter in SETTERS.values()),
        lambda: made.set_status(source.value(), source.value()),
        lambda: made.set_tag(source.value(), source.value()),
        lambda: made.set_attribute(source.value(), source.value()),
        lambda: made.add_event(source.value(), source.entries()),
        lambda: made.end(),
    ]
    while source:
        setters[source.byte() % len(setters)]()
    made.end()


def otlp(data: bytes) -> None:
    """Any bytes as a request of OTLP: both translators and all decoders make the same of them."""
    outcomes: list[Any] = []
    for name in ("native", "pure"):
        try:
            exported = read_export_request(data, name)
        except RequestError as error:
            outcomes.append(str(error))
            continue
        spans = decoder_choice.select(name).decode(exported.spans)
        outcomes.append((exported, spans.rows.to_pydict(), spans.rejections))
        assert spans.span_count == exported.span_count
        at_once, groups = decode_export_request(data, name)
        assert at_once.rows.equals(spans.rows)
        assert groups == exported.groups
        assert at_once.rejections == spans.rejections
    assert repr(outcomes[0]) == repr(outcomes[1])


def otlp_json(data: bytes) -> None:
    """Any bytes as OTLP in JSON: both forms refuse it, or make the same request of it."""
    outcomes: list[bytes | str] = []
    for name in ("native", "pure"):
        try:
            outcomes.append(otlp_json_choice.select(name).export_request(data))
        except RequestError as error:
            outcomes.append(str(error))
    assert outcomes[0] == outcomes[1]
    if isinstance(outcomes[0], bytes):
        read_export_request(outcomes[0], "native")


def envelope(data: bytes) -> None:
    """Whatever an envelope holds, both translators write the same, and the runtime reads it."""
    raw = data[1:]
    conventions = data[0] if data else 0
    made = {
        translator_choice.select(name).translate(raw, conventions & 7, b"infertrace", b"1")
        for name in available_backends()
    }
    (result,) = made
    request = ExportTraceServiceRequest.FromString(result.request)
    scopes = (scope for group in request.resource_spans for scope in group.scope_spans)
    assert sum(len(scope.spans) for scope in scopes) == result.span_count


def _memory() -> str | None:
    return "/dev/shm" if Path("/dev/shm").is_dir() else None


def seeds(folder: Path, target: str = "spool") -> None:
    """Seed files: real requests of OTLP, else intact spools, as a process leaves them."""
    if target in ("otlp", "otlp_json"):
        _requests(folder, "json" if target == "otlp_json" else "binpb")
        return
    for count in (0, 1, 30):
        recording = Recording(backends.select("pure"), max_buffer_bytes=4096, max_batch_bytes=1024)
        file = SpoolFile(
            folder, producer_id=os.urandom(16), resource=b"\x3a\x00", max_buffer_bytes=4096
        )
        recording.recorder.attach_spool(file)
        for number in range(count):
            recording.start_span("m", f"span {number}").end()
        (folder / f"{count} spans").write_bytes(b"\0" + file.path.read_bytes())
        recording.recorder.detach_spool()
        file.close(keep=False)
    recording.start_span("m", tags={"a": "b"}, attributes={"c": 1.5, "d": "e"}).end()
    batch = recording.recorder.take()
    assert batch is not None
    (folder / "envelope").write_bytes(b"\x07" + batch.payload + b"\x3a\x00")


def _requests(folder: Path, suffix: str) -> None:
    """Real requests."""
    for path in sorted(EMITTERS.glob(f"*/traces-*.{suffix}")):
        (folder / f"{path.parent.name} {path.stem}").write_bytes(path.read_bytes())


TARGETS: Final = {
    "spool": spool,
    "span": span,
    "otlp": otlp,
    "otlp_json": otlp_json,
    "envelope": envelope,
}

if __name__ == "__main__":
    import atheris  # type: ignore[import-untyped]

    target = TARGETS[sys.argv.pop(1)]
    atheris.instrument_all()
    atheris.Setup(sys.argv, target)
    atheris.Fuzz()
