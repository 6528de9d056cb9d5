"""The work of an eviction policy per request, and its memory: neither may grow beyond what the tier justifies."""

import sys
from collections.abc import Callable, Iterator
from itertools import islice
from types import FrameType
from typing import Any

import pytest

from policies.base import Block, EvictionPolicy, TierInfo
from policies.contract import ModelTier
from policies.tables import EVICTION

SIZE = 10


def block(key: int) -> Block:
    return Block(key, 0, SIZE, SIZE, SIZE)


def lines_per_request(factory: Callable[[TierInfo], EvictionPolicy], blocks: int) -> float:
    """Lines of Python that run per request on a full tier with some blocks pinned: work, measured without a clock."""
    tier = ModelTier(factory(TierInfo("t", blocks * SIZE, SIZE)), blocks * SIZE)
    popular = blocks // 2

    def requests(first: int, number: int) -> None:
        for n in range(first, first + number):
            tier.get(block(n * 7919 % popular if n % 3 else n + 1_000_000))

    requests(0, 6 * blocks)
    for b in islice(tier.blocks.values(), 0, None, max(1, blocks // 8)):
        b.pins = 1  # eight of them
    lines = 0

    def count(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal lines
        lines += event == "line"
        return count

    before = sys.gettrace()
    sys.settrace(count)
    try:
        requests(6 * blocks, 1_500)
    finally:
        sys.settrace(before)
    return lines / 1_500


class Sorts(EvictionPolicy):
    """Looks at every block for each victim."""

    def __init__(self, tier: TierInfo) -> None:
        super().__init__(tier)
        self._blocks: dict[int, Block] = {}

    def insert(self, block: Block) -> None:
        self._blocks[block.key] = block

    def touch(self, block: Block) -> None: ...

    def victims(self) -> Iterator[Block]:
        return iter(sorted(self._blocks.values(), key=lambda b: b.uses))

    def remove(self, block: Block) -> None:
        del self._blocks[block.key]


@pytest.mark.parametrize("name", EVICTION)
def test_work_per_request_does_not_grow_with_the_tier(name: str) -> None:
    small, large = (lines_per_request(EVICTION[name], blocks) for blocks in (128, 2_048))
    assert large < 1.5 * small + 10


def test_the_measure_of_work_sees_a_slow_policy() -> None:
    small, large = (lines_per_request(Sorts, blocks) for blocks in (128, 2_048))
    assert large > 5 * small


def held(thing: object, seen: set[int]) -> int:
    """Entries of all containers that an object holds, directly or not."""
    if id(thing) in seen or isinstance(thing, type):
        return 0
    seen.add(id(thing))
    total, inside = 0, []
    if isinstance(thing, dict):
        total, inside = len(thing), list(thing.values())
    elif isinstance(thing, list | tuple | set):
        total, inside = len(thing), list(thing)
    else:
        inside = [*getattr(thing, "__dict__", {}).values()]
        slots = getattr(type(thing), "__slots__", ())
        inside += [getattr(thing, name) for name in slots if name not in ("next", "prev") and hasattr(thing, name)]
    return total + sum(held(part, seen) for part in inside)


@pytest.mark.parametrize("name", EVICTION)
def test_memory_is_bounded_by_the_tier(name: str) -> None:
    """Keys that come once, keys that are missed and never arrive, private blocks: none may pile up."""
    tier = ModelTier(EVICTION[name](TierInfo("t", 50 * SIZE, SIZE)), 50 * SIZE)

    def feed(first: int, number: int) -> int:
        for n in range(first, first + number):
            tier.get(block(n))
            tier.policy.miss(n - 60)  # just evicted, and not inserted again
            tier.get(block(-n))
        return held(tier.policy, set())

    assert feed(1, 20_000) <= 1.2 * feed(30_001, 1_000) + 100
    assert held(tier.policy, set()) < 50 * 20
