"""The KV cache of one replica: its HBM, the tiers behind it, and the copies between them.

Works on blocks at the trace's hash granularity; the engine's own blocks (16 tokens) are counted by arithmetic. Every
byte of HBM is free, reserved by a sequence, or part of a cached block.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from policies.base import Block
from sim.engine.footprint import Footprint, PlannedMemory
from sim.engine.sequence import Sequence as Seq
from sim.hierarchy.lookup import Found, Lookup, Prefix
from sim.hierarchy.mover import Load, Mover, Source
from sim.hierarchy.offload import Costs
from sim.hierarchy.place import Place
from sim.hierarchy.queued import QueueIndex
from sim.invariants import ensure


class ReplicaCache:
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
        self.memory = None if footprint is None else PlannedMemory(footprint, block_tokens)
        self._admitted = admitted
        self._keeping = keeping
        self.empty = empty
        self.queue = queue
        self.layerwise = layerwise
        self.synchronous = synchronous
        self._answers = answers
        self.hbm = here.tier
        self.lower = tuple(source.place for source in sources)
        self.hash_tokens = hash_tokens
        self.block_tokens = block_tokens
        self.block_bytes = block_tokens * token_bytes
        self.token_bytes = token_bytes
        self._here = here
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
        self.slots_ahead = 0
        """Slots that a sequence takes beyond its own tokens (`sim.engine.speculative`)."""
        self.covered = 0
        """Sum of `Sequence.covered`."""

    def policies_changed(self) -> None:
        """Look which eviction policies let blocks expire, or hear of releases."""
        self._expiring = [tier for tier in self._tiers if tier.expires]
        self._hearing = [low.tier for low in self.lower if low.tier.hears_release]

    @property
    def evicting_copies(self) -> bool:
        """True when an eviction may start a copy."""
        return self._here.offload.hears_evicted

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
        self._count_hits(seq, found, hit)
        if behind:
            loads = self._loads(found, seq.held)
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

    def _loads(self, found: list[Found], targets: list[Block]) -> dict[int, list[Load]]:
        """The loads from each tier behind HBM that has some, with the HBM blocks that they fill."""
        loads: dict[int, list[Load]] = {}
        sources: dict[int, Block] = {}
        for (level, block, tokens), target in zip(found, targets, strict=True):
            if not level:
                continue
            if sources.get(level) is block:
                loads[level][-1].targets.append(target)
                continue
            sources[level] = block
            load = Load(block, [target], self._lookup.size_of(level, block, tokens))
            if level in loads:
                loads[level].append(load)
            else:
                loads[level] = [load]
        return loads

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

    # ---- allocation

    def reserve(self, blocks: int) -> bool:
        """Reserve engine blocks for sequences, evicting as needed; False (nothing changed) if there is no room."""
        size, hbm = blocks * self.block_bytes, self.hbm
        if size > hbm.capacity - hbm.used - hbm.reserved and not self._here.make_room(size):
            return False
        hbm.reserve(size)
        return True

    def give_back(self, blocks: int) -> None:
        """Free engine blocks that a sequence has no more use for."""
        self.hbm.release(blocks * self.block_bytes)

    def extend(self, seq: Seq, tokens: int) -> bool:
        """Allocate for `tokens` more tokens of a prefill, and publish the blocks that they fill.

        Blocks can be hit from now on, as in vLLM, which caches them when it schedules the step.
        """
        had, block_tokens = seq.computed, self.block_tokens
        upto = had + tokens
        if self.memory is not None:
            return self._extend_planned(seq, self._prompt_blocks(seq, upto))
        if not self.reserve(-(-upto // block_tokens) + -had // block_tokens):
            return False
        if self.hash_tokens:
            upto = min(upto // block_tokens * block_tokens, self._full_tokens(seq))
            if seq.published < upto:
                self._publish(seq, upto)
        return True

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

    def landed(self, seq: Seq) -> None:
        """The KV of the prompt is here: its full blocks can be hit, and are offered for offload."""
        if not self.hash_tokens:
            return
        upto = min(seq.computed // self.block_tokens * self.block_tokens, self._full_tokens(seq))
        if seq.published < upto:
            self._publish(seq, upto)
            blocks, seq.filled = seq.filled, []
            self.filled(blocks)

    def next_blocks(self, seq: Seq) -> int:
        """Engine blocks that the next token of a sequence needs, which has memory for all before it."""
        return self.blocks_of(seq.computed + 1) - self.blocks_of(seq.computed)

    # ---- memory that is planned (sim.engine.footprint), or not

    def take(self, seq: Seq, blocks: int) -> bool:
        """Reserve all that the sequence will ever need; False (nothing changed) if there is no room."""
        return self._extend_planned(seq, blocks)

    def settle(self, seq: Seq) -> None:
        """Its prompt is complete and it decodes: what it does not keep of it is given back."""
        memory = self.memory
        if memory is None or memory.at_once:
            return
        kept = memory.decode_blocks(seq.input_tokens, seq.computed)
        self.hbm.release((seq.blocks - kept) * self.block_bytes)
        seq.blocks, seq.settled = kept, True

    def held_bytes(self, seq: Seq, tokens: int) -> int:
        """Bytes of HBM that a sequence holds privately, by formula, when the KV of `tokens` tokens has its memory."""
        memory = self.memory
        if memory is None:
            return self.blocks_of(tokens) * self.block_bytes - seq.covered
        if seq.settled:
            return memory.decode_blocks(seq.input_tokens, tokens) * self.block_bytes
        if seq.blocks and not memory.at_once:
            ensure(seq.blocks == memory.prompt_blocks(seq.input_tokens, tokens), "a prompt holds other than planned")
        return seq.blocks * self.block_bytes

    def whole_bytes(self, seq: Seq) -> int:
        """Bytes of HBM for all of its prompt and output, what it shares with others included.

        The last output token counts too, whose KV nobody needs. SOURCE: TensorRT-LLM, getRemainingBlocksToCompletion
        (cpp/tensorrt_llm/batch_manager/kvCacheManager.cpp): prompt + max_new_tokens, rounded up to blocks.
        """
        tokens = seq.input_tokens + seq.output_tokens + self.slots_ahead
        memory = self.memory
        blocks = self.blocks_of(tokens) if memory is None else memory.whole_blocks(seq.input_tokens, tokens)
        return blocks * self.block_bytes

    def first_bytes(self, seq: Seq, hit: int, chunk: int) -> int:
        """Bytes of HBM for the first `chunk` tokens that a sequence computes, after `hit` that were found."""
        if self.memory is not None:
            return self._prompt_blocks(seq, hit + chunk) * self.block_bytes
        return (self.blocks_of(hit + chunk) - self.blocks_of(hit)) * self.block_bytes

    def host_bytes(self, seq: Seq) -> float:
        """Host memory that the sequence will need, bytes."""
        memory = self.memory
        return 0.0 if memory is None else memory.host_bytes(seq.input_tokens, seq.input_tokens + seq.output_tokens - 1)

    def _prompt_blocks(self, seq: Seq, computed: int) -> int:
        """Engine blocks of a planned sequence that computes its prompt."""
        memory = self.memory
        assert memory is not None
        if not memory.at_once:
            return memory.prompt_blocks(seq.input_tokens, computed)
        return seq.blocks or memory.whole_blocks(seq.input_tokens, seq.input_tokens + seq.output_tokens - 1)

    def _extend_planned(self, seq: Seq, blocks: int) -> bool:
        if not self.reserve(blocks - seq.blocks):
            return False
        seq.blocks = blocks
        return True

    # ---- offload

    def filled(self, blocks: list[Block]) -> None:
        """The step that computed these blocks has ended; a block comes twice if two of its sequences filled it."""
        for block in blocks:
            block.ready = block.tokens
        if self._here.offload.hears_filled:
            self._here.filled(list(dict.fromkeys(blocks)))

    # ---- helpers

    def _full_tokens(self, seq: Seq) -> int:
        """Tokens in whole engine blocks that carry a hash of the trace: of the prompt, and of the output that a
        preempted sequence computes again, if the next turn names its blocks."""
        tokens = seq.known if seq.said else seq.input_tokens
        return tokens // self.block_tokens * self.block_tokens if self.hash_tokens else 0

    @staticmethod
    def _count_hits(seq: Seq, found: list[Found], hit: int) -> None:
        """Count what is reused for the first time: after a preemption, only what the sequence did not have before."""
        reached = seq.reached
        if hit <= reached:
            return
        end, hits = 0, seq.hit_tokens
        for level, _, tokens in found:
            end += tokens
            if end > reached:
                hits[level] += min(tokens, end - reached)
        seq.reached = hit

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

    def _publish(self, seq: Seq, upto: int) -> None:
        """Put computed prefix blocks into the prefix cache, turning reserved bytes into cached ones."""
        hbm, present, keys, token_bytes = self.hbm, self.hbm.blocks, seq.keys, self.token_bytes
        hash_tokens, held, filled, turn = self.hash_tokens, seq.held, seq.filled, seq.turn
        new: list[Block] = []
        size = grown = 0
        place = seq.published // hash_tokens
        parent = keys[place - 1] if place else None
        for start in range(place * hash_tokens, upto, hash_tokens):
            key, tokens = keys[place], upto - start
            if tokens > hash_tokens:
                tokens = hash_tokens
            place += 1
            block = present.get(key)
            if block is None:
                block = present[key] = Block(key, start, tokens, tokens * token_bytes, 0, parent, turn)
                block.pins = 1
                size += block.size
                new.append(block)
                held.append(block)
                filled.append(block)
            elif block.tokens < tokens and block.waiters is None and block.start == start:
                more = tokens * token_bytes - block.size
                grown += more
                hbm.reserved -= more
                if not (held and held[-1] is block):
                    hbm.pin(block)
                    held.append(block)
                hbm.grow(block, tokens, tokens * token_bytes)
                filled.append(block)
            # else another sequence has computed the same block meanwhile: our copy stays private, as in vLLM
            parent = key
        hbm.reserved -= size
        if new:
            hbm.entered(new, size)
        seq.published = upto
        seq.covered += size + grown
        self.covered += size + grown
        hbm.counters.stored_bytes += size + grown

    def _publish_said(self, seq: Seq) -> None:
        """Put the output's full blocks into the prefix cache too, where the next turn will look for them.

        vLLM caches each when it is full; nobody can ask for them before the output has ended, so here all come then.
        They are offloaded as what fills is (vLLM's OffloadingConnector stores what is decoded too), but not when the
        sequence gives way to others, whose memory the copies would keep.
        """
        whole = seq.computed // self.block_tokens * self.block_tokens
        named = -(-(seq.computed + 1) // self.hash_tokens)
        if named > len(seq.keys):
            seq.keys = seq.said[:named]
        if seq.published >= whole:
            return
        self._publish(seq, whole)
        blocks, seq.filled = seq.filled, []
        if self._answers and seq.generated == seq.output_tokens:
            self.filled(blocks)
        else:
            for block in blocks:
                block.ready = block.tokens

    def _publish_own(self, seq: Seq, tokens: int) -> int:
        """Keep the output's full blocks cached under the sequence's own key; bytes that became cached."""
        hbm = self.hbm
        size = tokens * self.token_bytes
        block = hbm.blocks.get(seq.own_key)
        if block is None:
            hbm.publish(size)
            parent = seq.keys[-1] if seq.keys else None
            hbm.insert(Block(seq.own_key, self._full_tokens(seq), tokens, size, tokens, parent, seq.turn))
            hbm.counters.stored_bytes += size
            return size
        grown = size - block.size
        if grown <= 0:
            return 0
        hbm.publish(grown)
        hbm.grow(block, tokens, size)
        hbm.counters.stored_bytes += grown
        block.ready = tokens
        return grown
