"""Our named tuples do what those of `typing` do."""

from __future__ import annotations

import copy
import pickle
import typing
from typing import Any

import pytest

from infertrace import named_tuple


class Theirs(typing.NamedTuple):
    """Of `typing`."""

    first: int
    second: str = "two"

    @property
    def both(self) -> str:
        return f"{self.first}{self.second}"


class Ours(named_tuple.NamedTuple):
    """Of `infertrace`."""

    first: int
    second: str = "two"

    @property
    def both(self) -> str:
        return f"{self.first}{self.second}"


def test_it_was_made_here() -> None:
    assert named_tuple.NamedTuple.__module__ == named_tuple.__name__


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ((1,), {}),
        ((1, "b"), {}),
        ((), {"first": 1}),
        ((), {"second": "b", "first": 1}),
        ((1,), {"second": "b"}),
    ],
)
def test_what_can_be_made(values: Any, named: Any) -> None:
    ours: Any = Ours(*values, **named)
    theirs: Any = Theirs(*values, **named)
    assert tuple(ours) == tuple(theirs)
    assert ours == theirs
    assert hash(ours) == hash(theirs)
    assert (ours.first, ours.second, ours.both) == (theirs.first, theirs.second, theirs.both)
    assert repr(ours).removeprefix("Ours") == repr(theirs).removeprefix("Theirs")
    assert ours._asdict() == theirs._asdict()
    assert ours._replace(second="c") == theirs._replace(second="c")
    for copied in (copy.copy(ours), copy.deepcopy(ours), pickle.loads(pickle.dumps(ours))):
        assert type(copied) is Ours
        assert copied == ours
    with pytest.raises(AttributeError):
        ours.other = 1
    with pytest.raises(AttributeError):
        ours.first = 1


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ((), {}),
        ((), {"second": "b"}),
        ((1, "b", 3), {}),
        ((1,), {"first": 1}),
        ((1,), {"third": 1}),
        ((1, "b"), {"second": "b"}),
    ],
)
def test_what_cannot(values: Any, named: Any) -> None:
    for made in (Ours, Theirs):
        with pytest.raises(TypeError):
            made(*values, **named)


def test_what_classes_say_of_themselves() -> None:
    assert Ours._fields == Theirs._fields
    assert Ours._field_defaults == Theirs._field_defaults
    assert Ours.__match_args__ == Theirs.__match_args__
    assert tuple(Ours._make([1, "b"])) == (1, "b")
    with pytest.raises((TypeError, ValueError)):
        Ours(1)._replace(third=3)  # type: ignore[call-arg]
