"""What lies in a memory tier: its blocks by key, how many bytes they and others take, and which of them must stay."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from policies.base import Block
from sim.hierarchy.counters import TierCounters
from sim.hierarchy.tallies import Tallies
from sim.invariants import InvariantError, ensure


class Resident:
    """The blocks of a tier and the accounts of its bytes; the arguments are those of `sim.hierarchy.tier.Tier`."""

    def __init__(
        self,
        name: str,
        label: str,
        capacity: int,
        *,
        leaf_only: bool,
        block_tokens: int,
        span: int,
        page_locked: int | None,
    ) -> None:
        self.page_locked = page_locked
        self._tallies = Tallies(leaf_only=leaf_only, span=span, page_locked=page_locked)
        self.block_tokens = block_tokens
        self.span = span
        self.name = name
        self.label = label
        """Which one of several equal tiers this is: "hbm/0" (replica 0) or "dram/node0"."""
        self.capacity = capacity
        self.full = capacity
        """Its capacity when none of it is lent (sim.fleet.lending)."""
        self.blocks: dict[int, Block] = {}
        self.used = 0
        self.reserved = 0
        self.pinned = 0
        self.counters = TierCounters()

    @property
    def free(self) -> int:
        """Bytes that nothing occupies."""
        return self.capacity - self.used - self.reserved

    @property
    def unused(self) -> int:
        """Bytes of blocks that nobody has used since they came."""
        return sum([block.size for block in self.blocks.values() if not (block.uses or block.sent)])

    @property
    def available(self) -> int:
        """Bytes that could be had by evicting every unpinned block."""
        return self.capacity - self.pinned - self.reserved

    # ---- blocks of a tier's own size

    def ends(self, keys: Sequence[int]) -> Sequence[int]:
        """Those hashes of a prompt (from its first on) that are the keys of blocks here."""
        return keys if self.span == 1 else keys[self.span - 1 :: self.span]

    def holds(self, key: int) -> bool:
        """True if a block here has the bytes of this hash, or is receiving them."""
        return key in (self.blocks if self.span == 1 else self._tallies.spanned)

    def covering(self, keys: Sequence[int], place: int) -> Block | None:
        """The block that has the hash at a place of a run of hashes, and else only hashes of that run."""
        if self.span == 1:
            return self.blocks.get(keys[place])
        return next((self.blocks[key] for key in keys[place : place + self.span] if key in self.blocks), None)

    def covering_each(self, keys: Sequence[int]) -> list[Block | None]:
        """`covering` each of a run of hashes."""
        if self.span == 1:
            return list(map(self.blocks.get, keys))
        return [self.covering(keys, place) for place in range(len(keys))]

    def cut(self, block: Block) -> Sequence[int]:
        """Keys of the blocks here that would hold the tokens of a block of this tier's or of larger ones."""
        return (block.key,) if block.members is None else block.members[self.span - 1 :: self.span]

    # ---- bytes

    def reserve(self, size: int) -> None:
        """Take free bytes for private use; the caller has made room."""
        self.reserved += size
        total = self.used + self.reserved
        if total > self.counters.peak_bytes:
            self.counters.peak_bytes = total

    def publish(self, size: int) -> None:
        """Turn reserved bytes into room for a cached block (followed by insert or grow of the same size)."""
        self.reserved -= size

    def release(self, size: int) -> None:
        """Give back reserved bytes."""
        self.reserved -= size

    def grow(self, block: Block, tokens: int, size: int) -> None:
        """Let a resident block hold `tokens` in `size` bytes; the caller has made room."""
        added = size - block.size
        if self.page_locked is not None:
            self._tallies.grow(block, added)
        block.tokens = tokens
        block.size = size
        self.used += added
        if block.pins:
            self.pinned += added
        self._note_peak()

    def shrink(self, block: Block, tokens: int, size: int) -> None:
        """Give up all but the first `tokens` of an unpinned resident block."""
        self.used -= block.size - size
        self.counters.replaced_bytes += block.size - size
        block.tokens = block.ready = tokens
        block.size = size

    def pin(self, block: Block) -> None:
        """Keep the block until a matching `unpin`."""
        if not block.pins:
            self.pinned += block.size
        block.pins += 1

    def pin_all(self, blocks: Iterable[Block]) -> None:
        """`pin` each of them."""
        pinned = 0
        for block in blocks:
            if not block.pins:
                pinned += block.size
            block.pins += 1
        self.pinned += pinned

    # ---- blocks that a prefetch brought

    def brought_ahead(self, block: Block) -> None:
        """A prefetch brings the block here."""
        block.ahead = block.size
        self.counters.prefetched_bytes += block.size

    def wanted_ahead(self, block: Block) -> None:
        """A request would use the block now: what a prefetch brings is late if it is still on its way."""
        if block.ahead and block.waiters is not None and not block.late:
            block.late = True
            self.counters.prefetch_late_bytes += block.ahead

    def used_ahead(self, block: Block) -> None:
        """The block is reused or goes on toward the GPU: a prefetch that brought it was of use."""
        if block.ahead:
            self.wanted_ahead(block)
            self.counters.prefetch_used_bytes += block.ahead
            block.ahead = 0

    # ---- checks

    def check(self) -> None:
        """Recount everything; raises InvariantError on the first difference."""
        used = pinned = 0
        for block in self.blocks.values():
            used += block.size
            if block.pins:
                pinned += block.size
            if not 0 <= block.ready <= block.tokens or block.tokens % self.block_tokens:
                raise InvariantError(f"tier {self.label}: {block} holds more than it has, or no whole number of blocks")
        ensure(self.used == used, f"tier {self.label}: used bytes do not add up")
        ensure(self.pinned == pinned, f"tier {self.label}: pinned bytes do not add up")
        ensure(min(self.reserved, self.free) >= 0, f"tier {self.label}: capacity exceeded")
        ensure(self.counters.peak_bytes <= self.full, f"tier {self.label}: capacity was exceeded")
        if self._tallies.kept:
            self._tallies.check(self.blocks.values(), self.label)

    def _note_peak(self) -> None:
        total = self.used + self.reserved
        if total > self.counters.peak_bytes:
            self.counters.peak_bytes = total
