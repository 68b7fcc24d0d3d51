"""Whole spans, drawn with all that a user may set."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from backend_recording import Recording
from drawn_fields import VALID_FIELDS
from infertrace.recording import encoder, pure, values

TEXT = st.text(max_size=40) | st.text(min_size=100, max_size=300)
SCALARS = st.one_of(
    TEXT,
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
)
ATTRIBUTES = st.dictionaries(TEXT.filter(bool), SCALARS, max_size=4)
TRACEPARENTS = st.builds(
    "00-{:032x}-{:016x}-01".format, st.integers(1, 2**128 - 1), st.integers(1, 2**64 - 1)
)
SPANS = st.fixed_dictionaries(
    {
        "service": TEXT,
        "model": st.none() | TEXT,
        "operation": TEXT.filter(bool),
        "parent": st.none() | TRACEPARENTS,
        "kind": st.none() | st.sampled_from(sorted(values.KINDS)),
        "fields": st.fixed_dictionaries({}, optional=VALID_FIELDS),
        "tags": st.dictionaries(TEXT.filter(bool), TEXT, max_size=4),
        "attributes": ATTRIBUTES,
        "events": st.lists(st.tuples(TEXT.filter(bool), ATTRIBUTES), max_size=3),
        "links": st.lists(st.tuples(TRACEPARENTS, ATTRIBUTES), max_size=3),
        "status": st.none() | st.tuples(st.sampled_from(pure.STATUSES), st.none() | TEXT),
        "wrong": st.integers(0, 300),
        "sample": st.none()
        | st.fixed_dictionaries(
            {},
            optional={
                "gpu_utilization_percent": st.floats(0, 100),
                "gpu_memory_used_bytes": st.integers(0, 2**63 - 1),
                "gpu_device_id": TEXT,
                "memory_heap_bytes": st.integers(0, 2**63 - 1),
            },
        ),
    }
)


def record(recording: Recording, drawn: dict[str, Any]) -> Any:
    recorder = recording.recorder
    recorder.service_name = drawn["service"]
    recorder.anchor = 1_700_000_000 * 10**9
    recorder.sample = None
    if drawn["sample"] is not None:
        # Old enough for the age to be equal in both backends' spans.
        recorder.sample = (encoder.resource_metrics(drawn["sample"]), -(2**62))
    span = recording.start_span(
        drawn["model"],
        drawn["operation"],
        parent=drawn["parent"],
        kind=drawn["kind"],
        **drawn["fields"],
    )
    for key, text in drawn["tags"].items():
        span.set_tag(key, text)
    for key, value in drawn["attributes"].items():
        span.set_attribute(key, value)
    for name, attributes in drawn["events"]:
        span.add_event(name, attributes)
    for other, attributes in drawn["links"]:
        span.add_link(other, attributes)
    if drawn["status"]:
        span.set_status(*drawn["status"])
    for _ in range(drawn["wrong"]):
        span.set_batch_size(-1)
    span.end()
    return span
