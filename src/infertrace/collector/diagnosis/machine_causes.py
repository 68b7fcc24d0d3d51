"""Causes in the machine: an error, steps that stood still, a GPU that was not as usual."""

from __future__ import annotations

from infertrace.collector.diagnosis.examination import Examination, Phase
from infertrace.collector.diagnosis.facts import GpuFacts
from infertrace.collector.diagnosis.finding import Finding, SlowStep, worst_steps
from infertrace.collector.diagnosis.usual import Usual
from infertrace.collector.diagnosis.wording import counted, milliseconds, percent, step_numbers

_SLOWED_CLOCK = 0.9  # of the usual one
_SLOWED_POWER = 0.75  # likewise, where no clock is known and the GPU is as busy as usual
_BUSY = 0.9  # of the usual utilization
_HOT_BY_CELSIUS = 5.0
_FULL_MEMORY = 0.98


def error(of: Examination) -> Finding | None:
    """The error that ended the request; it explains how long its last step stood still."""
    request = of.request
    if request.status != "ERROR":
        return None
    last = max(of.timeline.all, key=lambda timed: timed.step.index, default=None)
    stood_ms = 0.0
    if last is not None and last.is_outlier:
        stood_ms = max(0.0, last.residual_ms or 0.0)
    message = request.status_message or "no message"
    sentence = f"It ended with an error: {message}."
    if stood_ms:
        sentence += f" Its last step stood still for {milliseconds(stood_ms)} before that."
    steps = [] if last is None else [SlowStep(last.step, stood_ms)]
    return Finding("error", stood_ms, sentence, {"status_message": message}, steps=steps)


def slow_step(of: Examination) -> Finding | None:
    """Steps that took longer than their tokens explain, on a GPU that was as usual."""
    slow = [
        (timed, share * (timed.residual_ms or 0.0))
        for timed, share in of.slow_steps()
        if timed.is_outlier and not _deviations(timed.step.gpu, of.usual)
    ]
    explained_ms = sum(ms for _, ms in slow)
    if not of.is_material(explained_ms, *_phases(of)):
        return None
    evidence = worst_steps(slow)
    indices = [timed.step.index for timed, _ in slow]
    sentence = (
        f"{step_numbers(indices)} took {milliseconds(explained_ms)} longer than the tokens in "
        f"{'it' if len(slow) == 1 else 'them'} explain."
    )
    return Finding(
        "slow_step",
        explained_ms,
        sentence[0].upper() + sentence[1:],
        {"step_count": len(slow), "longest_step_ms": max(t.step.duration_ms for t, _ in slow)},
        steps=evidence,
    )


def gpu(of: Examination) -> Finding | None:
    """Steps that took longer than their tokens explain, on a GPU that was not as usual."""
    slow = [
        (timed, share * max(0.0, timed.residual_ms or 0.0))
        for timed, share in of.slow_steps()
        if _deviations(timed.step.gpu, of.usual)
    ]
    explained_ms = sum(ms for _, ms in slow)
    reading = slow[-1][0].step.gpu if slow else of.request.gpu
    if not slow and not of.steps:
        explained_ms = _slower_tokens_ms(of)
    deviations = _deviations(reading, of.usual)
    if not deviations or not of.is_material(explained_ms, *_phases(of)):
        return None
    where = f" in {counted(len(slow), 'step')}" if slow else ""
    return Finding(
        "gpu",
        explained_ms,
        f"The GPU was not as usual{where}: {'; '.join(deviations)}. Work took "
        f"{milliseconds(explained_ms)} longer than its tokens usually do.",
        {"step_count": len(slow), **_numbers(reading, of.usual)},
        steps=worst_steps(slow),
    )


def stall(of: Examination) -> Finding | None:
    """A pause between tokens where no step is recorded that could explain it."""
    longest_ms = of.request.max_inter_token_latency_ms
    if of.timeline.decode or longest_ms is None or "decode" not in of.slow_phases:
        return None
    if of.request.preemption_count:
        return None
    usual_ms = of.usual_interval_ms or of.request.interval_ms or 0.0
    explained_ms = longest_ms - usual_ms
    if not of.is_material(explained_ms, "decode"):
        return None
    return Finding(
        "stall",
        explained_ms,
        f"Its tokens came {milliseconds(usual_ms)} apart as a rule, and once "
        f"{milliseconds(longest_ms)}; no step is recorded that could say why.",
        {"longest_interval_ms": longest_ms, "usual_interval_ms": usual_ms},
    )


def _phases(of: Examination) -> tuple[Phase, ...]:
    return tuple(sorted(of.slow_phases))


def _slower_tokens_ms(of: Examination) -> float:
    """How much longer all tokens took than usual: all that is known where no step is."""
    interval_ms, usual_ms = of.request.interval_ms, of.usual_interval_ms
    if interval_ms is None or usual_ms is None or "decode" not in of.slow_phases:
        return 0.0
    return (interval_ms - usual_ms) * max(0, (of.request.output_tokens or 0) - 1)


def _deviations(reading: GpuFacts, usual: Usual) -> list[str]:
    """How a reading differs from those of the baseline, for the worse."""
    found = []
    clock, clocks = reading.clock_mhz, usual.clock_mhz
    if clock is not None and clocks is not None and clock < _SLOWED_CLOCK * clocks.p50:
        found.append(f"it ran at {clock:,.0f} MHz, usually at {clocks.p50:,.0f} MHz")
    power, powers = reading.power_watts, usual.power_watts
    is_busy = usual.utilization_percent is None or (
        (reading.utilization_percent or 0.0) >= _BUSY * usual.utilization_percent.p50
    )
    if clock is not None or not is_busy or power is None or powers is None:
        pass  # the clock says more than the power does
    elif power < _SLOWED_POWER * powers.p50:
        found.append(f"it took {power:.0f} W though busy, usually {powers.p50:.0f} W")
    heat, heats = reading.temperature_celsius, usual.temperature_celsius
    is_hot = heat is not None and heats is not None and heats.is_far_below(heat, _HOT_BY_CELSIUS)
    if is_hot and heat is not None and heats is not None:
        found.append(f"it was {heat:.0f} °C hot, usually {heats.p50:.0f} °C")
    memory, memories = reading.memory_share, usual.memory_share
    if memory is not None and memories is not None and memory >= _FULL_MEMORY > memories.p95:
        found.append(
            f"{percent(memory)} of its memory were in use, usually {percent(memories.p50)}"
        )
    return found


def _numbers(reading: GpuFacts, usual: Usual) -> dict[str, float | None]:
    pairs = {
        "clock_mhz": (reading.clock_mhz, usual.clock_mhz),
        "temperature_celsius": (reading.temperature_celsius, usual.temperature_celsius),
        "power_watts": (reading.power_watts, usual.power_watts),
        "memory_share": (reading.memory_share, usual.memory_share),
    }
    numbers: dict[str, float | None] = {}
    for name, (value, spread) in pairs.items():
        if value is not None:
            numbers[name] = value
            numbers[f"usual_{name}"] = None if spread is None else spread.p50
    return numbers
