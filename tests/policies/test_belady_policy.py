"""belady as an eviction policy: farthest next use first, kept current; optimal among caches that must take all in."""

import math
from functools import cache
from itertools import combinations
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hw_profiles.errors import InputError
from policies.base import Block, TierInfo
from policies.build import build_policy, policy_class
from policies.contract import ModelTier
from policies.eviction.belady import Belady
from policies.tables import EVICTION, EVICTION_BOUNDS, FAMILIES

SIZE = 10


class Future:
    """Requests for one block each, and how many of them have been admitted."""

    def __init__(self, keys: list[int]) -> None:
        self.keys = keys
        self.admitted = 0

    def next_use(self, key: int) -> float:
        return next((float(n) for n in range(self.admitted, len(self.keys)) if self.keys[n] == key), math.inf)


def block(key: int, start: int = 0) -> Block:
    return Block(key, start, SIZE, SIZE, SIZE)


def built(future: Future, blocks: int) -> ModelTier:
    policy = Belady(TierInfo("t", blocks * SIZE, SIZE, next_use=future.next_use))
    return ModelTier(policy, blocks * SIZE)


def hits(keys: list[int], capacity: int) -> int:
    future = Future(keys)
    tier = built(future, capacity)
    found = 0
    for key in keys:
        future.admitted += 1
        found += tier.get(block(key))
    return found


def best(keys: list[int], capacity: int) -> int:
    """The most hits of any cache that takes every missing block in, by trying every choice."""

    @cache
    def from_(place: int, held: frozenset[int]) -> int:
        if place == len(keys):
            return 0
        key = keys[place]
        if key in held:
            return 1 + from_(place + 1, held)
        rooms = [held] if len(held) < capacity else [frozenset(c) for c in combinations(held, capacity - 1)]
        return max(from_(place + 1, room | {key}) for room in rooms)

    return from_(0, frozenset())


@given(st.lists(st.integers(1, 6), max_size=24), st.integers(1, 4))
def test_no_cache_that_takes_everything_in_has_more_hits(keys: list[int], capacity: int) -> None:
    assert hits(keys, capacity) == best(keys, capacity)


@given(st.lists(st.integers(1, 9), max_size=40), st.lists(st.booleans(), min_size=40, max_size=40))
def test_the_order_is_that_of_the_future_whatever_was_skipped(keys: list[int], used: list[bool]) -> None:
    """Requests that are admitted and use nothing here (their prefix was gone) leave no stale order behind."""
    future = Future(keys)
    tier = built(future, 20)
    for key, touches in zip(keys, used, strict=False):
        future.admitted += 1
        if touches:
            tier.get(block(key))
        order = [future.next_use(b.key) for b in tier.policy.victims()]
        assert order == sorted(order, reverse=True)


def test_of_one_request_the_deepest_block_leaves_first_and_private_ones_before_it() -> None:
    future = Future([1])
    tier = built(future, 9)
    for key, start in ((5, 0), (6, 10), (-1, 20), (7, 30)):
        tier.get(block(key, start))
    tier.get(block(1))
    assert [b.key for b in tier.policy.victims()] == [7, -1, 6, 5, 1]


def test_superseded_entries_are_cleared_away() -> None:
    future = Future([n % 5 for n in range(4_000)])
    tier = built(future, 10)
    for key in future.keys[:2_000]:
        future.admitted += 1
        tier.get(block(key))
    assert len(tier.policy._soonest) + len(tier.policy._farthest) < 200  # type: ignore[attr-defined]


def test_it_is_refused_without_a_future() -> None:
    said = r"policies.eviction: belady cannot be used here: it needs the trace's future; closed-loop load has none"
    with pytest.raises(InputError, match=said):
        build_policy("eviction", {"name": "belady"}, TierInfo("t", 100, 10), base_dir=Path(), path="policies.eviction")


def test_the_bounds_lie_beside_the_policies() -> None:
    assert set(FAMILIES["eviction"]) == {*EVICTION, *EVICTION_BOUNDS}
    assert "belady" not in EVICTION  # whoever goes through that table needs no future
    first_line = (Belady.__doc__ or "").splitlines()[0]
    assert "bound" in first_line
    assert "clairvoyant, arrival order" in first_line
    with pytest.raises(InputError, match=r"policies.eviction: a capacity, not a policy: .*found 'unbounded'"):
        policy_class("eviction", "unbounded", base_dir=Path(), path="policies.eviction")
    with pytest.raises(InputError, match="unknown offload policy, found 'unbounded'"):
        policy_class("offload", "unbounded", base_dir=Path(), path="policies.offload")
