"""The requests of transformers' continuous batching: a span for each, when its result is there.

In which steps it was comes from transformers_steps.py.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, Final, NamedTuple

from infertrace.current import current_span
from infertrace.integrations.switch import Switch
from infertrace.integrations.token_times import (
    MS_PER_SECOND,
    NANOS_PER_SECOND,
    interval_fields,
)
from infertrace.integrations.transformers_steps import REQUEST_ATTRIBUTE, Membership

OPERATION: Final = "generate"
FRAMEWORK: Final = "pytorch"


class _Request(NamedTuple):
    """What is known of a request from when it was added."""

    model_name: str | None
    parent: str | None
    wants_timestamps: bool
    membership: Membership
    created_s: float = 0.0
    """By `time.perf_counter()`, as all times here."""
    preemptions: int = 0


_adding: ContextVar[_Request | None] = ContextVar("adding", default=None)


def install_batching(switch: Switch, name_of: Callable[[Any], str | None]) -> None:
    """Have each request recorded as its result is made; `name_of` names the manager's model."""
    from transformers.generation.continuous_batching.continuous_api import (
        ContinuousBatchingManager,
    )
    from transformers.generation.continuous_batching.requests import RequestState
    from transformers.generation.continuous_batching.scheduler import Scheduler

    def adding(original: Callable[..., Any]) -> Callable[..., Any]:
        def add_request(self: Any, *arguments: Any, **keywords: Any) -> Any:
            if not switch.is_on:
                return original(self, *arguments, **keywords)
            span = current_span()
            parent = span.traceparent if span.propagates else None
            token = _adding.set(_Request(name_of(self.model), parent, False, Membership()))
            try:
                return original(self, *arguments, **keywords)
            finally:
                _adding.reset(token)

        return add_request

    def made(original: Callable[..., None]) -> Callable[..., None]:
        def post_init(self: Any) -> None:
            original(self)
            request = _adding.get()
            if request is not None:
                with switch.guarded():
                    wanted = self.record_timestamps
                    request = request._replace(
                        wants_timestamps=wanted,
                        membership=Membership(),
                        created_s=self.created_time,
                    )
                    setattr(self, REQUEST_ATTRIBUTE, request)
                    self.record_timestamps = True  # the user does not see it, see below

        return post_init

    def restarted(original: Callable[..., Any]) -> Callable[..., Any]:
        def create_equivalent_initial_request(self: Any) -> Any:
            state = original(self)
            with switch.guarded():
                request = getattr(self, REQUEST_ATTRIBUTE, None)
                if request is not None:
                    again = request._replace(preemptions=request.preemptions + 1)
                    setattr(state, REQUEST_ATTRIBUTE, again)
                    state._timestamps = self._timestamps[:]
            return state

        return create_equivalent_initial_request

    def giving(original: Callable[..., Any]) -> Callable[..., Any]:
        def to_generation_output(self: Any) -> Any:
            output = original(self)
            with switch.guarded():
                request = getattr(self, REQUEST_ATTRIBUTE, None)
                if request is not None:
                    times_s = output.timestamps or []
                    if not request.wants_timestamps:
                        output.timestamps = None
                    if output.is_finished():
                        setattr(self, REQUEST_ATTRIBUTE, None)
                        status = "OK" if output.error is None else "ERROR"
                        _record(switch, request, output, times_s, status)
            return output

        return to_generation_output

    def cancelling(original: Callable[..., Any]) -> Callable[..., Any]:
        def clear_cancelled_requests(self: Any) -> Any:
            states = original(self)
            for state in states or ():
                with switch.guarded():
                    request = getattr(state, REQUEST_ATTRIBUTE, None)
                    if request is not None:
                        setattr(state, REQUEST_ATTRIBUTE, None)
                        output = state.to_generation_output()
                        _record(switch, request, output, state._timestamps, "CANCELLED")
            return states

        return clear_cancelled_requests

    switch.patches.wrap(RequestState, "__post_init__", made)
    switch.patches.wrap(RequestState, "create_equivalent_initial_request", restarted)
    switch.patches.wrap(RequestState, "to_generation_output", giving)
    switch.patches.wrap(Scheduler, "clear_cancelled_requests", cancelling)
    switch.patches.wrap(ContinuousBatchingManager, "add_request", adding)


def _record(
    switch: Switch, request: _Request, output: Any, times_s: list[float], status: str
) -> None:
    if not switch.is_on:
        return
    now_s = time.perf_counter()
    end_s = output.lifespan[1] if output.lifespan[1] > 0 else now_s
    duration_s = max(0.0, end_s - request.created_s)
    start_ns = time.time_ns() - round((now_s - request.created_s) * NANOS_PER_SECOND)
    fields: dict[str, Any] = {
        "framework": FRAMEWORK,
        "request_id": output.request_id,
        "input_tokens": len(output.prompt_ids),
        "output_tokens": len(output.generated_tokens),
        "preemption_count": request.preemptions,
        **request.membership.fields(),
        **interval_fields(times_s),
    }
    if output.lifespan[0] > 0 and not request.preemptions:
        waited_ms = max(0.0, output.lifespan[0] - request.created_s) * MS_PER_SECOND
        fields["scheduled_after_ms"] = fields["queue_wait_time_ms"] = waited_ms
    if times_s:
        fields["time_to_first_token_ms"] = (times_s[0] - request.created_s) * MS_PER_SECOND
    if len(times_s) > 1:
        mean_s = (times_s[-1] - times_s[0]) / (len(times_s) - 1)
        fields["inter_token_latency_ms"] = mean_s * MS_PER_SECOND
    switch.count_use()
    switch.tracer.record(
        request.model_name,
        OPERATION,
        start_ns=start_ns,
        duration_ns=round(duration_s * NANOS_PER_SECOND),
        parent=request.parent,
        status=status,
        status_message=output.error,
        kind="internal",
        **fields,
    )
