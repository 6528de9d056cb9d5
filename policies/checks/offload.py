"""Does an offload policy keep its contract?"""

from __future__ import annotations

import random
from collections.abc import Callable

from policies.base import Block, Event, Move, OffloadPolicy
from policies.checks.error import CAPACITY, TOKENS, Watch
from policies.checks.eviction import Timeline

TIERS = ("hbm", "dram", "ssd")


class View:
    """The tier at a level of TIERS, and what the tier below it holds (policies.base.TierView)."""

    def __init__(self, level: int, time: Timeline, stored: set[int]) -> None:
        self.name = TIERS[level]
        self.below = TIERS[level + 1] if level + 1 < len(TIERS) else None
        self.capacity = CAPACITY * TOKENS
        self.used = 0
        self._time = time
        self._stored = stored

    @property
    def now(self) -> float:
        return self._time.now()

    def holds_below(self, block: Block) -> bool:
        return block.key in self._stored

    def recompute_s(self, block: Block) -> float:
        return 1e-3 * block.tokens * (1 + block.start / 100)

    def load_s(self, block: Block, tier: str) -> float:
        return 1e-5 + 2e-4 * block.size * TIERS.index(tier)

    def store_s(self, block: Block, tier: str) -> float:
        return 1e-5 + 1e-4 * block.size * TIERS.index(tier)


def check_offload(factory: Callable[[], OffloadPolicy], *, seed: int, operations: int) -> None:
    """Drive an offload policy through random events of a tier, for each tier of a hierarchy of three.

    Checked: `listens` names events; plans are made of moves of the blocks at hand, to tiers that lie farther away, each
    once; no block is changed; nothing is raised; two policies built alike agree. Raises ContractError.
    """
    for level in range(len(TIERS)):
        _check_level(factory, level, seed, operations)


def _check_level(factory: Callable[[], OffloadPolicy], level: int, seed: int, operations: int) -> None:
    source, time = random.Random(seed), Timeline(seed)
    first, twin = factory(), factory()
    watch = Watch("offload", first, twin)
    if not all(isinstance(event, Event) for event in first.listens):
        watch.fail("listens names something that is not an Event", repr(first.listens))
    stored: set[int] = set()
    view = View(level, time, stored)
    resident: dict[int, Block] = {}

    def happen(event: Event, blocks: list[Block]) -> None:
        if not blocks or event not in first.listens:
            return
        about = f"{event.name} in {view.name}"
        plan = watch.plans(Move, (event, tuple(blocks), view), blocks=blocks, about=about)
        _check_moves(watch, plan, blocks, TIERS[level + 1 :])
        stored.update(move.block.key for move in plan)

    for operation in range(operations):
        watch.operation = operation
        time.step()
        hits, filled = [], []
        for key in {int(source.paretovariate(0.6)) % (4 * CAPACITY) + 1 for _ in range(source.randint(1, 4))}:
            block, turn = resident.get(key), source.randint(-1, 5)
            if block is None:
                tokens = TOKENS if source.random() < 0.8 else source.randint(1, TOKENS)
                filled.append(Block(key, key % 7 * TOKENS, tokens, tokens, tokens, turn=turn))
            elif block.tokens < TOKENS and source.random() < 0.5:
                block.tokens = block.ready = block.size = TOKENS
                filled.append(block)
            else:
                block.uses += 1
                block.turn = turn
                hits.append(block)
        happen(Event.HIT, hits)
        leaving = [resident.pop(key) for key in source.sample(sorted(resident), max(0, len(resident) - CAPACITY))]
        happen(Event.EVICTED, leaving)
        resident.update((block.key, block) for block in filled)
        happen(Event.FILLED, filled)
        view.used = sum(block.size for block in resident.values())
        if stored and source.random() < 0.2:  # the tier below evicts too
            stored.discard(source.choice(sorted(stored)))


def _check_moves(watch: Watch, plan: list[Move], blocks: list[Block], targets: tuple[str, ...]) -> None:
    given = {id(block) for block in blocks}
    seen: set[tuple[int, str]] = set()
    for block, to in plan:
        if not isinstance(block, Block) or id(block) not in given:
            watch.fail("plan() moves something that is not one of the blocks that it was given", repr(block))
        if to not in targets:
            where = f"expected one of {', '.join(targets)}" if targets else "there is none behind this one"
            watch.fail(f"plan() names a tier to which nothing can be moved from here, {where}", repr(to))
        if (block.key, to) in seen:
            watch.fail("plan() makes the same move twice", block)
        seen.add((block.key, to))
