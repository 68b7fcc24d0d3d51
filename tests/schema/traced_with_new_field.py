"""Run with the package that tests/schema/test_new_field.py builds: the new field, end to end.

    python traced_with_new_field.py FIELD STORE_URL

Prints the span as the collector answers it, and how many older spans the store still has.
"""

from __future__ import annotations

import json
import sys
import time
import urllib.request
from array import array
from typing import Any

import infertrace
from infertrace.collector.server import Collector

field, store_url = sys.argv[1:]
VALUES = (0.25, 0.5, 0.75)


def answered(http_address: str, path: str) -> Any:
    with urllib.request.urlopen(f"http://{http_address}{path}", timeout=60) as answer:
        return json.load(answer)


with Collector("127.0.0.1:0", "127.0.0.1:0", store_url) as collector:
    tracer = infertrace.Tracer(collector.grpc_address, resource_interval_s=0)
    by_keyword: Any = {field: VALUES[0]}
    with tracer.start_span("by keyword", **by_keyword):
        pass
    with tracer.start_span("by setter") as span:
        getattr(span, f"set_{field}")(VALUES[1])
    columns: Any = {field: array("d", [VALUES[2]])}
    times: Any = {"start_ns": array("q", [time.time_ns()]), "duration_ns": array("q", [1])}
    tracer.record_batch("by column", **times, **columns)
    wrong: Any = {field: -1.0}
    with tracer.start_span("wrong", **wrong):
        pass
    assert tracer.flush(60)  # a shutdown may leave the delivery to the sender
    assert tracer.shutdown(60)
    assert tracer.stats()["invalid_fields"] == 1
    spans = answered(collector.http_address, "/spans")

print(
    json.dumps(
        {
            "backend": infertrace.BACKEND,
            "file": infertrace.__file__,
            "values": {span["model_name"]: span.get(field) for span in spans},
        }
    )
)
