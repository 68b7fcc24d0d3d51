"""Why a request was slow: all causes looked for, and what remains."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from infertrace.collector.diagnosis import machine_causes, own_causes, shared_causes
from infertrace.collector.diagnosis.examination import Examination
from infertrace.collector.diagnosis.facts import RequestFacts, StepFacts
from infertrace.collector.diagnosis.finding import Diagnosis, Finding
from infertrace.collector.diagnosis.usual import MIN_REQUESTS, Usual
from infertrace.collector.diagnosis.wording import counted, milliseconds


def why(
    request: RequestFacts,
    steps: Sequence[StepFacts],
    others: Sequence[RequestFacts],
    usual: Usual,
) -> Diagnosis:
    """The diagnosis of a request; equal arguments give an equal one.

    `steps` are those of its producer and engine in its time, `others` the requests there that
    overlap it, `usual` is of its model's requests before it.
    """
    of = Examination(request, steps, others, usual)
    findings = _findings(of)
    if not findings and of.is_slow:
        findings = _findings(replace(of, is_lenient=True))
    excess_ms = None
    if usual.duration_ms is not None:
        excess_ms = request.duration_ms - usual.duration_ms.p50
    explained_ms = sum(finding.explained_ms for finding in findings)
    ordinary_ms = own_causes.ordinary_ms(of, [finding.cause for finding in findings])
    unexplained_ms = None
    if excess_ms is not None:
        unexplained_ms = max(0.0, excess_ms - explained_ms - ordinary_ms)
    return Diagnosis(
        _summary(of, findings),
        findings,
        excess_ms,
        unexplained_ms,
        _unexplained(of, unexplained_ms, ordinary_ms),
        ordinary_ms,
        _unknown(of),
    )


def _findings(of: Examination) -> list[Finding]:
    found = [
        machine_causes.error(of),
        shared_causes.queue(of, shared_causes.waited_otherwise_ms(of)),
        own_causes.own_prefill(of),
        shared_causes.prefill_of_others(of),
        shared_causes.preemption(of),
        shared_causes.batch(of),
        machine_causes.slow_step(of),
        machine_causes.gpu(of),
        own_causes.output(of),
        machine_causes.stall(of),
    ]
    # An error is why the request ended, whatever made it slow before.
    return sorted(
        (finding for finding in found if finding is not None),
        key=lambda finding: (finding.cause != "error", -finding.explained_ms, finding.cause),
    )


def _summary(of: Examination, findings: Sequence[Finding]) -> str:
    took = f"It took {milliseconds(of.request.duration_ms)}"
    spread = of.usual.duration_ms
    compared = ""
    if spread is not None:
        count = counted(of.usual.request_count, "request")
        compared = f"; of {count} of the model before it, half took {milliseconds(spread.p50)}"
    if findings:
        return f"{took}{compared}. {findings[0].sentence}"
    if of.is_slow:
        return f"{took}{compared}. No cause is known."
    return f"{took}{compared}. Nothing stands out."


def _unexplained(of: Examination, unexplained_ms: float | None, ordinary_ms: float) -> str:
    if unexplained_ms is None:
        return "How much is not explained is unknown: nothing is known of what is usual."
    own = ""
    if of.is_material(ordinary_ms):
        own = (
            f" Its own tokens account for {milliseconds(ordinary_ms)} more than those of half of "
            "the requests, which is not unusual."
        )
    if not of.is_material(unexplained_ms):
        return f"Nothing of note is left unexplained.{own}"
    return f"{milliseconds(unexplained_ms)} more than usual are not explained.{own}"


def _unknown(of: Examination) -> list[str]:
    request, found = of.request, []
    if of.usual.request_count < MIN_REQUESTS:
        found.append(
            f"What is usual: the model has {counted(of.usual.request_count, 'request')} in the "
            f"hour before, and {MIN_REQUESTS} are needed."
        )
    if request.queue_ms is None:
        found.append("How long it waited: the span has no scheduled_after_ms.")
    if request.output_tokens and request.time_to_first_token_ms is None:
        found.append("When its tokens came: the span has no time_to_first_token_ms.")
    if request.first_step is None:
        found.append("Who shared its steps: the span has no first_step and last_step.")
    elif not of.steps:
        found.append("What its steps did: none of its engine is recorded in that time.")
    elif request.membership is not None:
        found.append(f"Who shared its steps, for certain: that is {request.membership} from times.")
    if of.request.gpu.temperature_celsius is None and not any(
        step.gpu.temperature_celsius is not None for step in of.steps
    ):
        found.append("How the GPU was: no span of that time has a reading.")
    return found
