"""Causes planted in a simulated engine are what the diagnosis names first."""

from __future__ import annotations

import pytest

from planted_causes import BEGIN, KINDS, LOADS, PAGE, Case, cases, judge, page_with, table

LEAST_RIGHT = 0.95  # 38 of 40


def test_the_page_has_the_matrix_and_the_matrix_is_right() -> None:
    judged = [judge(case) for case in cases()]
    assert len(judged) >= 40
    assert sum(not one.mistake for one in judged) >= LEAST_RIGHT * len(judged)
    text = PAGE.read_text(encoding="utf-8")
    assert BEGIN in text
    assert text == page_with(table(judged)), "python tests/planted_causes.py writes it anew"


@pytest.mark.parametrize("kind", KINDS)
def test_one_of_each_kind_with_another_seed(kind: str) -> None:
    judged = judge(Case(kind, KINDS[kind].models[0], LOADS[0], seed=77))
    assert judged.mistake == "", judged.diagnosis


def test_equal_facts_give_an_equal_diagnosis() -> None:
    case = Case("burst", KINDS["burst"].models[0], LOADS[0], seed=78)
    assert judge(case).diagnosis == judge(case).diagnosis
