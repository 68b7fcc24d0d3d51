"""What our ledger calls delivered by OTLP is found in the receivers of others, with its tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from backend_recording import assert_closed
from otlp_receiver import GrpcOtlpReceiver
from peer_programs import NotInstalled
from peer_receivers import Attributes, Jaeger, OpenTelemetryCollector, PeerReceiver, Phoenix, Rotel
from traced_program import wait_until

pytestmark = [pytest.mark.nightly, pytest.mark.timeout(3600)]  # it may build all of them

SPANS: Final = 200
OUTPUT_TOKENS: Final = 100
PATIENCE_S: Final = 300  # Phoenix takes its time with a span


class RotelWithDestination(Rotel, PeerReceiver):
    """What it sent on counts as what it has."""

    keeps_across_a_kill = False

    def __init__(self, folder: Path) -> None:
        self._behind = GrpcOtlpReceiver()
        super().__init__(folder, self._behind.endpoint)

    def spans(self) -> dict[str, Attributes]:
        return {
            span.span_id.hex(): {
                it.key: getattr(it.value, str(it.value.WhichOneof("value")))
                for it in span.attributes
            }
            for span in self._behind.spans
        }

    def stop(self) -> None:
        super().stop()
        self._behind.stop()


PEERS: Final = (Jaeger, OpenTelemetryCollector, Phoenix, RotelWithDestination)


@pytest.fixture(params=PEERS, ids=lambda kind: kind.__name__)
def peer(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[PeerReceiver]:
    try:
        request.param.install()
    except NotInstalled as reason:
        pytest.fail(f"{request.param.__name__} cannot be installed here: {reason}")
    found: PeerReceiver = request.param(tmp_path)
    try:
        found.start()
        yield found
    finally:
        found.stop()


@pytest.fixture(params=["otlp/grpc", "otlp/http"])
def tracer(request: pytest.FixtureRequest, new_tracer: Callable[..., Any], peer: Any) -> Any:
    endpoint = peer.grpc if request.param == "otlp/grpc" else f"http://{peer.http}"
    conventions = ("otel", "openinference")
    return new_tracer(endpoint, protocol=request.param, conventions=conventions)


def record(tracer: Any, count: int) -> dict[str, int]:
    """Requests of a parent and a child each; the tokens of each span by its id."""
    tokens = {}
    for number in range(count // 2):
        with (
            tracer.start_span("gpt-4", "request") as parent,
            tracer.start_span("gpt-4", attributes={"temperature": 0.5}) as child,
        ):
            for span, more in ((parent, 0), (child, 1)):
                tokens[span.span_id] = 2 * number + more
                span.set_tokens(input=tokens[span.span_id], output=OUTPUT_TOKENS)
            child.set_streaming(time_to_first_token_ms=0.001)
    return tokens


def assert_found(peer: PeerReceiver, tokens: dict[str, int]) -> None:
    wait_until(lambda: peer.spans().keys() >= tokens.keys(), PATIENCE_S)
    found = peer.spans()
    for span_id, input_tokens in tokens.items():
        attributes = found[span_id]
        for model in ("gen_ai.request.model", "llm.model_name"):
            assert attributes[model] == "gpt-4"
        for name in ("gen_ai.usage.input_tokens", "llm.token_count.prompt"):
            assert attributes[name] == input_tokens
        for name in ("gen_ai.usage.output_tokens", "llm.token_count.completion"):
            assert attributes[name] == OUTPUT_TOKENS


def test_each_delivered_span_is_found(tracer: Any, peer: PeerReceiver) -> None:
    tokens = record(tracer, SPANS)
    assert tracer.flush(60)
    stats = tracer.stats()
    assert (stats["delivered"], stats["dropped"]) == (SPANS, {})
    assert_found(peer, tokens)
    assert len(peer.spans()) == SPANS


def test_the_ledger_closes_through_an_outage(tracer: Any, peer: PeerReceiver) -> None:
    before = record(tracer, SPANS)
    assert tracer.flush(60)
    assert_found(peer, before)
    peer.kill()
    during = record(tracer, SPANS)
    assert not tracer.flush(1)
    assert tracer.stats()["pending"] == SPANS
    assert_closed(tracer.stats())
    peer.start()
    assert tracer.flush(60)
    stats = tracer.stats()
    assert (stats["delivered"], stats["pending"], stats["dropped"]) == (2 * SPANS, 0, {})
    assert_found(peer, during if not peer.keeps_across_a_kill else before | during)
