"""Numbers and lists as a sentence has them."""

from __future__ import annotations

from collections.abc import Sequence

from infertrace.collector.diagnosis.facts import RequestFacts


def milliseconds(value: float) -> str:
    """`0.4 ms`, `12 ms`, `1,240 ms`."""
    return f"{value:,.1f} ms" if value < 10 else f"{value:,.0f} ms"


def percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def counted(count: int, singular: str) -> str:
    """`1 request`, `23 requests`."""
    return f"{count:,} {singular}{'' if count == 1 else 's'}"


def named(request: RequestFacts) -> str:
    """A request as its server calls it, else by its trace."""
    if request.request_id is not None:
        return f"request {request.request_id}"
    return f"the request of trace {request.trace_id}"


def step_numbers(indices: Sequence[int], most: int = 3) -> str:
    """`step 812`, `steps 812 and 813`, `steps 812, 813, 820 and 4 more`."""
    shown = [str(index) for index in sorted(indices)[:most]]
    if len(indices) > most:
        shown.append(f"{len(indices) - most} more")
    if len(shown) == 1:
        return f"step {shown[0]}"
    return f"steps {', '.join(shown[:-1])} and {shown[-1]}"
