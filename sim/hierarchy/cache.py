"""The KV cache of one replica: its HBM, the tiers behind it, and the copies between them.

Works on blocks at the trace's hash granularity; the engine's own blocks (16 tokens) are counted by arithmetic. Every
byte of HBM is free, reserved by a sequence, or part of a cached block.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import NamedTuple

from policies.base import Block, Event, Move, OffloadPolicy
from sim.engine.sequence import Sequence as Seq
from sim.hierarchy.link import CopyEngine, Transfer
from sim.hierarchy.tier import Tier


class LowerTier(NamedTuple):
    """A tier behind HBM and this replica's link to and from it."""

    tier: Tier
    load: CopyEngine
    store: CopyEngine


class Found(NamedTuple):
    """A block that a lookup found: the tier (0 is HBM), the copy there, and the tokens of it that the request uses."""

    level: int
    block: Block
    tokens: int


class HBMView:
    """What an offload policy may see of the HBM tier (policies.base.TierView)."""

    def __init__(self, tier: Tier, below: Tier | None) -> None:
        self._tier = tier
        self._below = below

    @property
    def name(self) -> str:
        return self._tier.name

    @property
    def below(self) -> str | None:
        return None if self._below is None else self._below.name

    @property
    def capacity(self) -> int:
        return self._tier.capacity

    @property
    def used(self) -> int:
        return self._tier.used + self._tier.reserved

    def holds_below(self, block: Block) -> bool:
        copy = None if self._below is None else self._below.blocks.get(block.key)
        return copy is not None and copy.tokens >= block.tokens


class ReplicaCache:
    """Lookup, allocation, publishing, loading and storing of KV for one replica.

    hash_tokens    tokens per prefix block of the trace (0: the trace says nothing about prefixes)
    block_tokens   tokens per block of the engine
    token_bytes    KV bytes of one token on one GPU
    woken          called when a copy has finished, since memory may have become free
    loaded         called with a sequence whose last load has arrived
    """

    def __init__(
        self,
        hbm: Tier,
        lower: Sequence[LowerTier],
        offload: OffloadPolicy,
        *,
        hash_tokens: int,
        block_tokens: int,
        token_bytes: int,
    ) -> None:
        self.hbm = hbm
        self.lower = tuple(lower)
        self.hash_tokens = hash_tokens
        self.block_tokens = block_tokens
        self.block_bytes = block_tokens * token_bytes
        self.token_bytes = token_bytes
        self.stall_until = 0.0
        """The next step waits until evicted blocks have been copied away."""
        self.copying = 0
        """Transfers in flight."""
        self.woken: Callable[[], None] = lambda: None
        self.loaded: Callable[[Seq], None] = lambda _seq: None
        self._offload = offload
        listens = offload.listens if self.lower else ()
        self.evicting_copies = Event.EVICTED in listens
        self._filled_copies = Event.FILLED in listens
        self._hit_copies = Event.HIT in listens
        self._view = HBMView(hbm, self.lower[0].tier if self.lower else None)
        self._by_name = {low.tier.name: low for low in self.lower}
        self._tiers = (hbm, *(low.tier for low in self.lower))

    @property
    def free_blocks(self) -> int:
        """Engine blocks that can be taken without evicting."""
        return self.hbm.free // self.block_bytes

    @property
    def available_blocks(self) -> int:
        """Engine blocks that can be taken, evicting what is not pinned."""
        return self.hbm.available // self.block_bytes

    def blocks_of(self, tokens: int) -> int:
        """Engine blocks that hold `tokens` tokens."""
        return -(-tokens // self.block_tokens)

    # ---- lookup

    def lookup(self, seq: Seq) -> list[Found]:
        """The longest cached prefix over all tiers, each block from the nearest tier that has it.

        At most floor((known - 1) / block_tokens) engine blocks, so at least one token is left to compute
        (vLLM: KVCacheManager.get_computed_blocks).
        """
        limit = (seq.known - 1) // self.block_tokens * self.block_tokens
        found: list[Found] = []
        start = 0
        full = self._full_tokens(seq)
        for key in (*seq.keys, seq.own_key):
            private = key < 0
            whole = limit - start if private else min(self.hash_tokens, full - start)
            want = min(whole, limit - start)
            if want <= 0:
                break
            hit = self._nearest(key, want)
            if hit is None:
                break
            found.append(hit)
            start += hit.tokens
            if hit.tokens < want:
                break
        return found

    def admit(self, seq: Seq, found: list[Found], now: float) -> bool:
        """Pin what was found, start the loads it needs; False (and nothing changed) if HBM has no room for them."""
        hbm = self.hbm
        loads = [f for f in found if f.level]
        size = sum(f.tokens for f in loads) * self.token_bytes
        if loads and size > hbm.available - sum(f.block.size for f in found if not f.level and not f.block.pins):
            return False
        for f in found:
            self._tiers[f.level].pin(f.block)
        evicted = hbm.make_room(size) if loads else None
        if evicted:
            self._on_evicted(evicted, now)
        self._touch(seq, found)
        seq.held = [self._start_load(seq, f) if f.level else self._join(seq, f.block) for f in found]
        seq.computed = seq.published = sum(f.tokens for f in found)
        seq.covered = seq.computed * self.token_bytes
        if seq.hit_tokens is None:
            seq.hit_tokens = [sum(f.tokens for f in found if f.level == i) for i in range(len(self._tiers))]
        if loads:
            self._submit_loads(seq, loads, now)
        if self._hit_copies:
            hits = [f.block for f in found if not f.level and not f.block.private]
            self._store(self._offload.plan(Event.HIT, hits, self._view), now)
        return True

    # ---- allocation

    def reserve(self, blocks: int, now: float) -> bool:
        """Reserve engine blocks for sequences, evicting as needed; False (nothing changed) if there is no room."""
        size = blocks * self.block_bytes
        evicted = self.hbm.make_room(size)
        if evicted is None:
            return False
        if evicted:
            self._on_evicted(evicted, now)
        self.hbm.reserve(size)
        return True

    def extend(self, seq: Seq, tokens: int, now: float) -> bool:
        """Allocate for `tokens` more tokens of a prefill, and publish the blocks that they fill.

        Blocks can be hit from now on, as in vLLM, which caches them when it schedules the step.
        """
        upto = seq.computed + tokens
        if not self.reserve(self.blocks_of(upto) - self.blocks_of(seq.computed), now):
            return False
        if self.hash_tokens:
            self._publish(seq, min(upto // self.block_tokens * self.block_tokens, self._full_tokens(seq)))
        return True

    def release(self, seq: Seq) -> None:
        """Give up everything that the sequence holds; its full blocks stay cached until they are evicted."""
        hbm = self.hbm
        reserved = self.blocks_of(seq.computed) * self.block_bytes - seq.covered
        own = (seq.computed // self.block_tokens) * self.block_tokens - self._full_tokens(seq)
        if own > 0:
            reserved -= self._publish_own(seq, own)
        hbm.release(reserved)
        for block in reversed(seq.held):
            hbm.unpin(block)
        for low in self.lower:
            blocks, release = low.tier.blocks, low.tier.policy.release
            for key in reversed(seq.keys):
                if key in blocks:
                    release(blocks[key])
        seq.held = []
        seq.covered = 0

    # ---- offload

    def filled(self, blocks: list[Block], now: float) -> None:
        """The step that computed these blocks has ended."""
        if self._filled_copies:
            self._store(self._offload.plan(Event.FILLED, blocks, self._view), now)

    def _on_evicted(self, blocks: list[Block], now: float) -> None:
        if not self.evicting_copies:
            return
        shareable = [b for b in blocks if not b.private]
        end = self._store(self._offload.plan(Event.EVICTED, shareable, self._view), now, evicted=True)
        self.stall_until = max(self.stall_until, end)

    def _store(self, moves: Iterable[Move], now: float, *, evicted: bool = False) -> float:
        """Execute copies away from the GPU; the time when the last one has arrived."""
        batches: dict[str, list[tuple[Block, Block, int]]] = {}
        sizes: dict[str, int] = {}
        for block, to in moves:
            low = self._by_name[to]
            copy = low.tier.blocks.get(block.key)
            added = (block.tokens - (copy.tokens if copy else 0)) * self.token_bytes
            if added <= 0:
                continue
            copy = self._make_copy(low.tier, block, copy, added)
            if copy is None:
                continue
            if not evicted:
                self.hbm.pin(block)
            batches.setdefault(to, []).append((block, copy, block.tokens))
            sizes[to] = sizes.get(to, 0) + added
        end = now
        for to, entries in batches.items():
            end = max(end, self._submit_store(self._by_name[to], entries, sizes[to], now, evicted))
        return end

    def _make_copy(self, tier: Tier, block: Block, copy: Block | None, added: int) -> Block | None:
        """Room and an entry for a copy of `block` in `tier`, pinned until it has arrived; None if there is no room."""
        if copy is not None:
            tier.pin(copy)
        if tier.make_room(added) is None:
            tier.counters.refused_bytes += added
            if copy is not None:
                tier.unpin(copy)
            return None
        if copy is None:
            copy = Block(block.key, block.start, block.tokens, block.size, 0)
            copy.pins = 1
            tier.insert(copy)
        else:
            tier.grow(copy, block.tokens, block.tokens * self.token_bytes)
        return copy

    def _submit_store(
        self, low: LowerTier, entries: list[tuple[Block, Block, int]], size: int, now: float, evicted: bool
    ) -> float:
        def arrived() -> None:
            self.copying -= 1
            low.tier.counters.stored_bytes += size
            for block, copy, tokens in reversed(entries):
                copy.ready = max(copy.ready, tokens)
                low.tier.unpin(copy)
                if not evicted:
                    self.hbm.unpin(block)
            self.woken()

        self.copying += 1
        transfer = Transfer(self.hbm.name, low.tier.name, size, size // self.block_bytes, "store")
        return low.store.submit(now, transfer, arrived)

    # ---- loads

    def _start_load(self, seq: Seq, found: Found) -> Block:
        source = found.block
        size = found.tokens * self.token_bytes
        block = Block(source.key, source.start, found.tokens, size, 0)
        block.pins = 1
        block.waiters = [seq]
        self.hbm.insert(block)
        self._tiers[found.level].counters.loaded_bytes += size
        source.uses += 1
        seq.pending += 1
        return block

    def _join(self, seq: Seq, block: Block) -> Block:
        """Use a block of HBM; one that is still arriving is waited for, not fetched twice."""
        if block.waiters is not None:
            block.waiters.append(seq)
            seq.pending += 1
        return block

    def _submit_loads(self, seq: Seq, loads: list[Found], now: float) -> None:
        held = {block.key: block for block in seq.held}
        for level, low in enumerate(self.lower, start=1):
            pairs = [(f.block, held[f.block.key]) for f in loads if f.level == level]
            if not pairs:
                continue
            size = sum(block.size for _, block in pairs)
            transfer = Transfer(low.tier.name, self.hbm.name, size, size // self.block_bytes, "load")
            self.copying += 1
            low.load.submit(now, transfer, partial(self._arrived, pairs, low.tier), self.stall_until)

    def _arrived(self, pairs: list[tuple[Block, Block]], tier: Tier) -> None:
        self.copying -= 1
        for source, block in reversed(pairs):
            tier.unpin(source)
            block.ready = block.tokens
            waiters, block.waiters = block.waiters, None
            for seq in waiters or ():
                assert isinstance(seq, Seq)
                seq.pending -= 1
                if not seq.pending:
                    self.loaded(seq)
        self.woken()

    # ---- helpers

    def _full_tokens(self, seq: Seq) -> int:
        """Prompt tokens in whole engine blocks that carry a hash of the trace."""
        return seq.input_tokens // self.block_tokens * self.block_tokens if self.hash_tokens else 0

    def _nearest(self, key: int, want: int) -> Found | None:
        """The first tier that has (or, for HBM, is receiving) tokens of the block."""
        for level, tier in enumerate(self._tiers):
            block = tier.blocks.get(key)
            if block is None:
                continue
            tokens = min(block.ready if level else block.tokens, want)
            if tokens:
                return Found(level, block, tokens)
        return None

    def _touch(self, seq: Seq, found: list[Found]) -> None:
        """Tell every tier's policy of the hits and misses, children before parents."""
        for f in reversed(found):
            if not f.level:
                self.hbm.hit(f.block)
                self.hbm.counters.loaded_bytes += f.tokens * self.token_bytes
        self.hbm.missed(seq.keys[len(found) :])
        for low in self.lower:
            blocks, touch = low.tier.blocks, low.tier.policy.touch
            for key in reversed(seq.keys):
                if key in blocks:
                    touch(blocks[key])
            low.tier.missed(key for key in seq.keys if key not in blocks)

    def _publish(self, seq: Seq, upto: int) -> None:
        """Put computed prefix blocks into the prefix cache, turning reserved bytes into cached ones."""
        hbm = self.hbm
        while seq.published < upto:
            index = seq.published // self.hash_tokens
            start = index * self.hash_tokens
            tokens = min(start + self.hash_tokens, upto) - start
            key = seq.keys[index]
            block = hbm.blocks.get(key)
            size = tokens * self.token_bytes
            if block is None:
                hbm.publish(size)
                block = Block(key, start, tokens, size, tokens)
                block.pins = 1
                hbm.insert(block)
                seq.held.append(block)
                seq.covered += size
                seq.filled.append(block)
                hbm.counters.stored_bytes += size
            elif block.tokens < tokens and block.waiters is None:
                grown = size - block.size
                hbm.publish(grown)
                if not (seq.held and seq.held[-1] is block):
                    hbm.pin(block)
                    seq.held.append(block)
                hbm.grow(block, tokens, size)
                block.ready = tokens
                seq.covered += grown
                seq.filled.append(block)
                hbm.counters.stored_bytes += grown
            # else another sequence has computed the same block meanwhile: our copy stays private, as in vLLM
            seq.published = start + tokens

    def _publish_own(self, seq: Seq, tokens: int) -> int:
        """Keep the output's full blocks cached under the sequence's own key; bytes that became cached."""
        hbm = self.hbm
        size = tokens * self.token_bytes
        block = hbm.blocks.get(seq.own_key)
        if block is None:
            hbm.publish(size)
            hbm.insert(Block(seq.own_key, self._full_tokens(seq), tokens, size, tokens))
            return size
        grown = size - block.size
        if grown <= 0:
            return 0
        hbm.publish(grown)
        hbm.grow(block, tokens, size)
        block.ready = tokens
        return grown
