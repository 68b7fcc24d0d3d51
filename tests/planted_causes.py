"""The matrix of planted causes: a fault in a simulated engine, and the request that it slows down.

Which request is the victim follows from what the engine did, never from what the diagnosis says.
`docs/why.md` has the table of all cases; `python tests/planted_causes.py` writes it.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple, TypeVar

from infertrace.collector.diagnosis.facts import RequestFacts, StepFacts
from infertrace.collector.diagnosis.finding import Diagnosis
from infertrace.collector.diagnosis.usual import MAX_BASELINE_ROWS, usual_of
from infertrace.collector.diagnosis.why import why
from infertrace.commands.simulated_engine import (
    NANOS_PER_SECOND,
    Arrivals,
    Engine,
    Model,
    Request,
    Simulated,
    Step,
    simulate,
)
from infertrace.commands.simulated_gpu import GpuState
from simulated_facts import request_facts, step_facts

Facts = TypeVar("Facts", RequestFacts, StepFacts)
START_NS = 1_800_000_000 * NANOS_PER_SECOND
PAGE = Path(__file__).parents[1] / "docs" / "why.md"
BEGIN, END = "<!-- the matrix: begin -->", "<!-- the matrix: end -->"
PLANTED_S, RUN_S = 100, 120
MS = 1e-3

SMALL = Model(
    "small", "1", "vllm", 48, 2_048, 400, 120_000, 6.0, 8 * MS, 0.04 * MS, 0.12 * MS,
    (40, 600), (20, 200), 0.25,
)  # fmt: skip
LARGE = Model(
    "large", "2", "vllm", 64, 4_096, 200, 200_000, 1.5, 28 * MS, 0.11 * MS, 0.6 * MS,
    (500, 3_000), (60, 400), 0.6,
)  # fmt: skip
CHAT = Model(
    "chat", "3", "tensorrt", 64, 1_024, 300, 160_000, 9.0, 11 * MS, 0.06 * MS, 0.2 * MS,
    (100, 1_500), (10, 150), 0.5,
)  # fmt: skip
EMBEDDING = Model(
    "embedding", "1.5", "onnx", 32, 8_192, 500, 60_000, 80.0, 2 * MS, 0.004 * MS, 0.0,
    (20, 400), (0, 0),
)  # fmt: skip
GENERATING = (SMALL, LARGE, CHAT)
# How many of its usual requests come, for each of the two seeds of a cell.
LOADS = (0.6, 1.0)


@dataclass
class Scene:
    """An engine of which something is planted, and what is noted while it runs."""

    model: Model
    draw: random.Random
    planted: list[Request] = field(default_factory=list)
    victim: Request | None = None
    culprit: Request | None = None
    faulty_step: int | None = None
    before_step: Callable[[Engine, int], None] = lambda engine, now_ns: None
    pick: Callable[[Simulated], Request] | None = None
    """Chooses the victim after the run, where it is not known before."""
    evidence_prefix: str = ""
    """How the ids of those begin that the first finding has to name, most of them."""

    @property
    def at_ns(self) -> int:
        return START_NS + PLANTED_S * NANOS_PER_SECOND

    def usual_request(self, name: str, at_ns: int) -> Request:
        """A request as half of them are, at a time."""
        model = self.model
        input_tokens = sum(model.input_tokens) // 2
        return Request(
            name,
            at_ns,
            input_tokens,
            sum(model.output_tokens) // 2,
            round(model.cached_share * input_tokens),
        )

    def once(self, act: Callable[[Engine, int], bool]) -> None:
        """Call `act` before each step from the planted time on, until it returns True."""
        done = False

        def before_step(engine: Engine, now_ns: int) -> None:
            nonlocal done
            if not done and now_ns >= self.at_ns:
                done = act(engine, now_ns)

        self.before_step = before_step


def _decoding(engine: Engine) -> list[Request]:
    """Those that run, have a token and have the most to come, first; none is almost finished."""
    running = [
        r
        for r in engine.running
        if r.token_times_ns and r.output_limit - len(r.token_times_ns) >= 10
    ]
    return sorted(running, key=lambda r: len(r.token_times_ns) - r.output_limit)


def long_prefill(scene: Scene, tokens: int = 4_096) -> None:
    """A long prompt is prefilled while others decode."""

    def act(engine: Engine, now_ns: int) -> bool:
        decoding = _decoding(engine)
        if not decoding:
            return False
        scene.victim = decoding[0]
        scene.culprit = Request("planted", now_ns, tokens, 20)
        scene.planted.append(scene.culprit)
        engine.submit(scene.culprit)
        return True

    scene.once(act)


def burst(scene: Scene) -> None:
    """Many requests come at once; the victim comes after them."""
    count = 3 * scene.model.max_batch
    scene.planted = [scene.usual_request(f"burst-{n}", scene.at_ns + n) for n in range(count)]
    scene.victim = scene.usual_request("victim", scene.at_ns + count + NANOS_PER_SECOND // 1_000)
    scene.planted.append(scene.victim)
    scene.evidence_prefix = "burst-"


def full_queue(scene: Scene) -> None:
    """More come at once than the queue holds; the victim is the first that is refused."""
    count = scene.model.queue_capacity + scene.model.max_batch + 20
    scene.planted = [scene.usual_request(f"burst-{n}", scene.at_ns + n) for n in range(count)]

    def pick(simulated: Simulated) -> Request:
        return next(r for r in simulated.requests if r.finish_reason == "rejected")

    scene.pick = pick


def prompt_ahead(scene: Scene) -> None:
    """A very long prompt takes every step for a while; the victim comes right behind it."""
    tokens = 10 * scene.model.max_step_tokens
    scene.culprit = Request("planted", scene.at_ns, tokens, 5)
    scene.victim = scene.usual_request("victim", scene.at_ns + NANOS_PER_SECOND // 1_000)
    scene.planted = [scene.culprit, scene.victim]


def preemption(scene: Scene) -> None:
    """The KV cache shrinks for a moment, so that requests lose their place in it."""
    state: dict[str, int] = {}

    def before_step(engine: Engine, now_ns: int) -> None:
        if "until" in state:
            if now_ns >= state["until"]:
                engine.kv_reserved_tokens = 0
            return
        decoding = [r for r in engine.running if r.token_times_ns]
        if now_ns >= scene.at_ns and len(decoding) >= 3 and _decoding(engine)[-1:]:
            held = sum(r.computed_tokens for r in engine.running)
            engine.kv_reserved_tokens = scene.model.kv_capacity_tokens - round(0.6 * held)
            state["until"] = now_ns + scene.draw.randint(1_200, 2_500) * NANOS_PER_SECOND // 1_000

    def pick(simulated: Simulated) -> Request:
        # The one that had begun to decode and lost the most.
        return max(
            (r for r in simulated.requests if r.preemption_count and r.token_times_ns),
            key=lambda r: max(
                (after - before for before, after in pairwise(r.token_times_ns)), default=0
            ),
        )

    scene.before_step, scene.pick = before_step, pick


def slow_step(scene: Scene) -> None:
    """One step stands still."""

    def act(engine: Engine, now_ns: int) -> bool:
        decoding = _decoding(engine)
        if not decoding:
            return False
        scene.victim = decoding[0]
        engine.stall_s = scene.draw.uniform(0.8, 2.0)
        scene.faulty_step = (decoding[0].last_step or 0) + 1
        return True

    scene.once(act)


def slow_step_of_a_waiting_one(scene: Scene) -> None:
    """One step stands still; the victim comes in the middle of it, and waits."""
    victim = scene.usual_request("victim", scene.at_ns + NANOS_PER_SECOND // 10)
    scene.victim, scene.planted = victim, [victim]

    def act(engine: Engine, now_ns: int) -> bool:
        is_idle = not engine.running and not engine.queue_depth
        if is_idle or now_ns >= victim.arrival_ns:
            return False
        engine.stall_s = scene.draw.uniform(0.8, 2.0)
        return True

    scene.once(act)


def large_batch(scene: Scene) -> None:
    """Far more requests than usual decode together; the victim comes when they do."""
    count = round(0.7 * scene.model.max_batch)
    longest = scene.model.output_tokens[1]
    scene.planted = [Request(f"many-{n}", scene.at_ns + n, 16, 3 * longest) for n in range(count)]
    scene.victim = scene.usual_request("victim", scene.at_ns + NANOS_PER_SECOND // 2)
    scene.planted.append(scene.victim)


def _gpu_state(scene: Scene, state: GpuState) -> None:
    def act(engine: Engine, now_ns: int) -> bool:
        decoding = _decoding(engine)
        if not decoding:
            return False
        scene.victim = decoding[0]
        engine.gpu = state
        return True

    scene.once(act)


def slow_clock(scene: Scene) -> None:
    """The GPU runs at less than half of its clock from then on."""
    _gpu_state(scene, GpuState(clock_mhz=scene.draw.uniform(500, 850)))


def hot(scene: Scene) -> None:
    """The GPU is hot and slows itself down."""
    celsius = scene.draw.uniform(88, 96)
    state = GpuState(clock_mhz=scene.draw.uniform(600, 900), temperature_celsius=celsius)
    _gpu_state(scene, state)


def error(scene: Scene) -> None:
    """A step stands still and then fails, with all requests in it."""

    def act(engine: Engine, now_ns: int) -> bool:
        decoding = _decoding(engine) or list(engine.running)
        if not decoding:
            return False
        scene.victim = decoding[0]
        engine.stall_s = scene.draw.uniform(0.2, 0.8)
        engine.failure = "CUDA error: an illegal memory access was encountered"
        scene.faulty_step = (decoding[0].last_step or 0) + 1
        return True

    scene.once(act)


def uncached(scene: Scene) -> None:
    """A prompt of which the cache has nothing, though it usually has much."""
    scene.victim = scene.usual_request("victim", scene.at_ns)
    scene.victim.input_tokens = scene.model.input_tokens[1]
    scene.victim.cached_input_tokens = 0
    scene.planted = [scene.victim]


def long_prompt(scene: Scene) -> None:
    """A prompt many times as long as usual."""
    scene.victim = scene.usual_request("victim", scene.at_ns)
    scene.victim.input_tokens = scene.draw.randint(8, 12) * scene.model.input_tokens[1]
    scene.planted = [scene.victim]


def long_output(scene: Scene) -> None:
    """Many times as many tokens generated as usual."""
    scene.victim = scene.usual_request("victim", scene.at_ns)
    scene.victim.output_limit = scene.draw.randint(4, 6) * scene.model.output_tokens[1]
    scene.planted = [scene.victim]


def nothing(scene: Scene) -> None:
    """Nothing is planted; the victim is any request that came in the second half of the run."""

    def pick(simulated: Simulated) -> Request:
        late = [r for r in simulated.requests if r.arrival_ns >= scene.at_ns - 40 * 10**9]
        return scene.draw.choice(late)

    scene.pick = pick


class Planted(NamedTuple):
    """A kind of cause: how to plant it, in which models, and what has to be found first."""

    plant: Callable[[Scene], None]
    cause: str | None
    models: Sequence[Model]
    has_clock: bool = True


KINDS = {
    "4,096-token prefill": Planted(long_prefill, "prefill_of_others", GENERATING),
    "very long prompt ahead": Planted(prompt_ahead, "prefill_of_others", GENERATING),
    "burst": Planted(burst, "queue", (*GENERATING, EMBEDDING)),
    "full queue": Planted(full_queue, "error", (*GENERATING, EMBEDDING)),
    "preemption": Planted(preemption, "preemption", GENERATING),
    "slow step": Planted(slow_step, "slow_step", GENERATING),
    "slow step, while waiting": Planted(
        slow_step_of_a_waiting_one, "slow_step", (*GENERATING, EMBEDDING)
    ),
    "large batch": Planted(large_batch, "batch", GENERATING),
    "slow GPU clock": Planted(slow_clock, "gpu", GENERATING),
    "slow GPU, clock not recorded": Planted(slow_clock, "gpu", GENERATING, has_clock=False),
    "hot GPU": Planted(hot, "gpu", GENERATING, has_clock=False),
    "failing step": Planted(error, "error", GENERATING),
    "prompt not cached": Planted(uncached, "own_prefill", (LARGE, CHAT)),
    "long own prompt": Planted(long_prompt, "own_prefill", (*GENERATING, EMBEDDING)),
    "long output": Planted(long_output, "output", GENERATING),
    "nothing": Planted(nothing, None, (*GENERATING, EMBEDDING)),
}
NOTHING_SEEDS = 6  # for each model: what is not planted is judged as often as what is


@dataclass(frozen=True)
class Case:
    """One cell of the matrix."""

    kind: str
    model: Model
    load: float
    seed: int

    @property
    def name(self) -> str:
        return f"{self.kind}, {self.model.name}, load {self.load:g}, seed {self.seed}"


@dataclass(frozen=True)
class Judged:
    """What the diagnosis made of a case; `mistake` is empty where it is right."""

    case: Case
    diagnosis: Diagnosis
    mistake: str


def cases() -> Iterator[Case]:
    """All of them, in the order of the table."""
    for kind, planted in KINDS.items():
        for model in planted.models:
            seeds = NOTHING_SEEDS if planted.cause is None else len(LOADS)
            for number in range(seeds):
                seed = 1_000 * len(kind) + 10 * len(model.name) + number
                yield Case(kind, model, LOADS[number % len(LOADS)], seed)


def judge(case: Case) -> Judged:
    """Plant the cause, run the engine, ask why, and compare."""
    planted = KINDS[case.kind]
    scene = Scene(case.model, random.Random(case.seed))
    planted.plant(scene)
    usual_load = case.model._replace(arrivals_per_s=case.load * case.model.arrivals_per_s)
    engine = Engine(case.model, random.Random(case.seed + 1))
    arrivals = Arrivals(usual_load, random.Random(case.seed + 2), START_NS)
    until_ns = START_NS + RUN_S * NANOS_PER_SECOND
    given = list(scene.planted)
    simulated = simulate(engine, arrivals, until_ns, given, scene.before_step)
    submitted = [r for r in scene.planted if r not in given]  # while it ran
    simulated = Simulated([*simulated.requests, *submitted], simulated.steps)
    victim = scene.victim if scene.pick is None else scene.pick(simulated)
    assert victim is not None
    diagnosis = diagnose(case.model, simulated, victim, has_clock=planted.has_clock)
    return Judged(case, diagnosis, _mistake(planted, scene, diagnosis))


def diagnose(
    model: Model, simulated: Simulated, victim: Request, *, has_clock: bool = True
) -> Diagnosis:
    """Ask why a request was slow, of all that a collector would have stored."""
    requests = [request_facts(model, r, simulated.steps) for r in simulated.requests]
    slow = request_facts(model, victim, simulated.steps)
    if not has_clock:
        slow = replace(slow, gpu=replace(slow.gpu, clock_mhz=None))
    since_ns = slow.start_ns - 3_600 * NANOS_PER_SECOND
    usual = usual_of(
        since_ns,
        slow.start_ns,
        _sampled([r for r in requests if since_ns <= r.start_ns and r.end_ns <= slow.start_ns]),
        _sampled([_step(s, has_clock) for s in simulated.steps if _end_ns(s) <= slow.start_ns]),
    )
    own = [
        _step(s, has_clock)
        for s in simulated.steps
        if _end_ns(s) > slow.start_ns and s.start_ns < slow.end_ns
    ]
    others = [
        r
        for r in requests
        if r.span_id != slow.span_id and r.end_ns > slow.start_ns and r.start_ns < slow.end_ns
    ]
    return why(slow, own, others, usual)


def _end_ns(step: Step) -> int:
    return step.start_ns + step.duration_ns


def _sampled(rows: Sequence[Facts]) -> list[Facts]:
    """As a store chooses the rows of a baseline."""

    def place(row: Facts) -> tuple[int, int]:
        span_id = int(row.span_id, 16)
        return ((span_id & 65535) * 40503) & 65535, span_id

    return sorted(rows, key=place)[:MAX_BASELINE_ROWS]


def _step(step: Step, has_clock: bool) -> StepFacts:
    facts = step_facts(step)
    return facts if has_clock else replace(facts, gpu=replace(facts.gpu, clock_mhz=None))


def _mistake(planted: Planted, scene: Scene, diagnosis: Diagnosis) -> str:
    found = [finding.cause for finding in diagnosis.findings]
    if planted.cause is None:
        return f"found {found[0]}" if found else ""
    if not found:
        return "found nothing"
    first = diagnosis.findings[0]
    if first.cause != planted.cause:
        return f"found {first.cause}"
    culprit = None if first.culprit is None else first.culprit.request_id
    if scene.culprit is not None and culprit != scene.culprit.request_id:
        return f"blamed {culprit}"
    if scene.culprit is None and culprit is not None:
        return f"blamed {culprit}"
    if scene.faulty_step is not None and planted.cause == "slow_step":
        worst = first.steps[0].step.index if first.steps else None
        if worst != scene.faulty_step:
            return f"named step {worst}, not {scene.faulty_step}"
    return _wrong_evidence(scene, first.spans)


def _wrong_evidence(scene: Scene, spans: Sequence[RequestFacts]) -> str:
    if not scene.evidence_prefix:
        return ""
    right = sum((span.request_id or "").startswith(scene.evidence_prefix) for span in spans)
    return "" if spans and right >= 0.8 * len(spans) else "named others than those of the burst"


def table(judged: Sequence[Judged]) -> str:
    """The score, the table of all cases, and the mistakes, in Markdown."""
    right = sum(not one.mistake for one in judged)
    models = list(dict.fromkeys(one.case.model.name for one in judged))
    lines = [
        f"**{right} of {len(judged)}** cases are right.",
        "",
        f"| planted | named first | {' | '.join(models)} |",
        f"| --- | --- |{' --- |' * len(models)}",
    ]
    for kind, planted in KINDS.items():
        cells = [_cell(judged, kind, model) for model in models]
        cause = "nothing" if planted.cause is None else f"`{planted.cause}`"
        lines.append(f"| {kind} | {cause} | {' | '.join(cells)} |")
    if mistakes := [one for one in judged if one.mistake]:
        lines += ["", "The mistakes:", ""]
        lines += [f"- {one.case.name}: it {one.mistake}." for one in mistakes]
    return "\n".join(lines) + "\n"


def _cell(judged: Sequence[Judged], kind: str, model: str) -> str:
    of = [one for one in judged if (one.case.kind, one.case.model.name) == (kind, model)]
    return f"{sum(not one.mistake for one in of)} of {len(of)}" if of else ""


def page_with(table_text: str) -> str:
    """The page in docs/ with this table in the place of the one that it has."""
    text = PAGE.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}\n{table_text}{END}{after}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-v", action="store_true", help="tell of the right ones too")
    parser.add_argument("--offset", type=int, default=0, help="other seeds: only print the score")
    options = parser.parse_args()
    results = [judge(replace(case, seed=case.seed + options.offset)) for case in cases()]
    for one in results:
        if one.mistake or options.v:
            print(f"{one.case.name}: {one.mistake or 'right'}")
            print(f"    {one.diagnosis.summary}")
            for finding in one.diagnosis.findings:
                print(f"    {finding.cause}: {finding.explained_ms:.0f} ms. {finding.sentence}")
    if options.offset:
        print(f"{sum(not one.mistake for one in results)} of {len(results)}")
    else:
        PAGE.write_text(page_with(table(results)), encoding="utf-8")
