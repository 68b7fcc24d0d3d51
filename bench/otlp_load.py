"""Sends requests of OTLP, made beforehand, as fast as a receiver takes them.

The protobuf runtime encodes one request; the others are copies with new ids.
"""

from __future__ import annotations

import http.client
import json
import os
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from bench import contenders, sender
from bench.receiver import OTLP_EXPORT

PROTOCOLS = ("gRPC", "HTTP, protobuf", "HTTP, JSON")
SPANS_PER_REQUEST = 8_192  # as the OpenTelemetry Collector's batch processor makes them
THREADS, WARM_UP_REQUESTS = 4, 4
RETRY_S, TIMEOUT_S = 0.05, 30
MARK = bytes(range(100, 116)), bytes(range(200, 208))


def bodies(protocol: str, count: int) -> list[bytes]:
    """Requests whose spans are alike but for their ids."""
    from google.protobuf.json_format import MessageToDict

    request = _request(*MARK)
    if protocol == "HTTP, JSON":
        found = MessageToDict(request, use_integers_for_enums=True)
        trace_id, span_id = (value.hex() for value in MARK)
        for span in found["resourceSpans"][0]["scopeSpans"][0]["spans"]:
            span.update(traceId=trace_id, spanId=span_id)
        encoded = json.dumps(found, separators=(",", ":")).encode()
        form = b'"traceId":"%b","spanId":"%b"'
        pieces = encoded.split(form % (trace_id.encode(), span_id.encode()))
    else:
        form = b"\x0a\x10%b\x12\x08%b"
        pieces = request.SerializeToString().split(form % MARK)
    assert len(pieces) == SPANS_PER_REQUEST + 1

    def fresh(size: int) -> bytes:
        drawn = os.urandom(size)
        return drawn.hex().encode() if protocol == "HTTP, JSON" else drawn

    def body() -> bytes:
        parts = [pieces[0]]
        for piece in pieces[1:]:
            parts += (form % (fresh(16), fresh(8)), piece)
        return b"".join(parts)

    return [body() for _ in range(count)]


def _request(trace_id: bytes, span_id: bytes) -> Any:
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    def add(attributes: Any, key: str, value: str | int) -> None:
        attribute = attributes.add(key=key)
        if isinstance(value, str):
            attribute.value.string_value = value
        else:
            attribute.value.int_value = value

    request = ExportTraceServiceRequest()
    group = request.resource_spans.add()
    add(group.resource.attributes, "service.name", contenders.SERVICE)
    add(group.resource.attributes, "service.instance.id", "one")
    scope = group.scope_spans.add()
    scope.scope.name = "bench"
    now = time.time_ns()
    for number in range(SPANS_PER_REQUEST):
        start = now + number * 1_000
        span = scope.spans.add(
            trace_id=trace_id,
            span_id=span_id,
            name="chat gpt-4",
            kind=3,
            flags=0x101,
            start_time_unix_nano=start,
            end_time_unix_nano=start + 41_000_000,
        )
        add(span.attributes, "gen_ai.request.model", contenders.MODEL)
        add(span.attributes, "gen_ai.usage.input_tokens", contenders.INPUT_TOKENS)
        add(span.attributes, "gen_ai.usage.output_tokens", contenders.OUTPUT_TOKENS)
        add(span.attributes, "http.route", "/v1/chat/completions")
    return request


def sending(protocol: str, grpc_address: str, http_address: str) -> Callable[[bytes], None]:
    """Sends one request until it is acknowledged; a refusal of any of its spans raises."""
    if protocol == "gRPC":
        return _sending_grpc(grpc_address)
    content_type = "application/json" if protocol == "HTTP, JSON" else "application/x-protobuf"
    return _sending_http(http_address, content_type)


def _sending_grpc(address: str) -> Callable[[bytes], None]:
    import grpc

    channel = grpc.insecure_channel(address, options=[("grpc.max_send_message_length", -1)])
    call = channel.unary_unary(OTLP_EXPORT)
    later = (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE)

    def send(body: bytes) -> None:
        while True:
            try:
                _check(call(body, timeout=TIMEOUT_S))
            except grpc.RpcError as error:
                if error.code() not in later:
                    raise
                time.sleep(RETRY_S)
            else:
                return

    return send


def _sending_http(address: str, content_type: str) -> Callable[[bytes], None]:
    mine = threading.local()
    headers = {"Content-Type": content_type}

    def send(body: bytes) -> None:
        if not hasattr(mine, "connection"):
            mine.connection = http.client.HTTPConnection(address, timeout=TIMEOUT_S)
        while True:
            mine.connection.request("POST", "/v1/traces", body, headers)
            answer = mine.connection.getresponse()
            said = answer.read()
            if answer.status == 200:
                _check(said)
                return
            if answer.status not in (429, 503):
                raise RuntimeError(f"{answer.status} {said[:200]!r}")
            time.sleep(RETRY_S)

    return send


def _check(answer: bytes) -> None:
    # Go writes an empty partial success, which is a full one.
    if answer not in (b"", b"\x0a\x00", b"{}", b'{"partialSuccess":{}}'):
        raise RuntimeError(f"not a full success: {answer[:200]!r}")


def run(protocol: str, grpc: str, http_address: str, receiver: int, spans: int) -> dict[str, float]:
    """One run, in this process, into a receiver with these addresses and this process id."""
    send = sending(protocol, grpc, http_address)
    requests = bodies(protocol, spans // SPANS_PER_REQUEST)
    with ThreadPoolExecutor(THREADS) as threads:
        list(threads.map(send, bodies(protocol, WARM_UP_REQUESTS)))
        ours, theirs = time.process_time(), sender.cpu_s([receiver])
        start = time.perf_counter()
        list(threads.map(send, requests))
        elapsed = time.perf_counter() - start
    return {
        "sent": (len(requests) + WARM_UP_REQUESTS) * SPANS_PER_REQUEST,
        "timed": len(requests) * SPANS_PER_REQUEST,
        "seconds": elapsed,
        "sender_s": time.process_time() - ours,
        "receiver_before_s": theirs,
        "receiver_after_s": sender.cpu_s([receiver]),
    }


if __name__ == "__main__":
    protocol, grpc, http_address, receiver, spans = sys.argv[1:]
    print(json.dumps(run(protocol, grpc, http_address, int(receiver), int(spans))))
