"""Does an eviction policy keep its contract? A small tier that drives one, and checks of the rules in policies.base."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

from policies.base import Block, EvictionPolicy, TierInfo

TOKENS = 16
"""Tokens of a full block in the checks; a token takes one byte."""
CAPACITY = 24
"""Full blocks that fit the tier of the checks."""


class ContractError(AssertionError):
    """A policy broke a rule; the text names the policy, the rule, the block and the operation."""


class ModelTier:
    """A tier of `capacity` bytes without time, links or an engine; it uses a policy as the simulator's tiers do."""

    def __init__(self, policy: EvictionPolicy, capacity: int) -> None:
        self.policy = policy
        self.capacity = capacity
        self.blocks: dict[int, Block] = {}
        self.used = 0

    def get(self, block: Block) -> bool:
        """One request for a block: True on a hit; on a miss the block becomes resident if room can be made."""
        resident = self.blocks.get(block.key)
        if resident is not None:
            resident.uses += 1
            self.policy.touch(resident)
            return True
        self.policy.miss(block.key)
        if block.size <= self.capacity and self.make_room(block.size):
            self.insert(block)
        return False

    def make_room(self, size: int) -> bool:
        """Evict the coldest blocks without pins until `size` bytes are free; False, and no change, if it cannot be."""
        need = self.used + size - self.capacity
        if need <= 0:
            return True
        taken: list[Block] = []
        for block in self.policy.victims():
            if not block.pins:
                taken.append(block)
                need -= block.size
                if need <= 0:
                    for victim in taken:
                        self.remove(victim)
                    return True
        return False

    def insert(self, block: Block) -> None:
        """Add a block, for which there is room."""
        self.blocks[block.key] = block
        self.used += block.size
        self.policy.insert(block)

    def remove(self, block: Block) -> None:
        """Take a block out."""
        self.policy.remove(block)
        del self.blocks[block.key]
        self.used -= block.size


class Watched(EvictionPolicy):
    """Passes every hook on to two policies that were built alike, and checks what they do.

    tier          what the policies were built for
    first, twin   the policy and its double, which must give the same order
    operation     number of the operation in progress, for messages
    """

    def __init__(self, tier: TierInfo, first: EvictionPolicy, twin: EvictionPolicy) -> None:
        super().__init__(tier)
        self.first = first
        self.twin = twin
        self.operation = 0
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

    def victims(self) -> Iterator[Block]:
        seen: set[int] = set()
        scan, twin_scan = (iter(self._guarded("victims", policy.victims)) for policy in (self.first, self.twin))
        while True:
            block, twin_block = (self._guarded("victims", next, s, None) for s in (scan, twin_scan))
            if block is not twin_block:
                self.fail("two policies built alike gave different orders", block or twin_block)
            if block is None:
                break
            self._check_offer(block, seen)
            seen.add(block.key)
            self._offered.add(block.key)
            yield block
        for key, block in self._resident.items():
            if key not in seen:
                again = key in self._offered
                self.fail(
                    "a block that was offered and not removed is not offered again"
                    if again
                    else "victims() ended without offering a resident block",
                    block,
                )

    def fail(self, rule: str, about: object) -> None:
        """Raise ContractError for a rule broken in the operation in progress."""
        name = type(self.first).__name__
        raise ContractError(f"eviction policy {name} broke its contract: {rule} ({about}, operation {self.operation})")

    def _check_offer(self, block: Any, seen: set[int]) -> None:
        if not isinstance(block, Block):
            self.fail("victims() yielded something that is not a block", repr(block))
        if block.key not in self._resident:
            self.fail("victims() yielded a block that is not resident", block)
        if self._resident[block.key] is not block:
            self.fail("victims() yielded another object than the one inserted", block)
        if block.key in seen:
            self.fail("victims() yielded a block twice in one call", block)

    def _both(self, hook: str, argument: Block | int) -> None:
        for policy in (self.first, self.twin):
            before = _fields(argument)
            self._guarded(hook, getattr(policy, hook), argument)
            if _fields(argument) != before:
                self.fail(f"{hook}() changed a block", argument)

    def _guarded(self, hook: str, call: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return call(*arguments)
        except Exception as error:  # noqa: BLE001 - whatever a policy raises is reported as its mistake
            about = arguments[0] if hook != "victims" else "no block"
            self.fail(f"{hook}() raised {type(error).__name__}: {error}", about)


def check_policy(factory: Callable[[TierInfo], EvictionPolicy], *, seed: int, operations: int) -> None:
    """Drive a policy through `operations` random operations and check every rule of its contract.

    `factory` builds the policy for a tier (a class will do). The operations are those of a serving engine: hits, misses
    with and without an insert, inserts without a miss, blocks of several sizes that grow, private blocks, pins that
    outlast scans, releases, scans that are cut short, and removals that no scan offered. The same seed gives the same
    operations. Complexity is not checked. Raises ContractError.
    """
    info = TierInfo("checked", CAPACITY * TOKENS, TOKENS)
    watched = Watched(info, factory(info), factory(info))
    drive = _Drive(watched, seed)
    for operation in range(operations):
        watched.operation = operation
        drive.step()
        if operation % 16 == 0:
            drive.audit()
    drive.audit()


class _Drive:
    """Random operations on a tier of blocks with pins."""

    def __init__(self, watched: Watched, seed: int) -> None:
        self._random = random.Random(seed)
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
        tier = self._tier
        block = tier.blocks.get(key)
        if block is None:
            if self._random.random() < 0.8:
                tier.policy.miss(key)
            if self._random.random() < 0.2:
                return
            tokens = TOKENS if self._random.random() < 0.7 else self._random.randint(1, TOKENS)
            block = Block(key, key % 7 * TOKENS, tokens, tokens, tokens)
            if not tier.make_room(block.size):
                return
            tier.insert(block)
        else:
            block.uses += 1
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


def _fields(block: Block | int) -> tuple[object, ...]:
    if not isinstance(block, Block):
        return (block,)
    return tuple(getattr(block, name) for name in Block.__slots__)
