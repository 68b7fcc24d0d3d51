"""The attributes of a producer's resource are answered with its spans."""

from __future__ import annotations

from collector_client import Client, NewSpan
from infertrace.generated.span_pb2 import AttributeValue, Resource

HOST = Resource(
    attributes={
        "host.name": AttributeValue(string_value="gpu-2"),
        "process.pid": AttributeValue(int_value=2**60),
        "share": AttributeValue(double_value=1.0),
        "spot": AttributeValue(bool_value=False),
    }
)
AS_JSON = {"host.name": "gpu-2", "process.pid": 2**60, "share": 1.0, "spot": False}


def test_resources_come_back(client: Client, new_span: NewSpan) -> None:
    trace = b"t" * 16
    client.send(new_span(trace_id=trace), new_span(), producer_id=b"p" * 16, resource=HOST)
    client.send(new_span(trace_id=trace))
    spans = client.get(f"/traces/{trace.hex()}")["spans"]
    assert spans[0]["resource"] == AS_JSON
    assert spans[0]["producer_id"] == (b"p" * 16).hex()
    assert not spans[1].keys() & {"resource", "resource_id", "producer_id"}
    asked = client.get("/spans", include="resource")
    assert [span.get("resource") for span in asked] == [None, AS_JSON, AS_JSON]
    assert asked[1]["resource_id"] == asked[2]["resource_id"]
    assert not any("resource" in span for span in client.get("/spans"))
    status, error = client.error("/spans", include="everything")
    assert (status, error) == (400, "include: expected resource, got 'everything'")


def test_flags_come_back(client: Client, new_span: NewSpan) -> None:
    client.send(new_span(flags=0x301), new_span(flags=2**32 - 1), new_span())
    assert [span.get("flags") for span in client.get("/spans")] == [None, 2**32 - 1, 0x301]
