"""By the block's size."""

from __future__ import annotations

from policies.base import AdmissionPolicy, Block, TierInfo
from policies.options import number


class BySize(AdmissionPolicy):
    """Lets a block in if it holds enough tokens, and not too many; as it stands, full blocks only.

    A copy has a set-up cost however short it is, and a partial block, the last one of a prompt, is hit only by prompts
    that end or part there.

    least_tokens   fewest tokens of a block that may enter. None: those of a full block, told by its bytes
    most_tokens    most tokens of a block that may enter. None: no limit

    Source: LMCache stores no partial chunk unless `save_unfull_chunk` is set (lmcache/v1/config.py, off by default;
    its chunks have 256 tokens).

    Complexity: O(1), no memory.
    """

    def __init__(self, tier: TierInfo, *, least_tokens: int | None = None, most_tokens: int | None = None) -> None:
        super().__init__(tier)
        self._least = None if least_tokens is None else number("least_tokens", least_tokens, 0)
        self._most = None if most_tokens is None else number("most_tokens", most_tokens, self._least or 0)

    def admit(self, block: Block) -> bool:
        if self._least is None:
            enough = block.size >= self.tier.block_bytes
        else:
            enough = block.tokens >= self._least
        return enough and (self._most is None or block.tokens <= self._most)
