"""Does an eviction policy keep its contract? A small tier that drives one, and checks of the rules in policies.base."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from typing import Any

from policies.base import Block, EvictionPolicy, TierInfo
from policies.checks.error import CAPACITY, TOKENS, Watch, fields
from policies.checks.model_tier import ModelTier

HOOKS = ("insert", "touch", "release", "remove")
"""Hooks that have another one for several blocks at once."""


class Watched(EvictionPolicy):
    """Passes every hook on to two policies that were built alike, and checks what they do."""

    def __init__(self, tier: TierInfo, first: EvictionPolicy, twin: EvictionPolicy) -> None:
        super().__init__(tier)
        self.watch = Watch("eviction", first, twin)
        self._pair = (first, twin)
        base, kind = EvictionPolicy, type(first)
        self._several = [h for h in HOOKS if getattr(kind, f"{h}_all") is not getattr(base, f"{h}_all")]
        self._resident: dict[int, Block] = {}
        self._offered: set[int] = set()
        """Keys of resident blocks that have been offered before."""

    def miss(self, key: int) -> None:
        self._both("miss", key)

    def insert(self, block: Block) -> None:
        self._resident[block.key] = block
        self._both("insert", block)

    def touch(self, block: Block) -> None:
        self._both("touch", block)

    def release(self, block: Block) -> None:
        self._both("release", block)

    def remove(self, block: Block) -> None:
        del self._resident[block.key]
        self._offered.discard(block.key)
        self._both("remove", block)

    def expired(self) -> Iterator[Block]:
        seen: set[int] = set()
        for block in self._paired("expired"):
            self._check_offer("expired", block, seen)
            seen.add(block.key)
            yield block

    def victims(self) -> Iterator[Block]:
        seen: set[int] = set()
        for block in self._paired("victims"):
            self._check_offer("victims", block, seen)
            seen.add(block.key)
            self._offered.add(block.key)
            yield block
        for key, block in self._resident.items():
            if key not in seen:
                again = key in self._offered
                self.watch.fail(
                    "a block that was offered and not removed is not offered again"
                    if again
                    else "victims() ended without offering a resident block",
                    block,
                )

    def _paired(self, hook: str) -> Iterator[Any]:
        """What both policies yield, one by one."""
        guarded = self.watch.guarded
        scans = [guarded(hook, lambda p: iter(getattr(p, hook)()), policy, about="no block") for policy in self._pair]
        while True:
            block, twin_block = (guarded(hook, next, scan, None, about="no block") for scan in scans)
            if block is not twin_block:
                hooks = ", ".join(f"{name}_all" for name in self._several)
                told = f" (the second was told by {hooks})" if hooks else ""
                self.watch.fail(f"two policies built alike gave different orders{told}", block or twin_block)
            if block is None:
                return
            yield block

    def _check_offer(self, hook: str, block: Any, seen: set[int]) -> None:
        fail = self.watch.fail
        if not isinstance(block, Block):
            fail(f"{hook}() yielded something that is not a block", repr(block))
        if block.key not in self._resident:
            fail(f"{hook}() yielded a block that is not resident", block)
        if self._resident[block.key] is not block:
            fail(f"{hook}() yielded another object than the one inserted", block)
        if block.key in seen:
            fail(f"{hook}() yielded a block twice in one call", block)

    def _both(self, hook: str, argument: Block | int) -> None:
        """Tell both; the twin as of several blocks at once, where the policy has a hook of its own for that."""
        first, twin = self._pair
        self._tell(first, hook, argument, argument)
        if hook in self._several:
            self._tell(twin, f"{hook}_all", [argument], argument)
        else:
            self._tell(twin, hook, argument, argument)

    def _tell(self, policy: EvictionPolicy, hook: str, what: object, argument: Block | int) -> None:
        before = fields(argument) if isinstance(argument, Block) else argument
        self.watch.guarded(hook, getattr(policy, hook), what, about=argument)
        if isinstance(argument, Block) and fields(argument) != before:
            self.watch.fail(f"{hook}() changed a block", argument)


class Timeline:
    """The clock of the checks, and a future that never comes nearer: what a tier says of both.

    The times between two operations are random, some of them long, so that what ages does age.
    """

    def __init__(self, seed: int) -> None:
        self._random = random.Random(f"times {seed}")
        self._now = 0.0
        self._operation = 0

    def step(self) -> None:
        """Go on to the next operation."""
        self._operation += 1
        self._now += self._random.expovariate(1.0) * (500 if self._random.random() < 0.02 else 1)

    def now(self) -> float:
        """Time, s."""
        return self._now

    def next_use(self, key: int) -> float:
        """A place in order of arrival that never decreases for a key; one key in five is not used again."""
        period = 2 + 7 * key % 37
        return math.inf if key < 0 or key % 5 == 0 else float((self._operation // period + 1) * period)


def check_eviction(factory: Callable[[TierInfo], EvictionPolicy], *, seed: int, operations: int) -> None:
    """Drive an eviction policy through random operations and check every rule of its contract.

    The operations are those of a serving engine: hits, misses with and without an insert, inserts without a miss,
    blocks of several sizes that grow, private blocks, pins that outlast scans, releases, scans that are cut short,
    blocks that expire, and removals that no scan offered. Time passes in between. Raises ContractError.
    """
    time = Timeline(seed)
    info = TierInfo("checked", CAPACITY * TOKENS, TOKENS, time.now, time.next_use)
    watched = Watched(info, factory(info), factory(info))
    drive = _Drive(watched, seed)
    for operation in range(operations):
        watched.watch.operation = operation
        time.step()
        drive.step()
        if operation % 16 == 0:
            drive.audit()
    drive.audit()


class _Drive:
    """Random operations on a tier of blocks with pins."""

    def __init__(self, watched: Watched, seed: int) -> None:
        self._random = random.Random(seed)
        self._turns = random.Random(f"turns {seed}")
        self._tier = ModelTier(watched, watched.tier.capacity_bytes)
        self._pinned: list[Block] = []
        self._private = 0
        steps = ((self._access, 60), (self._unpin, 14), (self._release, 6), (self._grow, 6), (self._peek, 6))
        more = ((self._miss_resident, 4), (self._output, 3), (self._invalidate, 1))
        self._steps, self._weights = zip(*steps, *more, strict=True)

    def step(self) -> None:
        self._random.choices(self._steps, self._weights)[0]()

    def audit(self) -> None:
        """Run a scan to its end, where every block must have come up, and drop it."""
        for _ in self._tier.policy.victims():
            pass

    def _access(self) -> None:
        """A request for a block: popular keys come more often; some requests hold the block for a while."""
        key = int(self._random.paretovariate(0.7)) % (4 * CAPACITY) + 1
        turn = self._turns.randint(-1, 5)
        tier = self._tier
        tier.expire()
        block = tier.blocks.get(key)
        if block is None:
            if self._random.random() < 0.8:
                tier.policy.miss(key)
            if self._random.random() < 0.2:
                return
            tokens = TOKENS if self._random.random() < 0.7 else self._random.randint(1, TOKENS)
            block = Block(key, key % 7 * TOKENS, tokens, tokens, tokens, turn=turn)
            if not tier.make_room(block.size):
                return
            tier.insert(block)
        else:
            block.uses += 1
            block.turn = turn
            tier.policy.touch(block)
        if self._random.random() < 0.3 and len(self._pinned) < CAPACITY // 2:
            block.pins += 1
            self._pinned.append(block)

    def _unpin(self) -> None:
        if self._pinned:
            block = self._pinned.pop(self._random.randrange(len(self._pinned)))
            block.pins -= 1
            if not block.pins:
                self._tier.policy.release(block)

    def _release(self) -> None:
        """Below HBM a use may end for a block that was never pinned, or that another copy still pins."""
        if block := self._any():
            self._tier.policy.release(block)

    def _grow(self) -> None:
        block = self._any()
        if block and block.size < TOKENS:
            block.pins += 1
            if self._tier.make_room(TOKENS - block.size):
                self._tier.used += TOKENS - block.size
                block.size = block.tokens = block.ready = TOKENS
            block.pins -= 1

    def _peek(self) -> None:
        """A scan that is cut short and takes nothing."""
        count = self._random.randint(1, 4)
        for _, _ in zip(range(count), self._tier.policy.victims(), strict=False):
            pass

    def _miss_resident(self) -> None:
        if block := self._any():
            self._tier.policy.miss(block.key)

    def _output(self) -> None:
        """A block of a request's own output: no other request asks for it."""
        self._private -= 1
        block = Block(self._private, 0, TOKENS, TOKENS, TOKENS)
        if self._tier.make_room(block.size):
            self._tier.insert(block)

    def _invalidate(self) -> None:
        block = self._any()
        if block and not block.pins:
            self._tier.remove(block)

    def _any(self) -> Block | None:
        blocks = self._tier.blocks
        return self._random.choice(list(blocks.values())) if blocks else None
