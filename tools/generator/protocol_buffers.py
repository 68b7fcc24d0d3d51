"""The messages of span.proto, and what the tests of the schema keep of each field."""

from __future__ import annotations

import json
import re
import textwrap
from typing import Any

from generator.field_table import MESSAGES, Field, Table

WIDTH = 100


def proto_with_messages(proto: str, table: Table) -> str:
    """The text of span.proto with the messages of the table in it."""
    for message in MESSAGES:
        pattern = re.compile(rf"^message {message} \{{\n.*?^\}}\n", re.MULTILINE | re.DOTALL)
        proto, count = pattern.subn(lambda _: _message(message, table), proto)  # noqa: B023
        if count != 1:
            raise ValueError(f"span.proto: expected one message {message}, got {count}")
    return proto


def _message(message: str, table: Table) -> str:
    lines = [f"message {message} {{"]
    for it in table.by_number(message):
        comment = it.description
        if comment and it.kind.values:
            comment = f"{comment} {it.kind.values.capitalize()}."
        lines += [f"  // {line}" for line in textwrap.wrap(comment, WIDTH - len("  // "))]
        lines.append(f"  {_type(it)} {it.name} = {it.number};")
    return "\n".join([*lines, "}"]) + "\n"


def _type(it: Field) -> str:
    return f"optional {it.kind.proto}" if it.kind.is_optional else it.kind.proto


def extended_promises(promises: str, table: Table) -> str:
    """field_numbers.json with new fields added; never changes an existing one."""
    content = json.loads(promises)
    for it in table.fields:
        promised = content["messages"][it.message]
        kind = _type(it)
        if kind.startswith("map<"):  # protobuf declares a message for its entries
            entry = f"{re.sub('(?:^|_)(.)', lambda found: found[1].upper(), it.name)}Entry"
            kind = f"repeated {it.message}.{entry}"
            key, value = it.kind.proto.removeprefix("map<").removesuffix(">").split(", ")
            content["messages"].setdefault(
                f"{it.message}.{entry}", {"1": f"{key} key", "2": f"{value} value"}
            )
        promised.setdefault(str(it.number), f"{kind} {it.name}")
    return _updated(promises, content)


def extended_batch(batch: str, table: Table) -> str:
    """full_batch.json with a value added for each number or text that it lacks."""
    content = json.loads(batch)
    span = content["spans"][0]
    parts = {
        "Span": span,
        "InferenceContext": span["inference"],
        "ResourceMetrics": span["resources"],
    }
    for it in table.fields:
        key = re.sub(r"_(\w)", lambda found: found[1].upper(), it.name)
        if it.kind.sample is not None:
            parts[it.message].setdefault(key, it.kind.sample)
    return _updated(batch, content)


def _updated(text: str, content: Any) -> str:
    if json.loads(text) == content:
        return text
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"
