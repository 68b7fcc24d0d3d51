"""Old and new producers and collectors understand one another.

The old side is span_v0.proto, loaded from its descriptor set into its own pool.
"""

from pathlib import Path
from typing import Any

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory
from google.protobuf.message import Message

from infertrace.generated import span_pb2

HERE = Path(__file__).parent
OLD_TRACE_ID = bytes(range(1, 17))


@pytest.fixture(scope="module")
def old_batch_class() -> Any:
    pool = descriptor_pool.DescriptorPool()
    files = descriptor_pb2.FileDescriptorSet.FromString((HERE / "span_v0.binpb").read_bytes())
    for file in files.file:
        pool.Add(file)
    return message_factory.GetMessageClass(
        pool.FindMessageTypeByName("infertrace.v1.SendSpanBatchRequest")
    )


@pytest.fixture
def full_batch() -> span_pb2.SendSpanBatchRequest:
    text = (HERE / "full_batch.json").read_text(encoding="utf-8")
    return json_format.Parse(text, span_pb2.SendSpanBatchRequest())


def set_by_old_schema(data: Message, old: Message) -> dict[str, object]:
    """The part of `data` that the type of `old` has fields for, as a dict."""
    text = json_format.MessageToJson(data)
    return json_format.MessageToDict(
        json_format.Parse(text, type(old)(), ignore_unknown_fields=True)
    )


def test_new_reads_what_old_wrote(old_batch_class: Any) -> None:
    old = old_batch_class()
    span = old.spans.add(
        trace_id=OLD_TRACE_ID,
        span_id=b"12345678",
        parent_span_id=b"abcdefgh",
        service_name="vision-api",
        operation_name="inference",
        start_time_unix_nano=1_767_225_600_123_456_789,
        duration_nanos=42_500_000,
        status="OK",
        tags={"region": "eu"},
    )
    span.inference.model_name = "resnet50"
    span.inference.model_version = "2.1"
    span.inference.batch_size = 8
    span.inference.input_tokens = 24
    span.inference.output_tokens = 0
    span.resources.gpu_utilization_percent = 87.5
    span.resources.gpu_memory_used_bytes = 17_179_869_184

    new = span_pb2.SendSpanBatchRequest.FromString(old.SerializeToString())

    assert json_format.MessageToDict(new) == json_format.MessageToDict(old)
    inference, resources = new.spans[0].inference, new.spans[0].resources
    assert inference.HasField("batch_size")
    # Implicit presence: to an old producer, 0 and "not measured" were the same.
    assert not inference.HasField("output_tokens")
    assert not resources.HasField("gpu_memory_total_bytes")
    assert not resources.HasField("gpu_power_watts")
    assert new.producer_id == b""


def test_old_reads_what_new_wrote(
    old_batch_class: Any, full_batch: span_pb2.SendSpanBatchRequest
) -> None:
    old = old_batch_class.FromString(full_batch.SerializeToString())

    assert json_format.MessageToDict(old) == set_by_old_schema(full_batch, old)
    assert old.spans[0].inference.output_tokens == 100
    assert old.spans[1].operation_name == "request"


def test_old_reads_a_measured_zero_as_zero(old_batch_class: Any) -> None:
    new = span_pb2.SendSpanBatchRequest()
    new.spans.add().resources.gpu_utilization_percent = 0.0

    data = new.SerializeToString()

    assert data.endswith(b"\x09" + bytes(8)), "a measured zero is on the wire"
    old = old_batch_class.FromString(data)
    assert old.spans[0].HasField("resources")
    assert old.spans[0].resources.gpu_utilization_percent == 0.0


def test_old_passes_unknown_fields_on(
    old_batch_class: Any, full_batch: span_pb2.SendSpanBatchRequest
) -> None:
    relayed = old_batch_class.FromString(full_batch.SerializeToString()).SerializeToString()

    assert span_pb2.SendSpanBatchRequest.FromString(relayed) == full_batch


def test_new_passes_on_what_a_later_schema_adds() -> None:
    # Field 1000 as a number, and as a string or a message, which are the same on the wire.
    for addition in (b"\xc0\x3e\x07", b"\xc2\x3e\x05later"):
        span = span_pb2.Span(operation_name="inference").SerializeToString() + addition
        batch = span_pb2.SendSpanBatchRequest()
        batch.spans.append(span_pb2.Span.FromString(span))
        assert batch.spans[0].operation_name == "inference"
        assert addition in batch.SerializeToString()
