"""Prefetch policies: what each fetches, when, and into which tier."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hw_profiles.errors import InputError
from policies.base import Fetch, PrefetchPolicy, Trigger
from policies.build import build_policy, policy_options
from policies.prefetch import next_turn
from policies.prefetch.next_turn import NextTurn
from policies.prefetch.on_arrival import OnArrival
from policies.prefetch.popularity import Popularity
from policies.prefetch.ranking import Ranking
from policies.tables import PREFETCH

ARRIVED, FINISHED = Trigger.ARRIVED, Trigger.FINISHED


@dataclass
class Request:
    keys: Sequence[int] = (1, 2, 3)
    session: int = -1
    think_s: float | None = None
    index: int = 0
    input_tokens: int = 30
    turn: int = -1
    carried: bool = False


class Cache:
    """HBM and what lies behind it; `room` is the free memory of HBM in blocks."""

    def __init__(self, *tiers: str, room: int = 100) -> None:
        self.tiers = tiers or ("hbm", "dram", "ssd")
        self.now = 0.0
        self.block_bytes = 10
        self.room = room
        self.held: dict[str, set[int]] = {name: set() for name in self.tiers}

    def capacity(self, tier: str) -> int:
        return {**dict.fromkeys(self.tiers, 1_000), "cxl": 0}[tier]

    def free(self, tier: str) -> int:
        return 10 * self.room + 9

    def holds(self, key: int, tier: str) -> bool:
        return key in self.held[tier]


def plan(policy: PrefetchPolicy, trigger: Trigger, request: Request, cache: Cache) -> list[Fetch]:
    return list(policy.plan(trigger, request, cache)) if trigger in policy.listens else []


def test_none_asks_for_nothing() -> None:
    policy = PREFETCH["none"]()
    assert policy.listens == ()
    assert list(policy.plan(ARRIVED, Request(), Cache())) == []


class TestOnArrival:
    def test_the_prompt_comes_into_the_tier_behind_hbm(self) -> None:
        policy = OnArrival()
        assert plan(policy, ARRIVED, Request(), Cache()) == [Fetch((1, 2, 3), "dram", 0.0)]
        assert plan(policy, FINISHED, Request(), Cache()) == []
        assert plan(policy, ARRIVED, Request(keys=()), Cache()) == []

    def test_where_nothing_lies_farther_there_is_nothing_to_do(self) -> None:
        assert plan(OnArrival(), ARRIVED, Request(), Cache("hbm", "dram")) == []
        assert plan(OnArrival(into="ssd"), ARRIVED, Request(), Cache()) == []
        assert plan(OnArrival(), ARRIVED, Request(), Cache("hbm")) == []

    def test_a_named_tier(self) -> None:
        assert plan(OnArrival(into="hbm"), ARRIVED, Request(), Cache("hbm", "dram")) == [Fetch((1, 2, 3), "hbm", 0.0)]

    def test_stop_rules(self) -> None:
        assert (OnArrival().stop, OnArrival(stop="wait_complete").stop) == ("best_effort", "wait_complete")
        timed = OnArrival(stop="timeout", timeout="250 ms")
        assert (timed.stop, timed.timeout_s) == ("timeout", 0.25)


class TestNextTurn:
    def test_the_blocks_come_back_in_time(self) -> None:
        policy = NextTurn(lead="2 s")
        for think_s, after_s in ((60.0, 58.0), (2.0, 0.0), (0.5, 0.0)):
            found = plan(policy, FINISHED, Request(think_s=think_s), Cache())
            assert found == [Fetch((1, 2), "hbm", after_s)]
        assert plan(policy, ARRIVED, Request(think_s=60.0), Cache()) == []
        (fetch,) = plan(policy, FINISHED, Request(think_s=60.0, carried=True), Cache())
        assert fetch.keys == (1, 2, 3)  # the last block too, which the next turn has as it is

    def test_no_fetch_for_a_last_turn_that_the_trace_knows(self) -> None:
        assert plan(NextTurn(), FINISHED, Request(think_s=None), Cache()) == []

    def test_the_mean_is_learnt_without_the_future(self) -> None:
        policy, cache = NextTurn(estimate="mean", lead=1, into="dram"), Cache()

        def turn(session: int, arrives: float, ends: float) -> list[Fetch]:
            request = Request(session=session, think_s=math.nan)  # the trace's own figure is not looked at
            cache.now = arrives
            assert plan(policy, ARRIVED, request, cache) == []
            cache.now = ends
            return plan(policy, FINISHED, request, cache)

        assert turn(1, 0, 5) == []  # nothing is known yet
        assert turn(2, 6, 7) == []
        assert turn(1, 15, 20) == [Fetch((1, 2), "dram", 9.0)]  # 10 s until the next turn
        assert turn(2, 37, 40) == [Fetch((1, 2), "dram", 19.0)]  # (10 + 30) / 2
        assert turn(-1, 50, 60) == []  # of no conversation
        assert turn(3, 70, 71) == [Fetch((1, 2), "dram", 19.0)]  # a first turn teaches nothing

    def test_turns_that_overlap_teach_nothing(self) -> None:
        policy, cache = NextTurn(estimate="mean"), Cache()
        for trigger, now in ((ARRIVED, 0.0), (ARRIVED, 1.0), (FINISHED, 2.0)):
            cache.now = now
            assert plan(policy, trigger, Request(session=1), cache) == []

    def test_memory_is_bounded(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(next_turn, "CONVERSATIONS", 10)
        policy = NextTurn(estimate="mean")
        for session in range(100):
            plan(policy, FINISHED, Request(session=session), Cache())
        assert len(policy._ended) == 10


class TestPopularity:
    def test_popular_blocks_come_back_when_there_is_room(self) -> None:
        policy, cache = Popularity(), Cache()
        cache.held["dram"] = {1, 2, 7}
        for keys in ((1, 2), (1, 3), (7,)):
            cache.room = 0
            assert plan(policy, ARRIVED, Request(keys), cache) == []
        cache.room = 2
        assert plan(policy, FINISHED, Request((7,)), cache) == [Fetch([1], "hbm"), Fetch([7], "hbm")]
        cache.room = 3
        assert plan(policy, FINISHED, Request((7,)), cache) == [Fetch([7], "hbm"), Fetch([1, 2], "hbm")]

    def test_only_what_is_missing_near_and_there_far_away(self) -> None:
        policy, cache = Popularity(into="dram"), Cache()
        cache.held = {"hbm": {1}, "dram": {2}, "ssd": {1, 2, 3, 5}}
        (fetch,) = plan(policy, ARRIVED, Request((1, 2, 3, 4, 5)), cache)
        assert fetch == Fetch([3], "dram")  # 4 is nowhere, so 5 has no prefix

    def test_at_most_so_many(self) -> None:
        policy, cache = Popularity(most=2), Cache()
        cache.held["ssd"] = set(range(1, 9))
        assert plan(policy, ARRIVED, Request(range(1, 9)), cache) == [Fetch([1, 2], "hbm")]
        cache.held["hbm"] = {1, 2}
        assert plan(policy, FINISHED, Request(range(1, 9)), cache) == [Fetch([3, 4], "hbm")]

    def test_popularity_fades(self) -> None:
        """Four arrivals three half-lives ago are worth half an arrival of now."""
        policy, cache = Popularity(most=1, half_life=10), Cache(room=0)
        cache.held["dram"] = {1, 2}
        for _ in range(4):
            plan(policy, ARRIVED, Request((1,)), cache)
        cache.now = 30.0
        plan(policy, ARRIVED, Request((2,)), cache)
        cache.room = 1
        assert plan(policy, FINISHED, Request(), cache) == [Fetch([2], "hbm")]
        cache.now = 1e6  # later they fade alike, and no figure overflows
        assert plan(policy, FINISHED, Request(), cache) == [Fetch([2], "hbm")]
        plan(policy, ARRIVED, Request((1,)), cache)
        assert plan(policy, FINISHED, Request(), cache) == [Fetch([1], "hbm")]

    @given(st.lists(st.tuples(st.integers(1, 5), st.floats(0, 100)), min_size=1, max_size=30))
    def test_the_order_is_that_of_the_decayed_counts(self, arrivals: list[tuple[int, float]]) -> None:
        policy, cache = Popularity(half_life=20), Cache(room=0)
        counts: dict[int, float] = {}
        for key, wait in arrivals:
            cache.now += wait
            counts = {k: count * 2 ** (-wait / 20) for k, count in counts.items()}
            counts[key] = counts.get(key, 0) + 1
            plan(policy, ARRIVED, Request((key,)), cache)
        values = [counts[key] for key in policy._ranking.top()]
        assert len(values) == len(counts)
        assert all(a >= b * (1 - 1e-9) for a, b in pairwise(values))

    def test_memory_is_bounded_and_prefixes_are_forgotten_last(self) -> None:
        policy, cache = Popularity(remember=10), Cache(room=0)
        for n in range(100):
            plan(policy, ARRIVED, Request((0, 1_000 + 3 * n, 1_001 + 3 * n, 1_002 + 3 * n)), cache)
        assert len(policy._ranking) == len(policy._parents) == 10
        known = set(policy._ranking.top())
        assert all(parent is None or parent in known for parent in policy._parents.values())


@given(
    st.lists(st.tuples(st.integers(0, 12), st.integers(0, 20), st.integers(0, 3)), max_size=80),
    st.integers(1, 8),
)
def test_a_ranking_is_a_sorted_list_with_a_bound(steps: list[tuple[int, int, int]], most: int) -> None:
    ranking, model = Ranking(most), dict[int, tuple[float, int]]()
    for key, gain, depth in steps:
        score = (ranking.score(key) or 0.0) + gain
        assert ranking.score(key) == (-model[key][0] if key in model else None)
        gone = ranking.raise_to(key, score, depth)
        model.pop(key, None)
        model[key] = (-score, depth)
        if len(model) > most:
            oldest = next(iter(model))
            assert gone == oldest
            del model[oldest]
        else:
            assert gone is None
        order = list(ranking.top())
        assert len(ranking) == len(order) == len(set(order)) == len(model)
        assert [model[k] for k in order] == sorted(model.values())


@pytest.mark.parametrize("policy", [OnArrival(into="drm"), NextTurn(into="drm"), Popularity(into="drm")])
def test_a_tier_that_does_not_exist_is_refused(policy: PrefetchPolicy) -> None:
    request = Request(session=1, think_s=3.0)
    said = r"policies.prefetch.into: no such tier.*found 'drm', expected one of hbm, dram, ssd; did you mean 'dram'\?"
    with pytest.raises(InputError, match=said):
        [plan(policy, trigger, request, Cache()) for trigger in Trigger]


@pytest.mark.parametrize("policy", [OnArrival(into="cxl"), NextTurn(into="cxl"), Popularity(into="cxl")])
def test_into_a_tier_of_no_size_nothing_is_fetched(policy: PrefetchPolicy) -> None:
    request = Request(session=1, think_s=3.0)
    assert not any([*plan(policy, trigger, request, Cache())] for trigger in Trigger)


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("on_arrival", {"stop": "never"}, "stop: found 'never', expected one of best_effort, wait_complete, timeout"),
        ("on_arrival", {"stop": "timeout", "timeout": 0}, "timeout: found 0, expected a time > 0 s"),
        ("next_turn", {"lead": -1}, "lead: found -1, expected a time >= 0 s"),
        ("next_turn", {"estimate": "guess"}, "estimate: found 'guess', expected one of recorded, mean"),
        ("popularity", {"most": 0}, "most: found 0, expected a whole number from 1"),
        ("popularity", {"half_life": "0 s"}, "half_life: found '0 s', expected a time > 0 s"),
        ("popularity", {"remember": 0}, "remember: found 0, expected a whole number from 1"),
    ],
)
def test_options_out_of_range_are_refused(name: str, options: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        build_policy("prefetch", {"name": name, **options}, base_dir=Path(), path="policies.prefetch")


@pytest.mark.parametrize("name", PREFETCH)
def test_every_policy_builds_from_its_defaults_and_says_what_it_is(name: str) -> None:
    options = policy_options(PREFETCH[name])
    policy = build_policy("prefetch", {"name": name, **options}, base_dir=Path(), path="")
    assert isinstance(policy, PrefetchPolicy)
    assert all(option in (type(policy).__doc__ or "") for option in options)
