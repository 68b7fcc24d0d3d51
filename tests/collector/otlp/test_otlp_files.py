"""What came by OTLP leaves as a file of OTLP as it came, whichever store kept it."""

from __future__ import annotations

import gzip
import itertools
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, Status

from canonical_otlp import canonical, parse_json
from drawn_otlp_values import ATTRIBUTES, TEXT, UINT32
from infertrace.collector.ingest.otlp.default_models import DefaultModels
from infertrace.collector.ingest.otlp_batches import decode_export
from infertrace.collector.ingest.otlp_json import selected as otlp_json
from infertrace.collector.otlp_files import export as export_module
from infertrace.collector.otlp_files.export import Exported, export_otlp
from infertrace.collector.otlp_files.recorded_spans import envelope, span_message
from infertrace.collector.otlp_files.stored_values import plain
from infertrace.collector.store.registry import open_store
from infertrace.collector.store.span_rows import span_rows
from infertrace.collector.store.store import Store
from infertrace.commands import main
from infertrace.generated.span_pb2 import AttributeValue
from infertrace.otlp import translator_choice
from otlp_requests import export_request, key_values, otlp_span
from postgresql_cluster import kinds
from store_batches import batch_of, new_span

EMITTERS = Path(__file__).with_name("emitters")
WINDOW_NS = 10**15  # for the spans of one example
ids = itertools.count(1)

EVENT = st.builds(
    Span.Event,
    time_unix_nano=st.integers(0, 2**63 - 1),
    name=TEXT,
    attributes=ATTRIBUTES,
    dropped_attributes_count=UINT32,
)
LINK = st.builds(
    Span.Link,
    trace_id=st.binary(max_size=17),
    span_id=st.binary(max_size=9),
    trace_state=TEXT,
    attributes=ATTRIBUTES,
    dropped_attributes_count=UINT32,
    flags=UINT32,
)
SPAN = st.builds(
    Span,
    trace_state=TEXT,
    parent_span_id=st.just(b"") | st.binary(min_size=8, max_size=8).filter(any),
    name=TEXT | st.just("inference"),
    kind=st.integers(-1, 7),
    start_time_unix_nano=st.integers(1, WINDOW_NS - 1),
    end_time_unix_nano=st.integers(0, WINDOW_NS),
    attributes=ATTRIBUTES,
    dropped_attributes_count=UINT32,
    events=st.lists(EVENT, max_size=2),
    dropped_events_count=UINT32,
    links=st.lists(LINK, max_size=2),
    dropped_links_count=UINT32,
    status=st.builds(Status, message=TEXT, code=st.integers(0, 4)),
    flags=UINT32,
)
SCOPE = st.builds(
    InstrumentationScope,
    name=TEXT | st.sampled_from(["vllm.tracing.otel", "litellm"]),
    version=TEXT,
    attributes=ATTRIBUTES.filter(lambda pairs: sum(pair.ByteSize() for pair in pairs) < 200),
)
SCOPE_SPANS = st.builds(ScopeSpans, scope=SCOPE, spans=st.lists(SPAN, max_size=3))
RESOURCE = st.builds(Resource, attributes=ATTRIBUTES, dropped_attributes_count=UINT32)
REQUEST = st.builds(
    ExportTraceServiceRequest,
    resource_spans=st.lists(
        st.builds(ResourceSpans, resource=RESOURCE, scope_spans=st.lists(SCOPE_SPANS, max_size=2)),
        max_size=3,
    ),
)


@pytest.fixture(params=["duckdb", *kinds()])
def store(request: pytest.FixtureRequest, new_store_url: Any) -> Any:
    opened = open_store(new_store_url(request.param))
    yield opened
    opened.close()


def exported(
    store: Store, path: Path, since_ns: int = 0, until_ns: int = 2**63 - 1
) -> list[ExportTraceServiceRequest]:
    assert export_otlp(store, path, since_ns, until_ns)[1:] == (0, "")
    return list(map(parse_json, path.read_bytes().splitlines()))


def test_what_came_in_comes_out(store: Store, tmp_path: Path) -> None:
    @settings(suppress_health_check=list(HealthCheck), deadline=None)
    @given(REQUEST)
    def check(request: ExportTraceServiceRequest) -> None:
        window_ns = next(ids) * WINDOW_NS
        for group in request.resource_spans:
            for scope in group.scope_spans:
                for span in scope.spans:
                    # It takes the place of the name.
                    kept = [it for it in span.attributes if it.key != "infertrace.operation_name"]
                    del span.attributes[:]
                    span.attributes.extend(kept)
                    span.trace_id = next(ids).to_bytes(16, "big")
                    span.span_id = next(ids).to_bytes(8, "big")
                    span.start_time_unix_nano += window_ns
                    span.end_time_unix_nano += window_ns
        store.commit([decode_export(request.SerializeToString()).batch])
        found = exported(store, tmp_path / "a.jsonl", window_ns, window_ns + WINDOW_NS)
        assert canonical(*found) == canonical(request)

    check()


@pytest.mark.parametrize("folder", sorted(EMITTERS.iterdir()), ids=lambda path: path.name)
def test_what_real_programs_sent_comes_out(store: Store, tmp_path: Path, folder: Path) -> None:
    sent = ExportTraceServiceRequest()
    for path in sorted(folder.glob("traces-*")):
        raw = path.read_bytes()
        if path.suffix == ".json":
            raw = otlp_json.export_request(raw)
        sent.MergeFromString(raw)
    assert sent.resource_spans or folder.name == "vllm-startup-failure"
    store.commit([decode_export(sent.SerializeToString()).batch])
    # What was sent again was stored once.
    expected = Counter(set(canonical(sent)))
    assert canonical(*exported(store, tmp_path / "a.jsonl")) == expected


def test_a_model_that_the_collector_gave_is_written(tmp_path: Path) -> None:
    store = open_store("memory:")
    models = DefaultModels({"server": "tiny"})
    tokens = key_values({"gen_ai.usage.input_tokens": "3"})
    named = key_values({"gen_ai.usage.input_tokens": "3", "model": "own"})
    raw = export_request(otlp_span(attributes=tokens), otlp_span(attributes=named))
    store.commit([decode_export(raw.SerializeToString(), models).batch])
    (found,) = exported(store, tmp_path / "a.jsonl")
    store.close()
    (scope,) = found.resource_spans[0].scope_spans
    found_models = {
        (it.key, it.value.string_value) for span in scope.spans for it in span.attributes
    }
    assert found_models - {("gen_ai.usage.input_tokens", "3")} == {
        ("gen_ai.request.model", "tiny"),
        ("model", "own"),
    }


def test_what_came_by_our_own_protocol_has_the_names_of_otlp(tmp_path: Path) -> None:
    store = open_store("memory:")
    span = new_span(tags={"a": "b"}, attributes={"k": AttributeValue(bytes_value=b"x")})
    span.events.add(name="e", time_unix_nano=5)
    span.links.add(trace_id=b"t" * 16, span_id=b"s" * 8, trace_state="a=b", flags=1)
    named = {"service.name": AttributeValue(string_value="server")}
    store.commit([batch_of([span], b"p" * 16, 1, named), batch_of([new_span()])])
    found = canonical(*exported(store, tmp_path / "a.jsonl"))
    store.close()
    assert found.total() == 2
    (text,) = (it for it in found if "service.instance.id" in it)
    for part in ("gen_ai.request.model", "70707070-7070", "('a', ('string_value', 'b'))", "a=b"):
        assert part in text


def test_what_a_tracer_sent_by_otlp_comes_out(tmp_path: Path) -> None:
    raw = envelope([span_message(row) for row in span_rows([new_span()]).to_pylist()], None, None)
    made = translator_choice.select().translate(raw, 1, b"infertrace", b"1")
    store = open_store("memory:")
    store.commit([decode_export(made.request).batch])
    found = exported(store, tmp_path / "a.jsonl")
    store.close()
    assert canonical(*found) == canonical(ExportTraceServiceRequest.FromString(made.request))


def test_what_langfuse_says_of_a_failure_stays_an_attribute(tmp_path: Path) -> None:
    said = {"level": "ERROR", "status_message": "out of memory"}
    attributes = key_values({f"langfuse.observation.{key}": it for key, it in said.items()})
    request = export_request(otlp_span(attributes=attributes))
    store = open_store("memory:")
    store.commit([decode_export(request.SerializeToString()).batch])
    found = exported(store, tmp_path / "a.jsonl")
    store.close()
    assert canonical(*found) == canonical(request)


def test_a_span_that_otlp_cannot_hold_is_left_out_and_counted(
    tmp_path: Path, new_store_url: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    url = new_store_url("duckdb")
    store = open_store(url)
    bad = new_span()
    bad.links.add(trace_id=b"short")
    store.commit([batch_of([bad, new_span()])])
    store.close()
    path = tmp_path / "a.otlp.jsonl"
    assert main(["export", "--store", url, "--to", str(path)]) == 1
    said = capsys.readouterr()
    assert said.out == f"infertrace export: 1 spans to {path}\n"
    assert "1 spans left out, the first for links: expected ids" in said.err


@pytest.mark.parametrize("limit", ["MAX_LINE_SPANS", "MAX_LINE_BYTES"])
def test_lines_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str) -> None:
    monkeypatch.setattr(export_module, limit, 1)
    store = open_store("memory:")
    spans = [otlp_span(attributes=key_values({"a": "b"})) for _ in range(3)]
    request = export_request(*spans)
    store.commit([decode_export(request.SerializeToString()).batch])
    found = exported(store, tmp_path / "a.jsonl")
    store.close()
    assert len(found) == 3
    assert canonical(*found) == canonical(request)


@pytest.mark.parametrize(
    ("to", "arguments", "written"),
    [
        ("a.otlp.jsonl", [], "a.otlp.jsonl"),
        ("a.otlp.jsonl.gz", [], "a.otlp.jsonl.gz"),
        ("a.otlp.jsonl.zst", [], "a.otlp.jsonl.zst"),
        ("folder", ["--format", "otlp"], "folder/spans.otlp.jsonl"),
    ],
)
def test_the_command(
    tmp_path: Path,
    new_store_url: Any,
    capsys: pytest.CaptureFixture[str],
    to: str,
    arguments: list[str],
    written: str,
) -> None:
    url = new_store_url("duckdb")
    store = open_store(url)
    store.commit([decode_export(export_request(otlp_span()).SerializeToString()).batch])
    store.close()
    for _ in range(2):  # the second replaces the first
        assert main(["export", "--store", url, "--to", str(tmp_path / to), *arguments]) == 0
    assert f"1 spans to {tmp_path / written}\n" in capsys.readouterr().out
    path = tmp_path / written
    assert path.stat().st_mode & 0o077 == 0
    assert [it.name for it in path.parent.glob("*.partial")] == []
    if to.endswith(".gz"):
        assert len(gzip.decompress(path.read_bytes()).splitlines()) == 1


def test_a_wrong_format(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    to = str(tmp_path / "a.otlp.jsonl")
    assert main(["export", "--store", "memory:", "--to", to, "--format", "parquet"]) == 2
    assert "--to: expected a folder for --format parquet" in capsys.readouterr().err


def test_a_failed_export_leaves_the_earlier_file(tmp_path: Path) -> None:
    class Failing:
        def rows(self, since_ns: int, until_ns: int) -> Any:
            raise OSError("gone")

        def resources(self, ids: Any) -> Any:
            return {}

    path = tmp_path / "a.jsonl"
    path.write_text("before")
    with pytest.raises(OSError, match="gone"):
        export_otlp(Failing(), path, 0, 1)
    assert [(it.name, it.read_text()) for it in tmp_path.iterdir()] == [("a.jsonl", "before")]


def test_stored_maps_that_look_like_bytes() -> None:
    stored = json.loads('[{"$bytes":"YQ=="},{"$$bytes":"YQ=="},{"$$$bytes":1},{"a":1,"$bytes":2}]')
    expected = [b"a", {"$bytes": "YQ=="}, {"$$bytes": 1}, {"a": 1, "$bytes": 2}]
    assert plain(stored) == expected


def test_nothing_stored(tmp_path: Path) -> None:
    store = open_store("memory:")
    assert export_otlp(store, tmp_path / "a.jsonl", 0, 1) == Exported(0, 0, "")
    store.close()
    assert (tmp_path / "a.jsonl").read_bytes() == b""
