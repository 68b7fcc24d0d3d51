"""`trace_inference`: a span around each call of a function, coroutine or generator."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from itertools import islice
from types import FunctionType

from infertrace import backend

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# Flags of a code object, as `inspect` documents them; importing it at the top would be slow.
_CO_VARARGS, _CO_VARKEYWORDS = 0x04, 0x08


def traced(
    function: Any,
    start_span: Callable[..., Any],
    model: str | None,
    operation: str,
    fields: Mapping[str, Any],
) -> Any:
    """`function` with a span around each call, which `start_span` makes with the other arguments.

    Name, signature and kind stay; this looks the kind up once, not at each call.
    """
    import inspect

    if isinstance(function, (staticmethod, classmethod)):
        return type(function)(traced(function.__func__, start_span, model, operation, fields))
    if not callable(function):
        raise TypeError(f"trace_inference: expected a function, got {function!r}")
    target = function
    while isinstance(target, functools.partial):
        target = target.func
    if not (inspect.isroutine(target) or inspect.isclass(target)):
        target = type(target).__call__

    def start() -> Any:
        return start_span(model, operation, **fields)

    if inspect.iscoroutinefunction(target):
        wrapper = _traced_coroutine(function, start)
    elif inspect.isasyncgenfunction(target):
        wrapper = _traced_async_generator(function, start)
    elif inspect.isgeneratorfunction(target):
        wrapper = _traced_generator(function, start)
    else:
        wrapper = _traced_function(function, start_span, model, operation, fields)
    return functools.update_wrapper(wrapper, function)


def _traced_function(
    function: Any,
    start_span: Callable[..., Any],
    model: str | None,
    operation: str,
    fields: Mapping[str, Any],
) -> Any:
    if isinstance(function, FunctionType):
        parameters, arguments = _parameters(function)
    else:
        parameters, arguments = "*args, **kwargs", "*args, **kwargs"
    # Generated source: forwarding *args and **kwargs, or one more call, is measurable here.
    own = "_"
    while f" {own}" in f" {parameters}".replace("*", ""):
        own += "_"  # a name that no parameter has
    keywords = f", **{own}fields" if fields else ""
    program = _CALL.format(own=own, parameters=parameters, fields=keywords, arguments=arguments)
    names: dict[str, Any] = {}
    exec(compile(program, "<infertrace.trace_inference>", "exec"), names)
    call = names["_make"](start_span, model, operation, fields, function)
    if isinstance(function, FunctionType):
        call.__defaults__ = function.__defaults__
        call.__kwdefaults__ = function.__kwdefaults__
    return call


_CALL = """
def _make({own}start_span, {own}model, {own}operation, {own}fields, {own}function):
    def call({parameters}):
        with {own}start_span({own}model, {own}operation{fields}):
            return {own}function({arguments})
    return call
"""


def _parameters(function: FunctionType) -> tuple[str, str]:
    """The parameters of a function without their defaults, and the arguments to forward them."""
    code = function.__code__
    names = iter(code.co_varnames)
    positional = [*islice(names, code.co_argcount)]
    keywords = [*islice(names, code.co_kwonlyargcount)]
    parameters, arguments = positional[:], positional[:]
    if code.co_posonlyargcount:
        parameters.insert(code.co_posonlyargcount, "/")
    if code.co_flags & _CO_VARARGS:
        parameters.append(f"*{next(names)}")
        arguments.append(parameters[-1])
    elif keywords:
        parameters.append("*")
    parameters += keywords
    arguments += [f"{name}={name}" for name in keywords]
    if code.co_flags & _CO_VARKEYWORDS:
        parameters.append(f"**{next(names)}")
        arguments.append(parameters[-1])
    return ", ".join(parameters), ", ".join(arguments)


def _traced_coroutine(function: Any, start: Callable[[], Any]) -> Any:
    async def call(*args: Any, **kwargs: Any) -> Any:
        with start():
            return await function(*args, **kwargs)

    return call


class _GeneratorSpan:
    """The span of a generator: current only while a step runs.

    So is a span inside whose block the generator yielded. No context token is held across a
    `yield`: the next step may run in another context, or never.
    """

    __slots__ = ("_current", "_given", "_previous", "_span")

    def __init__(self, span: Any) -> None:
        self._span = self._current = span
        self._given = 0
        """Items that were counted as tokens."""

    def __enter__(self) -> None:
        if self._span.propagates:
            self._previous = backend.selected.current()
            backend.selected.set_current(self._current)

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> None:
        if self._span.propagates:
            self._current = backend.selected.current()
            backend.selected.set_current(self._previous)
            self._previous = None
        # Where the generator, or the steps that it is in, give tokens, items are none.
        if error is None and self._span.is_recording and self._span.token_count == self._given:
            self._span.token()
            self._given += 1

    def finish(self, error: BaseException | None = None) -> None:
        """End the span; an early close counts as a cancellation."""
        # The span was never entered, so __exit__ only ends it, with the error's status.
        self._span.__exit__(None if error is None else type(error), error, None)


def _traced_generator(function: Any, start: Callable[[], Any]) -> Any:
    def call(*args: Any, **kwargs: Any) -> Any:
        step = _GeneratorSpan(start())
        try:
            with step:
                generator = function(*args, **kwargs)
                item = next(generator)
            while True:
                try:
                    sent = yield item
                except GeneratorExit:
                    with step:
                        generator.close()
                    raise
                except BaseException as thrown:
                    with step:
                        item = generator.throw(thrown)
                else:
                    with step:
                        item = generator.send(sent)
        except StopIteration as stop:
            step.finish()
            return stop.value
        except BaseException as error:
            step.finish(error)
            raise

    return call


def _traced_async_generator(function: Any, start: Callable[[], Any]) -> Any:
    async def call(*args: Any, **kwargs: Any) -> Any:
        step = _GeneratorSpan(start())
        try:
            with step:
                generator = function(*args, **kwargs)
                item = await generator.asend(None)
            while True:
                try:
                    sent = yield item
                except GeneratorExit:
                    with step:
                        await generator.aclose()
                    raise
                except BaseException as thrown:
                    with step:
                        item = await generator.athrow(thrown)
                else:
                    with step:
                        item = await generator.asend(sent)
        except StopAsyncIteration:
            step.finish()
        except BaseException as error:
            step.finish(error)
            raise

    return call
