"""ttl: what is too old goes, what is in use does not, and the order is LRU's."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.base import Block, TierInfo
from policies.contract import ModelTier
from policies.eviction.lru import LRU
from policies.eviction.ttl import TTL

SIZE = 10


class Clock:
    """Time set by hand."""

    def __init__(self) -> None:
        self.time = 0.0

    def __call__(self) -> float:
        return self.time


def block(key: int) -> Block:
    return Block(key, 0, SIZE, SIZE, SIZE)


def tier_of(ttl: float | str, clock: Clock, blocks: int = 8) -> ModelTier:
    return ModelTier(TTL(TierInfo("t", blocks * SIZE, SIZE, clock), ttl=ttl), blocks * SIZE)


def hit(tier: ModelTier, key: int) -> bool:
    tier.expire()
    return tier.get(block(key))


@pytest.mark.parametrize("ttl", [60, "60 s", "1 min"])
def test_a_block_may_be_hit_until_it_is_as_old_as_the_limit(ttl: float | str) -> None:
    clock = Clock()
    tier = tier_of(ttl, clock)
    assert not hit(tier, 1)
    clock.time = 60.0
    assert hit(tier, 1)  # exactly as old; its life starts anew
    clock.time = 119.0
    assert hit(tier, 1)
    clock.time = 179.1
    assert not hit(tier, 1)
    assert tier.used == SIZE  # dropped, then resident again


def test_the_end_of_a_use_counts_and_not_its_start() -> None:
    clock = Clock()
    tier = tier_of(10, clock)
    one, two = block(1), block(2)
    for b in (one, two):
        tier.insert(b)
        b.pins = 1
    clock.time = 100.0
    assert list(tier.policy.expired()) == []  # in use
    one.pins = 0
    tier.policy.release(one)
    clock.time = 109.0
    assert list(tier.policy.expired()) == []
    two.pins = 0  # without a release: its use was seen last at 100 s
    clock.time = 111.0
    assert {b.key for b in tier.policy.expired()} == {1, 2}


def test_what_is_skipped_is_offered_again() -> None:
    clock = Clock()
    tier = tier_of(10, clock)
    hit(tier, 1)
    clock.time = 11.0
    assert [b.key for b in tier.policy.expired()] == [1]
    assert [b.key for b in tier.policy.expired()] == [1]
    assert [b.key for b in tier.policy.victims()] == [1]


@given(st.lists(st.tuples(st.integers(1, 12), st.floats(0, 30)), max_size=60))
def test_it_is_a_lru_that_forgets(steps: list[tuple[int, float]]) -> None:
    """A hit under a TTL is a hit of an LRU of the same size at a block used no longer ago than that."""
    clock = Clock()
    tier, unlimited = tier_of(50, clock, 4), tier_of(1e9, clock, 4)
    lru = ModelTier(LRU(TierInfo("t", 4 * SIZE, SIZE)), 4 * SIZE)
    last: dict[int, float] = {}
    for key, wait in steps:
        clock.time += wait
        found, expected = hit(tier, key), lru.get(block(key))
        assert hit(unlimited, key) == expected
        assert [b.key for b in unlimited.policy.victims()] == [b.key for b in lru.policy.victims()]
        if found:
            assert clock.time - last[key] <= 50
        if expected and clock.time - last[key] <= 50:
            assert found  # it has no fewer blocks that are young enough
        last[key] = clock.time


@pytest.mark.parametrize("ttl", [0, -1, float("inf"), float("nan"), "5 parsecs", "5", True, None, [5]])
def test_what_is_no_lifetime_is_refused(ttl: object) -> None:
    wrong: dict[str, object] = {"ttl": ttl}
    with pytest.raises(ValueError, match=r"ttl: found .*, expected a time"):
        TTL(TierInfo("t", 100, SIZE), **wrong)  # type: ignore[arg-type]
