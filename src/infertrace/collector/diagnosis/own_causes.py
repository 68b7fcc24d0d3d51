"""Causes in the request itself: its prompt, and how much it generated."""

from __future__ import annotations

from collections.abc import Collection

from infertrace.collector.diagnosis.examination import Examination
from infertrace.collector.diagnosis.finding import Cause, Finding
from infertrace.collector.diagnosis.usual import Usual
from infertrace.collector.diagnosis.wording import counted, milliseconds, percent

_LOST_CACHE = 0.5  # of the usual share
_CACHING_MODEL = 0.2  # the usual share from which on a cache matters


def own_prefill(of: Examination) -> Finding | None:
    """A prompt that is longer than usual, or that the cache had less of."""
    request, usual = of.request, of.usual
    tokens, spread = request.uncached_tokens, usual.uncached_tokens
    if tokens is None or spread is None:
        return None
    usual_share = None if usual.cached_share is None else usual.cached_share.p50
    is_uncached = (
        usual_share is not None
        and usual_share >= _CACHING_MODEL
        and (request.cached_share or 0.0) < _LOST_CACHE * usual_share
    )
    if not spread.stands_out(tokens) and not (is_uncached and "prefill" in of.slow_phases):
        return None
    rate_ms = _prefill_token_ms(usual)
    if rate_ms is None:
        return None
    explained_ms = rate_ms * (tokens - spread.p50)
    if request.prefill_ms is not None:
        explained_ms = min(explained_ms, request.prefill_ms)
    if not of.is_material(explained_ms, "prefill"):
        return None
    sentence = (
        f"Its own prompt had {counted(tokens, 'token')} to compute, usually "
        f"{spread.p50:,.0f}: {milliseconds(explained_ms)} at the model's rate of "
        f"{rate_ms:.3f} ms a token."
    )
    if is_uncached and usual_share is not None:
        sentence += (
            f" The cache had {percent(request.cached_share or 0.0)} of its "
            f"{counted(request.input_tokens or 0, 'token')}, usually {percent(usual_share)}."
        )
    return Finding(
        "own_prefill",
        explained_ms,
        sentence,
        {
            "input_tokens": request.input_tokens,
            "cached_input_tokens": request.cached_input_tokens,
            "uncached_tokens": tokens,
            "usual_uncached_tokens": spread.p50,
            "usual_cached_share": usual_share,
            "prefill_token_ms": rate_ms,
        },
    )


def output(of: Examination) -> Finding | None:
    """More tokens than usual, at the usual pace."""
    tokens, spread = of.request.output_tokens, of.usual.output_tokens
    interval_ms = of.usual_interval_ms
    if tokens is None or spread is None or interval_ms is None or not spread.stands_out(tokens):
        return None
    explained_ms = (tokens - spread.p50) * interval_ms
    if not of.is_material(explained_ms):
        return None
    return Finding(
        "output",
        explained_ms,
        f"It generated {counted(tokens, 'token')}, usually {spread.p50:,.0f}: "
        f"{milliseconds(explained_ms)} at the usual {milliseconds(interval_ms)} a token.",
        {
            "output_tokens": tokens,
            "usual_output_tokens": spread.p50,
            "usual_interval_ms": interval_ms,
        },
    )


def ordinary_ms(of: Examination, named: Collection[Cause]) -> float:
    """How much longer its own tokens make it than half of the requests, where that is usual.

    What is a finding, of those that are `named`, does not count again. Less than 0 where it has
    fewer tokens.
    """
    request, usual = of.request, of.usual
    found = 0.0
    rate_ms, interval_ms = _prefill_token_ms(usual), of.usual_interval_ms
    if "own_prefill" not in named and rate_ms is not None and usual.uncached_tokens is not None:
        found += rate_ms * ((request.uncached_tokens or 0) - usual.uncached_tokens.p50)
    if "output" not in named and interval_ms is not None and usual.output_tokens is not None:
        found += interval_ms * ((request.output_tokens or 0) - usual.output_tokens.p50)
    return found


def _prefill_token_ms(usual: Usual) -> float | None:
    if usual.step_cost is not None and usual.step_cost.prefill_token_ms:
        return usual.step_cost.prefill_token_ms
    return usual.prefill_token_ms
