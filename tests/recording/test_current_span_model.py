"""The current span beside a plain context variable, over random histories of copied contexts."""

from __future__ import annotations

import asyncio
import contextvars
from typing import Any

import greenlet
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from backend_recording import available_backends
from infertrace import backend as backends

MAX_CONTEXTS = 12
# Enough variables for the map of a context to have nodes of every kind.
MANY_VARIABLES: list[contextvars.ContextVar[Any]] = [
    contextvars.ContextVar(f"other {number}") for number in range(400)
]
REFERENCE: contextvars.ContextVar[Any] = contextvars.ContextVar("reference", default=None)

WHICH = st.integers(0, MAX_CONTEXTS - 1)


def slot(variable: Any) -> int:
    """The slot of a variable in the first node of a context's map (CPython's hamt.c)."""
    number = hash(variable) & 0xFFFFFFFFFFFFFFFF
    return (number ^ number >> 32) & 31


def few_variables(backend: Any) -> list[Any]:
    """Variables in the slot of the backend's own, which share a deeper node with it, and others."""

    def own_slots() -> set[int]:
        backend.set_current("probe")
        return {slot(variable) for variable in contextvars.copy_context()}

    taken = contextvars.Context().run(own_slots)
    same = [variable for variable in MANY_VARIABLES if slot(variable) in taken]
    other = [variable for variable in MANY_VARIABLES if slot(variable) not in taken]
    return same[:3] + other[:4]


class CurrentSpanModel(RuleBasedStateMachine):
    """Every context sees what a context variable would show it."""

    backend_name = "pure"

    def __init__(self) -> None:
        super().__init__()
        self.backend = backends.select(self.backend_name)
        self.contexts = [contextvars.Context()]
        self.made = 0
        self.few = few_variables(self.backend)
        self.variables = self.few

    @initialize(many=st.booleans())
    def choose_variables(self, many: bool) -> None:
        self.variables = MANY_VARIABLES if many else self.few

    def run_in(self, which: int, action: Any) -> None:
        self.contexts[which % len(self.contexts)].run(action)

    def change(self, span: Any) -> None:
        self.backend.set_current(span)
        REFERENCE.set(span)

    @rule(which=WHICH)
    def make_current(self, which: int) -> None:
        self.made += 1
        span = f"span {self.made}"
        self.run_in(which, lambda: self.change(span))

    @rule(which=WHICH)
    def clear(self, which: int) -> None:
        self.run_in(which, lambda: self.change(None))

    @rule(which=WHICH)
    def enter_and_leave(self, which: int) -> None:
        """A whole block, with a copy taken inside it and one after it."""

        def block() -> None:
            before = self.backend.current()
            self.made += 1
            self.change(f"span {self.made}")
            inside = contextvars.copy_context()
            self.change(before)
            after = contextvars.copy_context()
            if len(self.contexts) + 2 <= MAX_CONTEXTS:
                self.contexts += [inside, after]

        self.run_in(which, block)

    @rule(which=WHICH)
    def copy(self, which: int) -> None:
        if len(self.contexts) < MAX_CONTEXTS:
            self.contexts.append(self.contexts[which % len(self.contexts)].copy())

    @rule(which=WHICH)
    def forget(self, which: int) -> None:
        if len(self.contexts) > 1:
            del self.contexts[which % len(self.contexts)]

    @rule(which=WHICH, picks=st.lists(st.integers(0, 399), max_size=40))
    def set_other_variables(self, which: int, picks: list[int]) -> None:
        def change() -> None:
            for pick in picks:
                self.variables[pick % len(self.variables)].set(object())

        self.run_in(which, change)

    @rule(which=WHICH, pick=st.integers(0, 399))
    def copy_and_set_another_variable(self, which: int, pick: int) -> None:
        """Two maps that share all but the nodes on the way to that variable."""
        if len(self.contexts) < MAX_CONTEXTS:
            copied = self.contexts[which % len(self.contexts)].copy()
            copied.run(self.variables[pick % len(self.variables)].set, 1)
            self.contexts.append(copied)

    @rule(which=WHICH, copied=st.booleans())
    def nested_run(self, which: int, copied: bool) -> None:
        """A callback inside another context's step."""

        def step() -> None:
            self.made += 1
            self.change(f"span {self.made}")
            inner = contextvars.copy_context() if copied else contextvars.Context()
            inner.run(lambda: self.change("inner"))
            assert self.backend.current() == REFERENCE.get()

        self.run_in(which, step)

    @invariant()
    def every_context_agrees(self) -> None:
        for context in self.contexts:
            assert context.run(self.backend.current) == context.run(REFERENCE.get)


for _name in available_backends():
    _model: Any = type(f"Model_{_name}", (CurrentSpanModel,), {"backend_name": _name})
    _case = _model.TestCase
    _case.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
    globals()[f"TestCurrentSpan_{_name}"] = _case
del _case


def test_a_timer_copies_the_context_of_a_block(recording: Any, backend: Any) -> None:
    """asyncio copies the context for each callback; one may outlive the block."""
    seen = []

    async def serve() -> None:
        loop = asyncio.get_running_loop()
        for number in range(50):
            with recording.start_span("m", str(number)) as outer:
                loop.call_later(0.001, lambda: seen.append(backend.current()))
                with recording.start_span("m", "inner"):
                    await asyncio.sleep(0)
                assert backend.current() is outer
            assert backend.current() is None
        await asyncio.sleep(0.05)

    asyncio.run(serve())
    outer = [span for span in recording.take_all() if not span.parent_span_id]
    assert [span.operation_name for span in outer] == [str(number) for number in range(50)]
    assert {span.span_id for span in seen} == {span.span_id.hex() for span in outer}


def test_greenlets(recording: Any, backend: Any) -> None:

    def work(name: str) -> None:
        with recording.start_span("m", name) as span:
            main.switch()
            assert backend.current() is span
            with recording.start_span("m", f"{name} child"):
                main.switch()
            assert backend.current() is span

    main = greenlet.getcurrent()
    workers = [greenlet.greenlet(work) for _ in range(5)]
    for number, worker in enumerate(workers):
        worker.switch(str(number))
    while any(not worker.dead for worker in workers):
        for worker in workers:
            if not worker.dead:
                worker.switch()
    spans = {span.operation_name: span for span in recording.take_all()}
    for number in range(5):
        child, parent = spans[f"{number} child"], spans[str(number)]
        assert child.parent_span_id == parent.span_id
        assert not parent.parent_span_id
