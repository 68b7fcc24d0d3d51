"""No field moves, changes its type, or takes the number of another: the wire is a promise.

field_numbers.json is what has been promised. A new field adds a line to it; a removed one stays
in it for good, and is `reserved` (number and name) in span.proto.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
)

from infertrace.generated import span_pb2

PROMISED = json.loads(Path(__file__).with_name("field_numbers.json").read_text(encoding="utf-8"))


def messages_of(file: FileDescriptorProto) -> Iterator[tuple[str, DescriptorProto]]:
    pending = [(message.name, message) for message in file.message_type]
    for name, message in pending:
        yield name, message
        pending += [(f"{name}.{nested.name}", nested) for nested in message.nested_type]


def declaration_of(field: FieldDescriptorProto, package: str) -> str:
    if field.label == FieldDescriptorProto.LABEL_REPEATED:
        label = "repeated "
    else:
        label = "optional " if field.proto3_optional else ""
    kind = FieldDescriptorProto.Type.Name(field.type).removeprefix("TYPE_").lower()
    return f"{label}{field.type_name.removeprefix(f'.{package}.') or kind} {field.name}"


def broken_promises(file: FileDescriptorProto) -> list[str]:
    broken = []
    messages = dict(messages_of(file))
    for name in sorted(PROMISED["messages"].keys() | messages.keys()):
        promised = PROMISED["messages"].get(name, {})
        message = messages.get(name, DescriptorProto())
        present = {str(field.number): field for field in message.field}
        if name not in messages:
            broken.append(f"{name}: the message is gone")
        for number in sorted(promised.keys() | present.keys(), key=int):
            where = f"{name} {number}"
            expected = promised.get(number)
            if number in present:
                actual = declaration_of(present[number], file.package)
                if expected is None:
                    broken.append(f"{where}: {actual} is not in field_numbers.json")
                elif actual != expected:
                    broken.append(f"{where}: was {expected}, is {actual}")
            elif not any(r.start <= int(number) < r.end for r in message.reserved_range):
                broken.append(f"{where}: {expected} is gone and its number is not reserved")
            elif expected.split()[-1] not in message.reserved_name:
                broken.append(f"{where}: {expected} is gone and its name is not reserved")
    methods = {
        f"/{file.package}.{service.name}/{method.name}": " -> ".join(
            kind.removeprefix(f".{file.package}.")
            for kind in (method.input_type, method.output_type)
        )
        for service in file.service
        for method in service.method
    }
    if methods != PROMISED["methods"]:
        broken.append(f"methods: were {PROMISED['methods']}, are {methods}")
    return broken


@pytest.fixture
def file() -> FileDescriptorProto:
    file = FileDescriptorProto()
    span_pb2.DESCRIPTOR.CopyToProto(file)
    return file


def test_promises_are_kept(file: FileDescriptorProto) -> None:
    assert broken_promises(file) == []


def move(span: DescriptorProto) -> None:
    next(field for field in span.field if field.name == "status").number = 100


def retype(span: DescriptorProto) -> None:
    field = next(field for field in span.field if field.name == "duration_nanos")
    field.type = FieldDescriptorProto.TYPE_SINT64


def remove(span: DescriptorProto) -> None:
    del span.field[[field.name for field in span.field].index("status")]


def remove_and_reserve_number(span: DescriptorProto) -> None:
    remove(span)
    span.reserved_range.add(start=8, end=9)


def remove_and_reuse(span: DescriptorProto) -> None:
    remove(span)
    span.field.add(name="outcome", number=8, type=FieldDescriptorProto.TYPE_STRING)


def add(span: DescriptorProto) -> None:
    span.field.add(name="outcome", number=100, type=FieldDescriptorProto.TYPE_STRING)


@pytest.mark.parametrize(
    ("change", "complaints"),
    [
        (
            move,
            [
                "Span 8: string status is gone and its number is not reserved",
                "Span 100: string status is not in field_numbers.json",
            ],
        ),
        (retype, ["Span 7: was int64 duration_nanos, is sint64 duration_nanos"]),
        (remove, ["Span 8: string status is gone and its number is not reserved"]),
        (
            remove_and_reserve_number,
            ["Span 8: string status is gone and its name is not reserved"],
        ),
        (remove_and_reuse, ["Span 8: was string status, is string outcome"]),
        (add, ["Span 100: string outcome is not in field_numbers.json"]),
    ],
)
def test_a_broken_promise_is_seen(
    file: FileDescriptorProto, change: Callable[[DescriptorProto], None], complaints: list[str]
) -> None:
    change(next(message for message in file.message_type if message.name == "Span"))
    assert broken_promises(file) == complaints


def test_a_reserved_field_may_go(file: FileDescriptorProto) -> None:
    span = next(message for message in file.message_type if message.name == "Span")
    remove_and_reserve_number(span)
    span.reserved_name.append("status")
    assert broken_promises(file) == []


def test_a_lost_method_is_seen(file: FileDescriptorProto) -> None:
    del file.service[0].method[0]
    assert len(broken_promises(file)) == 1
