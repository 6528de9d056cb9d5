"""A memory tier: which blocks come, stay and leave by its eviction policy."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence, Sized
from typing import NamedTuple

from hw_profiles.errors import InputError
from policies.base import Block, EvictionPolicy
from policies.eviction.lru_in_runs import in_runs
from sim.hierarchy.resident import Resident
from sim.hierarchy.victims import coldest, leaves

NOTHING: Sequence[Block] = ()


class Listener(NamedTuple):
    """A replica that is to be woken when something changes, if any of its queues has anything in it."""

    queues: tuple[Sized, Sized, Sized]
    wake: Callable[[], None]


class Tier(Resident):
    """Resident blocks of one tier under an eviction policy.

    `used` counts the bytes of cached blocks, `reserved` the bytes that requests hold privately (HBM only), `pinned`
    the part of `used` that cannot be evicted now. Always `used + reserved <= capacity`.
    `leaf_only`: a block is never evicted before the blocks that follow it in a prefix (SGLang's radix tree does this,
    vLLM does not).
    `block_tokens`: blocks hold whole multiples of it. `span`: hashes of the trace per block; more than 1 where
    `block_tokens` spans several, and then the key of a block is that of its last hash.
    `page_locked`: bytes of host memory that are page-locked; None: all. A block takes what is left of them when it
    comes or grows, and keeps that until it leaves.
    """

    def __init__(
        self,
        name: str,
        label: str,
        capacity: int,
        policy: EvictionPolicy,
        *,
        leaf_only: bool = False,
        block_tokens: int = 1,
        span: int = 1,
        page_locked: int | None = None,
    ) -> None:
        super().__init__(
            name,
            label,
            capacity,
            leaf_only=leaf_only,
            block_tokens=block_tokens,
            span=span,
            page_locked=page_locked,
        )
        self.policy = in_runs(policy)
        self.listeners: list[Listener] = []
        """Replicas whose next decision may depend on copies that have come or gone."""
        self.queues: list[Sized] = []
        """Those of the listeners."""
        self.leaf_only = leaf_only
        self._listen()

    def _listen(self) -> None:
        """Look what the policy wants to hear."""
        kind, base = type(self.policy), EvictionPolicy
        self.expires = kind.expired is not base.expired
        self.hears_misses = kind.miss is not base.miss
        self.hears_release = kind.release is not base.release

    def change_policy(self, policy: EvictionPolicy) -> None:
        """Put another eviction policy in the place of this one: the blocks come to it in the order of the old one, the
        coldest first, those that it does not offer (in use) last."""
        order = {block.key: block for block in self.policy.victims()}
        order.update((key, block) for key, block in self.blocks.items() if key not in order)
        self.policy = in_runs(policy)
        self._listen()
        self.policy.insert_all(list(order.values()))

    def listen(self, listener: Listener) -> None:
        """Another replica is to be woken."""
        self.listeners.append(listener)
        self.queues += listener.queues

    def missed(self, keys: Iterable[int]) -> None:
        """Tell the policy of those of the prefix blocks looked for that are not here."""
        if self.hears_misses:
            for key in keys:
                if key not in self.blocks:
                    self.policy.miss(key)

    def make_room(self, size: int) -> Sequence[Block] | None:
        """Evict the coldest unpinned blocks until `size` bytes are free; the evicted blocks, or None if impossible.

        Nothing changes when it returns None.
        """
        need = size - (self.capacity - self.used - self.reserved)
        if need <= 0:
            return NOTHING
        if size > self.capacity - self.pinned - self.reserved:
            return None
        if self.leaf_only:
            chosen = leaves(self.policy, need, self.blocks, self._tallies.children, self._broken)
            if chosen is None:
                return None
            victims = chosen
        else:
            victims = coldest(self.policy, need, self._broken)
        counters, held = self.counters, self.blocks
        freed = unused = 0
        for block in victims:
            if held.pop(block.key, None) is not block:
                what = " twice" if victims.count(block) > 1 else ", which is not in the tier"
                raise self._broken(f"victims() yielded {block}{what}")
            freed += block.size
            if not (block.uses or block.sent):
                unused += block.size
        self.policy.remove_all(victims)
        if self._tallies.kept:
            for block in victims:
                self._tallies.remove(block)
        self.used -= freed
        counters.evicted_blocks += len(victims)
        counters.evicted_bytes += freed
        counters.never_loaded_bytes += unused
        return victims

    def can_free(self, need: int) -> bool:
        """True if blocks that may be evicted now, none before the blocks that follow it, hold `need` bytes."""
        children = self._tallies.children
        return need <= 0 or leaves(self.policy, need, self.blocks, children, self._broken) is not None

    def purge(self) -> None:
        """Drop what the policy no longer lets anyone use. A no-op for policies whose blocks do not expire."""
        if not self.expires:
            return
        for block in list(self.policy.expired()):
            if not block.pins:
                self.counters.expired_blocks += 1
                if not (block.uses or block.sent):
                    self.counters.never_loaded_bytes += block.size
                self.drop(block)

    def _broken(self, what: str) -> InputError:
        return InputError(f"eviction policy {type(self.policy).__name__} broke its contract in {self.label}: {what}")

    def drop(self, block: Block) -> None:
        """Remove an unpinned block without counting it as evicted."""
        self.policy.remove(block)
        del self.blocks[block.key]
        self._tallies.remove(block)
        self.used -= block.size

    def insert(self, block: Block) -> None:
        """Add a block; the caller has made room."""
        self.blocks[block.key] = block
        self.used += block.size
        if block.pins:
            self.pinned += block.size
        self.policy.insert(block)
        if self._tallies.kept:
            self._tallies.add(block)
        self._note_peak()

    def insert_all(self, blocks: Sequence[Block], size: int) -> None:
        """Add blocks that one user needs each, of `size` bytes together, in order; the caller has made room."""
        held = self.blocks
        for block in blocks:
            held[block.key] = block
        self.entered(blocks, size)

    def entered(self, blocks: Sequence[Block], size: int) -> None:
        """Keep the books of blocks that `insert_all` would add and that are in `blocks` already."""
        self.policy.insert_all(blocks)
        if self._tallies.kept:
            for block in blocks:
                self._tallies.add(block)
        self.used += size
        self.pinned += size
        self._note_peak()

    def hit_all(self, blocks: Sequence[Block]) -> None:
        """A request reuses the blocks; the policy hears of them in their order."""
        for block in blocks:
            block.uses += 1
            if block.ahead:
                self.used_ahead(block)
        self.policy.touch_all(blocks)

    def touch(self, keys: Iterable[int]) -> None:
        """Tell the policy that a request used those of the prefix blocks that are here, whichever tier it hit."""
        self.policy.touch_all(self._here(keys))

    def released(self, keys: Iterable[int]) -> None:
        """Tell the policy that a request is done with those of the prefix blocks that are here."""
        if self.hears_release:
            self.policy.release_all(self._here(keys))

    def _here(self, keys: Iterable[int]) -> list[Block]:
        return list(filter(None, map(self.blocks.get, keys)))

    def unpin(self, block: Block) -> None:
        """Drop one pin; with the last one the policy is told that the block was released."""
        block.pins -= 1
        if not block.pins:
            self.pinned -= block.size
            self.policy.release(block)

    def unpin_all(self, blocks: Iterable[Block]) -> None:
        """`unpin` each of them, in order."""
        free = []
        unpinned = 0
        for block in blocks:
            block.pins -= 1
            if not block.pins:
                unpinned += block.size
                free.append(block)
        self.pinned -= unpinned
        if self.hears_release:
            self.policy.release_all(free)
