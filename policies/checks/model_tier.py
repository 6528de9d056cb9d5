"""A tier without time, links or an engine."""

from __future__ import annotations

from policies.base import Block, EvictionPolicy


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

    def expire(self) -> None:
        """Drop what the policy says must not be hit any more; a lookup follows."""
        for block in list(self.policy.expired()):
            if not block.pins:
                self.remove(block)

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
