"""Memory of HBM that sequences hold privately: whole engine blocks, or what is planned for them."""

from __future__ import annotations

from sim.engine.footprint import Footprint, PlannedMemory
from sim.engine.sequence import Sequence as Seq
from sim.hierarchy.place import Place
from sim.invariants import ensure


class SequenceMemory:
    """What sequences hold of one replica's HBM, in blocks of `block_tokens` tokens; the other arguments are those of
    `sim.hierarchy.cache.ReplicaCache`."""

    def __init__(
        self, here: Place, footprint: Footprint | None, *, hash_tokens: int, block_tokens: int, token_bytes: int
    ) -> None:
        self.memory = None if footprint is None else PlannedMemory(footprint, block_tokens)
        self.hbm = here.tier
        self.hash_tokens = hash_tokens
        self.block_tokens = block_tokens
        self.block_bytes = block_tokens * token_bytes
        self.token_bytes = token_bytes
        self.slots_ahead = 0
        """Slots that a sequence takes beyond its own tokens (`sim.engine.speculative`)."""
        self.covered = 0
        """Sum of `Sequence.covered`."""
        self._here = here

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

    def next_blocks(self, seq: Seq) -> int:
        """Engine blocks that the next token of a sequence needs, which has memory for all before it."""
        return self.blocks_of(seq.computed + 1) - self.blocks_of(seq.computed)

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
