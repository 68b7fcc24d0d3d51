"""No span takes more room than the encoder reserves for it.

The batches are so small that each span gets memory of its own, as large as the bound of its
encoding: tools/run_sanitized.py sees the first byte beyond, other runs the bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from backend_recording import Recording
from drawn_fields import LONGEST_NUMBERS, plain
from infertrace import backend as backends
from infertrace.generated.field_names import TEXT_FIELDS
from infertrace.limits import INT64_MIN, MAX_ENTRIES

LONG = "\N{SNOWMAN}" * 1000
KEYS = [f"{number:03}" for number in range(MAX_ENTRIES)]
TEXTS = dict.fromkeys(TEXT_FIELDS, LONG)
PARENT = f"00-{'f' * 32}-{'f' * 16}-01"


@pytest.fixture
def recording() -> Recording:
    pytest.importorskip("infertrace.recording.native")
    return Recording(backends.select("native"), max_batch_bytes=1)


def set_the_rest(span: Any) -> None:
    span.set_status("CANCELLED", LONG)


def add_events(span: Any) -> None:
    for key in KEYS:
        span.add_event(key, dict.fromkeys(KEYS, INT64_MIN))


def add_links(span: Any) -> None:
    for _ in KEYS:
        span.add_link(PARENT, dict.fromkeys(KEYS, 0.5))


FILLS: dict[str, tuple[dict[str, Any], Callable[[Any], None]]] = {
    "fields": ({**LONGEST_NUMBERS, **TEXTS}, set_the_rest),
    "one-letter tags": ({"tags": dict.fromkeys("abcdefgh", "x")}, lambda span: None),
    "empty tags": ({"tags": dict.fromkeys(KEYS, "")}, lambda span: None),
    "long tags": ({"tags": {LONG: LONG, LONG[1:]: LONG}}, lambda span: None),
    "integers": ({"attributes": dict.fromkeys(KEYS, INT64_MIN)}, lambda span: None),
    "floats": ({"attributes": dict.fromkeys(KEYS, 0.5)}, lambda span: None),
    "flags": ({"attributes": dict.fromkeys(KEYS, True)}, lambda span: None),
    "long attributes": ({"attributes": {LONG: LONG, LONG[1:]: LONG}}, lambda span: None),
    "events": ({}, add_events),
    "links": ({}, add_links),
}


@pytest.mark.parametrize("name", FILLS)
@pytest.mark.parametrize("model", ["m", LONG])
def test_a_span_fits_its_bound(recording: Recording, name: str, model: str) -> None:
    fields, fill = FILLS[name]
    recording.recorder.service_name = LONG
    recording.recorder.sample = (bytes.fromhex("0a00"), 0)
    with recording.start_span(model, LONG, parent=PARENT, **fields) as span:
        fill(span)
    sent = recording.take_one()
    assert (sent.service_name, sent.operation_name, sent.inference.model_name) == (
        LONG,
        LONG,
        model,
    )
    assert dict(sent.tags) == fields.get("tags", {})
    assert len(sent.attributes) == len(fields.get("attributes", {}))
    assert len(sent.events) == (MAX_ENTRIES if name == "events" else 0)
    assert len(sent.links) == (MAX_ENTRIES if name == "links" else 0)
    if name == "fields":
        assert {field: plain(getattr(sent.inference, field)) for field in fields} == fields
