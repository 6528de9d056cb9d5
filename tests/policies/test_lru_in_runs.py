"""`lru` kept in runs, as the tiers of an engine have it, against `lru` itself."""

import gc
import random
from collections.abc import Sequence

import pytest

from policies.base import Block
from policies.eviction.lru import LRU
from policies.eviction.lru_in_runs import LRUInRuns, in_runs
from policies.eviction.runs import RunOrder


class Info:
    """A tier, as far as policies see it."""

    name = "dram"
    capacity_bytes = 1 << 30

    def now(self) -> float:
        return 0.0

    def next_use(self, key: int) -> float:
        return 0.0

    def place(self, key: int) -> float:
        return 0.0


def blocks(count: int, first: int = 0) -> list[Block]:
    return [Block(first + place, place, 1, 1, 1) for place in range(count)]


def runs_of(policy: LRUInRuns) -> list[list[int]]:
    """The keys of each run, after a look that every block knows its own."""
    held = list(policy._order._runs)
    assert all(run.blocks and all(block.run is run for block in run.blocks) for run in held)
    return [[block.key for block in run.blocks] for run in held]


def used(source: random.Random, resident: Sequence[Block]) -> list[Block]:
    """A stretch of what is resident, as a request might use it: either way round, with gaps, or with others first."""
    first = source.randrange(len(resident))
    chosen = list(resident[first : first + source.randint(0, 12)])
    if source.random() < 0.6:
        chosen.reverse()
    if source.random() < 0.3:
        chosen = [block for block in chosen if source.random() < 0.8]
    if source.random() < 0.2:
        others = source.sample(list(resident), min(4, len(resident)))
        chosen = [block for block in others if block not in chosen] + chosen
    if chosen and source.random() < 0.2:  # a prompt whose ids are not chained may repeat some
        chosen += source.choices(chosen, k=4)
    return chosen


@pytest.mark.parametrize("seed", range(60))
def test_the_order_is_that_of_lru(seed: int) -> None:
    """Whatever comes, is used and leaves: the same blocks in the same order after each call."""
    source = random.Random(seed)
    plain, kept = LRU(Info()), LRUInRuns(LRU(Info()))
    resident: list[Block] = []
    for step in range(120):
        what = source.random()
        if what < 0.3 or not resident:
            new = blocks(source.randint(1, 9), step * 10)
            plain.insert_all(new)
            kept.insert_all(new)
            resident += new
        elif what < 0.75:
            chosen = used(source, resident)
            plain.touch_all(chosen)
            kept.release_all(chosen)
        elif what < 0.8:
            plain.touch(resident[0])
            kept.touch(resident[0])
        else:
            victims = [block for block in list(kept.victims())[: source.randint(1, 20)] if source.random() < 0.9]
            if source.random() < 0.1:
                source.shuffle(victims)
            plain.remove_all(victims)
            kept.remove_all(victims)
            resident = [block for block in resident if block not in victims]
        assert list(plain.victims()) == list(kept.victims())
        runs_of(kept)


def test_what_is_moved_together_is_one_run() -> None:
    """A prompt moves as a whole; it splits where another one parts from it; single blocks join."""
    policy = LRUInRuns(LRU(Info()))
    prompt = blocks(6)
    policy.insert_all(prompt)
    policy.release_all(prompt[::-1])
    assert runs_of(policy) == [[5, 4, 3, 2, 1, 0]]
    policy.touch_all(prompt[2::-1])
    assert runs_of(policy) == [[5, 4, 3], [2, 1, 0]]
    for block in (alone := blocks(3, 10)):
        policy.insert(block)
    policy.release_all(alone)
    assert runs_of(policy) == [[5, 4, 3], [2, 1, 0], [10, 11, 12]]
    policy.remove(prompt[4])
    assert runs_of(policy)[0] == [5, 3]


def test_only_lru_itself_is_kept_in_runs() -> None:
    """What is derived from it may do anything, and takes over what the tier holds in its order."""

    class Mine(LRU):
        """As it is."""

    mine = Mine(Info())
    assert in_runs(mine) is mine
    plain = LRU(Info())
    plain.insert_all(blocks(4))
    assert [block.key for block in in_runs(plain).victims()] == [0, 1, 2, 3]


def test_what_leaves_the_order_is_let_go_without_a_search_for_cycles():
    """Runs last long and search for no garbage meanwhile: what is evicted must not stay."""
    order, first = RunOrder(), 10**12
    gc.disable()
    try:
        new = blocks(8, first)
        order.add(list(new))
        order.remove(new)
        del new
        assert not [thing for thing in gc.get_objects() if isinstance(thing, Block) and thing.key >= first]
    finally:
        gc.enable()
