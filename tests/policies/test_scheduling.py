"""Scheduling policies: whom each chooses by what it sees, and the contract."""

from __future__ import annotations

from pathlib import Path

import pytest

from hw_profiles.errors import InputError
from policies.build import build_policy
from policies.checks.scheduling import Queue, Shown
from policies.contract import ContractError, check_policy
from policies.scheduling.base import QueueView, Scheduler, WaitingRequest
from policies.scheduling.mc_sf import MemoryConstrainedShortestFirst
from policies.scheduling.memory_aware_fcfs import MemoryAwareFirstCome
from policies.scheduling.shortest_first import ShortestFirst
from policies.tables import SCHEDULING


def request(index: int, tokens: int, left: int, arrival: float = 0.0) -> Shown:
    return Shown(index, arrival, 0, -1, -1, tokens, tokens, left, 0, tokens, 0)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", SCHEDULING)
def test_every_shipped_scheduler_keeps_the_contract(name: str, seed: int) -> None:
    check_policy(SCHEDULING[name], seed=seed, operations=500)


def test_the_shortest_answer_ranks_first_and_waiting_makes_it_shorter() -> None:
    old, new = request(0, 10, 30, arrival=0.0), request(1, 10, 25, arrival=10.0)
    assert ShortestFirst().rank(new) < ShortestFirst().rank(old)
    assert ShortestFirst(aging=0.4).rank(new) < ShortestFirst(aging=0.4).rank(old)  # 5 shorter against 4
    assert ShortestFirst(aging=0.6).rank(new) > ShortestFirst(aging=0.6).rank(old)


@pytest.mark.parametrize("cls", [MemoryConstrainedShortestFirst, MemoryAwareFirstCome])
def test_memory_is_asked_for_at_every_end(cls: type[Scheduler]) -> None:
    """By hand: 40 + 10 tokens that end in step 10 hold 50 then; 40 with 4 to come hold 44 in step 4, beside 44."""
    policy, running = cls(), [request(0, 40, 10)]
    shorter = request(1, 40, 4)
    assert Queue(0.0, [shorter], running, capacity_tokens=88).peak_tokens(shorter) == 88
    assert policy.choose(Queue(0.0, [shorter], running, capacity_tokens=88)) == 0
    assert policy.choose(Queue(0.0, [shorter], running, capacity_tokens=87)) is None
    assert policy.choose(Queue(0.0, [shorter], [], capacity_tokens=10)) == 0  # alone it goes, whatever is predicted


class Sleeps(Scheduler):
    def choose(self, queue: QueueView) -> int | None:
        return None


class Beyond(Scheduler):
    def choose(self, queue: QueueView) -> int | None:
        return len(queue.waiting)


class Unranked(Scheduler):
    def rank(self, request: WaitingRequest) -> float:
        return float("nan")

    def choose(self, queue: QueueView) -> int | None:
        return 0


class Fickle(Scheduler):
    made = 0

    def __init__(self) -> None:
        Fickle.made += 1
        self._mine = Fickle.made % 2

    def choose(self, queue: QueueView) -> int | None:
        return min(self._mine, len(queue.waiting) - 1)


class Meddles(Scheduler):
    def choose(self, queue: QueueView) -> int | None:
        queue.waiting.clear()  # type: ignore[attr-defined]
        return 0


class Crashes(Scheduler):
    def choose(self, queue: QueueView) -> int | None:
        return queue.nothing  # type: ignore[attr-defined,no-any-return]


@pytest.mark.parametrize(
    ("cls", "said"),
    [
        (Sleeps, "admitted nobody while nothing runs"),
        (Beyond, "did not return a place"),
        (Unranked, "did not return a number"),
        (Fickle, "chose differently"),
        (Meddles, "changed what it was shown"),
        (Crashes, "raised AttributeError"),
    ],
)
def test_a_broken_rule_is_named(cls: type[Scheduler], said: str) -> None:
    with pytest.raises(ContractError, match=said):
        check_policy(cls, seed=1, operations=200)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"name": "mcsf"}, "unknown scheduling policy.*did you mean 'mc_sf'"),
        ({"name": "mc_sf", "errors": 1}, "no such option.*did you mean 'error'"),
        ({"name": "mc_sf", "error": -1}, "error: found -1"),
        ({"name": "shortest_first", "aging": "fast"}, "aging: found 'fast'"),
    ],
)
def test_bad_options_are_told(spec: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        build_policy("scheduling", spec, base_dir=Path(), path="policies.scheduling")


def test_the_policy_of_the_docs_keeps_the_contract() -> None:
    text = (Path(__file__).parents[2] / "docs" / "scheduling.md").read_text()
    snippet = text[text.index("```python\n") + 10 :]
    found: dict[str, type[Scheduler]] = {}
    exec(snippet[: snippet.index("```")], found)
    check_policy(found["ShortestPromptFirst"], seed=3, operations=500)


def test_the_docs_have_every_scheduler() -> None:
    text = (Path(__file__).parents[2] / "docs" / "scheduling.md").read_text()
    assert [name for name in SCHEDULING if f"| `{name}` |" not in text] == []
