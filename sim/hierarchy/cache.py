"""The KV cache of one replica: its HBM, the tiers behind it, and the copies between them.

Works on blocks at the trace's hash granularity; the engine's own blocks (16 tokens) are counted by arithmetic. Every
byte of HBM is free, reserved by a sequence, or part of a cached block.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from policies.base import Block
from sim.engine.footprint import Footprint
from sim.engine.sequence import Sequence as Seq
from sim.hierarchy.lookup import Found, Lookup, Prefix, count_hits
from sim.hierarchy.mover import Mover, Source
from sim.hierarchy.offload import Costs
from sim.hierarchy.place import Place
from sim.hierarchy.publishing import Publishing
from sim.hierarchy.queued import QueueIndex
from sim.invariants import ensure


class ReplicaCache(Publishing):
    """Lookup, allocation, publishing, loading and storing of KV for one replica.

    hash_tokens    tokens per prefix block of the trace (0: the trace says nothing about prefixes)
    block_tokens   tokens per block of the engine
    token_bytes    KV bytes of one token on one GPU
    keeping        full blocks stay cached when their request has ended, or gives way; False: they are freed
    choose         prices by which a prefix is loaded only as far as that is faster than computing it; None: always
    layerwise      a request may start while its prefix is on its way
    synchronous    with layerwise: no layer of its first step begins before all of the prefix is there
    answers        blocks of answers are offered for offload, as those of prompts are
    admitted       told of each request that is admitted, before its blocks are touched
    empty          names of tiers of no size, which are none, for policies that name one
    queue          to be told of those who wait to be looked up, once an eviction policy asks
    least_load     a prefix of which tiers behind HBM have fewer tokens is not loaded
    footprint      what a sequence holds where that is not one block per so many tokens; nothing can be shared then
    """

    def __init__(
        self,
        here: Place,
        sources: Sequence[Source],
        *,
        hash_tokens: int,
        block_tokens: int,
        token_bytes: int,
        keeping: bool = True,
        choose: Costs | None = None,
        layerwise: bool = False,
        synchronous: bool = False,
        answers: bool = True,
        admitted: Callable[[int], None] | None = None,
        empty: Sequence[str] = (),
        footprint: Footprint | None = None,
        least_load: int = 0,
        queue: QueueIndex | None = None,
    ) -> None:
        ensure(footprint is None or not (hash_tokens or keeping), "planned memory cannot be shared or kept")
        super().__init__(
            here,
            footprint,
            hash_tokens=hash_tokens,
            block_tokens=block_tokens,
            token_bytes=token_bytes,
            answers=answers,
        )
        self._admitted = admitted
        self._keeping = keeping
        self.empty = empty
        self.queue = queue
        self.layerwise = layerwise
        self.synchronous = synchronous
        self.lower = tuple(source.place for source in sources)
        self._tiers = (self.hbm, *(low.tier for low in self.lower))
        self._lookup = Lookup(
            self._tiers,
            hash_tokens=hash_tokens,
            block_tokens=block_tokens,
            token_bytes=token_bytes,
            choose=choose,
            least=least_load,
        )
        self.policies_changed()
        self.cached_tokens = self._lookup.cached_tokens
        self.reach = self._lookup.reach
        self.mover = Mover(here, sources)

    def policies_changed(self) -> None:
        """Look which eviction policies let blocks expire, or hear of releases."""
        self._expiring = [tier for tier in self._tiers if tier.expires]
        self._hearing = [low.tier for low in self.lower if low.tier.hears_release]

    @property
    def evicting_copies(self) -> bool:
        """True when an eviction may start a copy."""
        return self._here.offload.hears_evicted

    # ---- lookup

    def lookup(self, seq: Seq) -> Prefix:
        """The longest cached prefix over all tiers (sim.hierarchy.lookup), of what policies still let be used."""
        for tier in self._expiring:
            tier.purge()
        return self._lookup.prefix(seq, self._full_tokens(seq))

    def admit(self, seq: Seq, prefix: Prefix) -> bool:
        """Pin what was found, start the loads it needs; False (and nothing changed) if HBM has no room for them."""
        found, hit, behind = prefix
        hbm, size = self.hbm, behind * self.token_bytes
        if behind and not self._fits(seq, found, size):
            return False
        if self._admitted is not None:
            self._admitted(seq.index)
        here = self._pin(seq, found)
        self._touch(seq, here, hit - behind)
        if seq.fetch_level is not None:
            self._note_late(seq, found)
        if behind:
            ensure(self._here.make_room(size), f"{hbm.label}: no room for a load that was admitted")
            seq.held = self._load_targets(seq, found)
        else:
            seq.held = here.copy()
        for block in here:
            if block.waiters is not None:
                self.mover.join(seq, block)
        seq.computed = seq.published = hit
        seq.covered = hit * self.token_bytes
        self.covered += seq.covered
        count_hits(seq, found, hit)
        if behind:
            loads = self._lookup.loads(found, seq.held)
            for level in sorted(loads):
                self.mover.load(seq, level, loads[level])
        if self._here.offload.hears_hit:
            self._here.hit(here)
        return True

    def _pin(self, seq: Seq, found: list[Found]) -> list[Block]:
        """Pin the blocks that were found, each once; those of them that lie in HBM."""
        here: list[Block] = []
        last, pinned, turn = None, 0, seq.turn
        for f in found:
            level, block, tokens = f
            block.turn = turn
            if level:
                if block is not last:
                    last = block
                    self._tiers[level].pin(block)
                continue
            if not block.pins:
                if tokens < block.tokens and self._kept(seq, f) < block.tokens:
                    self.hbm.shrink(block, tokens, tokens * self.token_bytes)
                pinned += block.size
            block.pins += 1
            here.append(block)
        self.hbm.pinned += pinned
        return here

    def _kept(self, seq: Seq, found: Found) -> int:
        """Tokens that a block of HBM, in nobody's use, keeps: what the sequence cannot use of its own prompt it
        computes again, into this memory; what follows that prompt in the block is another turn's."""
        block = found.block
        if found.tokens < block.tokens <= self._full_tokens(seq) - block.start:
            return found.tokens
        return block.tokens

    def _fits(self, seq: Seq, found: list[Found], size: int) -> bool:
        """True if HBM can have `size` bytes free while what was found there is kept; changes nothing."""
        hbm = self.hbm
        if size > hbm.capacity - hbm.pinned - hbm.reserved - self.newly_pinned(seq, found):
            return False
        if not hbm.leaf_only:
            return True
        kept = [f for f in found if not f.level and not f.block.pins]
        spare = sum(f.block.tokens - self._kept(seq, f) for f in kept) * self.token_bytes
        for f in kept:
            f.block.pins = 1
        fits = hbm.can_free(size - hbm.free - spare)
        for f in kept:
            f.block.pins = 0
        return fits

    def _load_targets(self, seq: Seq, found: list[Found]) -> list[Block]:
        """HBM blocks for the prompt's blocks that were found: for those that are about to be loaded new ones, pinned,
        of which nothing has arrived."""
        hbm, present, keys, token_bytes = self.hbm, self.hbm.blocks, seq.keys, self.token_bytes
        targets: list[Block] = []
        new: list[Block] = []
        size = 0
        for place, (level, block, tokens) in enumerate(found):
            if level:
                key = keys[place]
                shorter = present.get(key)
                if shorter is not None:
                    hbm.entered(new, size)
                    new, size = [], 0
                    hbm.drop(shorter)
                    hbm.counters.replaced_bytes += shorter.size
                parent = keys[place - 1] if place else None
                block = present[key] = Block(
                    key, place * self.hash_tokens, tokens, tokens * token_bytes, 0, parent, seq.turn
                )
                block.pins = 1
                size += block.size
                hbm.counters.stored_bytes += block.size
                new.append(block)
            targets.append(block)
        hbm.entered(new, size)
        return targets

    def newly_pinned(self, seq: Seq, found: list[Found]) -> int:
        """Bytes of HBM that cannot be evicted any more once the sequence uses the blocks found there."""
        return sum(self._kept(seq, f) for f in found if not f.level and not f.block.pins) * self.token_bytes

    def _touch(self, seq: Seq, here: list[Block], tokens: int) -> None:
        """Tell every tier's policy of the hits and misses, children before parents; `tokens` were found in HBM."""
        hbm, keys = self.hbm, seq.keys
        hbm.hit_all(here[::-1])
        hbm.counters.loaded_bytes += tokens * self.token_bytes
        if hbm.hears_misses:
            hbm.missed(keys)
        for low in self.lower:
            tier = low.tier
            ends = tier.ends(keys)
            tier.touch(reversed(ends))
            if tier.hears_misses:
                tier.missed(ends)

    def _note_late(self, seq: Seq, found: list[Found]) -> None:
        """What a fetch is still bringing behind HBM is computed instead."""
        assert seq.fetch_level is not None
        for key in seq.keys[len(found) :]:
            for tier in self._tiers[1 : seq.fetch_level + 1]:
                block = tier.blocks.get(key)
                if block is not None:
                    tier.wanted_ahead(block)

    # ---- prompts that another replica computed

    def take_in(self, seq: Seq, *, reuse: bool) -> bool:
        """Memory for all KV of a prompt that is to come; False (and nothing changed) if there is no room.

        With `reuse` what HBM has cached of the prompt is pinned and need not come: `Sequence.published` tokens. What is
        itself on its way to HBM counts as not cached.
        """
        found: list[Found] = []
        hit = 0
        for f in self.lookup(seq).found if reuse else ():
            if f.level or f.block.waiters is not None:
                break
            found.append(f)
            hit += f.tokens
        blocks = self.blocks_of(seq.input_tokens) - self.blocks_of(hit)
        if not self._fits(seq, found, blocks * self.block_bytes):
            return False
        seq.held = self._pin(seq, found)
        self._touch(seq, seq.held, hit)
        ensure(self.reserve(blocks), f"{self.hbm.label}: no room for a prompt that was let in")
        seq.computed, seq.published = seq.input_tokens, hit
        seq.covered = hit * self.token_bytes
        self.covered += seq.covered
        return True

    # ---- the end

    def release(self, seq: Seq) -> None:
        """Give up everything that the sequence holds; its full blocks stay cached until they are evicted, if any do."""
        hbm, block_tokens = self.hbm, self.block_tokens
        if self.memory is not None:
            hbm.release(self.held_bytes(seq, seq.computed))
            seq.blocks, seq.settled = 0, False
            return
        if seq.said:
            self._publish_said(seq)
        reserved = -(-seq.computed // block_tokens) * self.block_bytes - seq.covered
        if self._keeping and not seq.said:
            own = seq.computed // block_tokens * block_tokens - self._full_tokens(seq)
            if own > 0:
                reserved -= self._publish_own(seq, own)
        hbm.reserved -= reserved
        seq.held.reverse()
        hbm.unpin_all(seq.held)
        for tier in self._hearing:
            tier.released(reversed(tier.ends(seq.keys)))
        seq.held = []
        self.covered -= seq.covered
        seq.covered = 0
