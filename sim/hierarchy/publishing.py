"""How what sequences compute becomes cached blocks, which others can hit and offload policies hear of."""

from __future__ import annotations

from policies.base import Block
from sim.engine.footprint import Footprint
from sim.engine.sequence import Sequence as Seq
from sim.hierarchy.place import Place
from sim.hierarchy.sequence_memory import SequenceMemory


class Publishing(SequenceMemory):
    """The blocks that sequences fill, put into the prefix cache of HBM; the arguments are those of
    `sim.hierarchy.cache.ReplicaCache`."""

    def __init__(
        self,
        here: Place,
        footprint: Footprint | None,
        *,
        hash_tokens: int,
        block_tokens: int,
        token_bytes: int,
        answers: bool,
    ) -> None:
        super().__init__(here, footprint, hash_tokens=hash_tokens, block_tokens=block_tokens, token_bytes=token_bytes)
        self._answers = answers

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

    def landed(self, seq: Seq) -> None:
        """The KV of the prompt is here: its full blocks can be hit, and are offered for offload."""
        if not self.hash_tokens:
            return
        upto = min(seq.computed // self.block_tokens * self.block_tokens, self._full_tokens(seq))
        if seq.published < upto:
            self._publish(seq, upto)
            blocks, seq.filled = seq.filled, []
            self.filled(blocks)

    def filled(self, blocks: list[Block]) -> None:
        """The step that computed these blocks has ended; a block comes twice if two of its sequences filled it."""
        for block in blocks:
            block.ready = block.tokens
        if self._here.offload.hears_filled:
            self._here.filled(list(dict.fromkeys(blocks)))

    def _full_tokens(self, seq: Seq) -> int:
        """Tokens in whole engine blocks that carry a hash of the trace: of the prompt, and of the output that a
        preempted sequence computes again, if the next turn names its blocks."""
        tokens = seq.known if seq.said else seq.input_tokens
        return tokens // self.block_tokens * self.block_tokens if self.hash_tokens else 0

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
