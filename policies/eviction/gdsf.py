"""Greedy-dual size frequency, with the time to recompute a block as its cost."""

from __future__ import annotations

import math

from policies.base import Block, TierInfo
from policies.eviction.ranked import Ranked
from policies.options import number


class GDSF(Ranked):
    """Evicts the block with the least value, age + uses x cost / size.

    `uses` counts the insert and every hit; `age` is the highest value that has been evicted so far, so a block that is
    no longer used falls behind new ones. The cost is what a prefill would spend to compute the block again, in units
    of one token's linear layers:

        cost = tokens x (1 + (start + tokens / 2) / attention_tokens)

    where `start` tokens come before the block and every token attends to half of its own block on average.

    attention_tokens   prefix length at which attention over it costs a token as much as all its linear layers. Both
                       are counts of operations of the model: 2 x parameters outside the embedding, against 4 x layers
                       x heads x head size per token of prefix. The default is Llama-3.1-8B (15.0e9 / 524,288 =
                       28,600). `.inf` leaves attention out: cost is then the number of tokens

    The costs of two blocks matter only by their ratio. Deep blocks cost more, so of a prefix that was never hit again
    the first block leaves first: a tier that may evict parents before children loses the rest of it with that block.

    Source: L. Cherkasova, "Improving WWW proxies performance with greedy-dual-size-frequency caching policy", HP Labs
    technical report HPL-98-69R1, 1998 (clock + frequency x cost / size), after P. Cao, S. Irani, "Cost-aware WWW proxy
    caching algorithms", USITS 1997, section 4. RAGCache (arXiv 2404.12457) uses the form for prefix caches.

    Complexity: O(log n) amortised per operation.
    """

    def __init__(self, tier: TierInfo, *, attention_tokens: float = 28_600.0) -> None:
        super().__init__(tier)
        self._attention_tokens = number("attention_tokens", attention_tokens, 0, math.inf, above=True)
        self._age = 0.0

    def rank(self, block: Block) -> tuple[float, ...]:
        cost = self.cost(block.start, block.tokens)
        return (self._age + (1 + self.hits[block.key]) * cost / block.size,)

    def cost(self, start: int, tokens: int) -> float:
        """What it takes to compute `tokens` tokens after `start`, in units of one token's linear layers."""
        return tokens * (1 + (start + tokens / 2) / self._attention_tokens)

    def remove(self, block: Block) -> None:
        self._age = max(self._age, self.ranked(block)[0])
        super().remove(block)
