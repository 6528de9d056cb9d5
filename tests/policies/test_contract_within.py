"""check_policy on policies within a sequence: those that ship keep their contract, and broken ones are told why."""

import random
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from hw_profiles.errors import InputError
from hw_profiles.lines import CONTEXT, constant, upto
from policies.contract import ContractError, check_policy
from policies.sequence.plan import FULL, LayerPlan, LayerView, Move, SequencePolicy, Work
from policies.tables import SEQUENCE_FAMILIES

SHIPPED = [(family, name) for family, table in SEQUENCE_FAMILIES.items() for name in table]


@pytest.mark.parametrize(("family", "name"), SHIPPED)
def test_those_that_ship_keep_it(family: str, name: str) -> None:
    check_policy(SEQUENCE_FAMILIES[family][name], seed=0, operations=60)


class Keeps(SequencePolicy):
    answer: Any = replace(FULL, kept=upto(100), attended=upto(100))

    def plan(self, layer: LayerView, before: LayerPlan) -> LayerPlan:
        found: LayerPlan = self.answer
        return found


def returns(answer: Any) -> type[Keeps]:
    return type("Answers", (Keeps,), {"answer": answer})


class Forgets(Keeps):
    """Plans by how often it was asked."""

    def __init__(self) -> None:
        self._asked = 0

    def plan(self, layer: LayerView, before: LayerPlan) -> LayerPlan:
        self._asked += 1
        return replace(before, kept=upto(self._asked), attended=upto(self._asked))


class ByChance(Keeps):
    def plan(self, layer: LayerView, before: LayerPlan) -> LayerPlan:
        budget = upto(random.randrange(1, 10_000))
        return replace(before, kept=budget, attended=budget)


class Raises(Keeps):
    def plan(self, layer: LayerView, before: LayerPlan) -> LayerPlan:
        raise KeyError(layer.index)


class Exits(Keeps):
    def plan(self, layer: LayerView, before: LayerPlan) -> LayerPlan:
        raise SystemExit(0)


class CannotBeCombined(Keeps):
    def plan(self, layer: LayerView, before: LayerPlan) -> LayerPlan:
        if before != FULL:
            raise InputError("only by itself")
        return self.answer  # type: ignore[no-any-return]


def of_works(*works: Any) -> LayerPlan:
    return replace(FULL, works=works)


def generated() -> Iterator[Work]:
    yield Work("one")


BROKEN = {
    "no plan": (returns(None), "returned None"),
    "a number for a line": (returns(replace(FULL, kept=5)), "kept, found '5', expected a Line"),
    "text for a line": (returns(replace(FULL, attended="all")), "attended, found \"'all'\", expected a Line"),
    "less than nothing": (returns(replace(FULL, extra=CONTEXT * -8.0)), "extra: -8"),
    "less than nothing while computed": (returns(replace(FULL, kept_in_prefill=CONTEXT * -1.0)), "kept_in_prefill: -1"),
    "one kernel, no tuple": (returns(replace(FULL, works=Work("one"))), "expected a tuple of Work"),
    "a list": (returns(replace(FULL, works=list(generated()))), "expected a tuple of Work"),
    "a copy among kernels": (returns(of_works(Move("h2d"))), "expected a tuple of Work"),
    "a kernel of no lines": (returns(of_works(Work("one", nbytes=3))), "works, found '3', expected a Line"),  # type: ignore[arg-type]
    "no form": (returns(replace(FULL, form=0.5)), "form, found '0.5', expected a Form"),
    "bytes that are none": (returns(replace(FULL, fixed_extra=float("nan"))), "fixed_extra, found 'nan'"),
    "no bandwidth": (returns(replace(FULL, attention_share=0.0)), "attention_share, found '0.0'"),
    "more than there is": (returns(replace(FULL, attended=constant(1e9))), "1e+09 tokens attended at a context of 1"),
    "what was dropped": (
        returns(replace(FULL, kept=upto(10))),
        "expected at most the 10 that it keeps, without a move",
    ),
    "what was dropped, copied": (
        returns(replace(FULL, kept=upto(10), attended=CONTEXT * 2.0, moves=(Move("h2d"),))),
        "expected at most the 1 of the context",
    ),
    "a way out": (Exits, "plan() raised SystemExit"),
    "a memory of its own": (Forgets, "does not follow from its arguments alone"),
    "chance": (ByChance, "does not follow from its arguments alone"),
    "an error": (Raises, "plan() raised KeyError"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_what_is_broken_is_said(case: str) -> None:
    broken, said = BROKEN[case]
    with pytest.raises(ContractError) as caught:
        check_policy(broken, seed=0, operations=50)
    text = str(caught.value)
    assert text.startswith(f"sequence policy {broken.__name__} broke its contract: ")
    assert said in text
    assert "\n" not in text


@pytest.mark.parametrize("good", [Keeps, CannotBeCombined])
def test_what_they_are_made_of_is_good(good: type) -> None:
    check_policy(good, seed=0, operations=200)
