"""full_batch.json, which most wire tests send, sets every field.

Without this, a new field would silently stay out of all of them.
"""

from pathlib import Path

from google.protobuf import json_format
from google.protobuf.message import Message

from infertrace.generated.span_pb2 import SendSpanBatchRequest

FULL_BATCH = Path(__file__).with_name("full_batch.json")


def test_full_batch_sets_every_field() -> None:
    batch = json_format.Parse(FULL_BATCH.read_text("utf-8"), SendSpanBatchRequest())
    messages = [SendSpanBatchRequest.DESCRIPTOR]
    for message in messages:
        messages += [
            field.message_type
            for field in message.fields
            if field.message_type and field.message_type not in messages
        ]
    expected = {
        field.full_name
        for message in messages
        if not message.GetOptions().map_entry
        for field in message.fields
    }
    assert len(messages) > 7
    assert set_fields(batch) == expected


def set_fields(message: Message) -> set[str]:
    names = set()
    for field, value in message.ListFields():
        names.add(field.full_name)
        if not field.message_type:
            continue
        if hasattr(value, "ListFields"):
            names |= set_fields(value)
        else:
            for item in value.values() if hasattr(value, "values") else value:
                if hasattr(item, "ListFields"):
                    names |= set_fields(item)
    return names
