"""Workload-aware: keeps the blocks whose kind is most likely to be used again soon."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterator
from heapq import heapify, heappop, heappush, heapreplace

from policies.base import Block, EvictionPolicy, TierInfo
from policies.eviction.reuse import Chance, ReuseModel, likelihood
from policies.options import number, seconds, whole

Category = tuple[int, int]
"""Class of the turn, class of the depth."""
PRIVATE: Category = (-2, 0)
"""Requests' own outputs."""
RENEWED = 64
"""Uses after which the probabilities of kinds are drawn anew from what has been counted."""

Rank = tuple[float, int, int]
"""Probability of reuse, minus the class of the depth, class of the turn: different for every kind."""


class WorkloadAware(EvictionPolicy):
    """Evicts the block that is least likely to be used again in the next interval, judged by its kind and its age.

    The kind of a block is the turn of the conversation that used it last and its depth in the prompt, in powers of four
    tokens. For each kind the policy learns from the uses it sees how many are followed by another and how long that
    takes; `policies.eviction.reuse.ReuseModel` has the formula. A block is never less likely to be used than the ones
    behind it in its prompts, so it is given the greatest probability that its kind or a deeper one of the same turn
    has at its age; of equals the deeper kind leaves first. Of one kind the block used longest ago is always the least
    likely, so a scan compares one block of each kind. Probabilities are drawn from the counts every RENEWED uses, ages
    are always those of the moment.

    interval      how far ahead to look: text with a unit or a number of seconds. None: the mean age at which blocks
                  have left the tier, which is what a block that stays can hope for
    turns         turns told apart; later ones count as the last of them
    ghost_ratio   evicted blocks whose return still counts as a reuse, as a multiple of the full blocks that fit
    window        uses after which everything counted so far weighs half, as a multiple of the full blocks that fit

    Source: J. Wang et al., "KVCache cache in the wild: characterizing and optimizing KVCache cache at a large cloud
    provider", USENIX ATC 2025 (arXiv 2506.02634), and the authors' description of their implementation (vLLM pull
    request 22236): the least probability of reuse in the upcoming time window leaves, by categories whose reuse times
    are exponential, one queue in order of last use for each, of which only the head is judged. What differs: their
    categories are the request's type (text, file, ...) and its turn, and traces here name no type, so depth stands in;
    they fit the distributions to an earlier part of the trace, here they are learnt on the way, evicted blocks that
    come back included; the probability here is conditional on the block not having been used since; and it is kept
    from growing with depth, which categories without depth do not need.

    In `kvsim cache` times are those of arrival. Where no time passes at all ages are 0, and kinds are ordered by the
    share of uses that others followed alone.

    Complexity: O(1) amortised per hook; O(k) per victim for the k depths of a turn (at most about 12), times the turns
    told apart for the first of a moment, and again where a scan goes on to a second one.
    """

    def __init__(
        self,
        tier: TierInfo,
        *,
        interval: float | str | None = None,
        turns: int = 4,
        ghost_ratio: float = 1.0,
        window: float = 8.0,
    ) -> None:
        super().__init__(tier)
        self.interval = None if interval is None else seconds("interval", interval, above=True)
        self.turns = whole("turns", turns, 1, 64)
        self.remembered = int(number("ghost_ratio", ghost_ratio, 0, 100) * tier.capacity_blocks)
        self.window = number("window", window, 0, above=True) * max(tier.capacity_blocks, 1)
        self._model = ReuseModel(self.window)
        self._queues: dict[Category, OrderedDict[int, tuple[float, Block]]] = {}
        """Blocks of each kind with the time of their last use, oldest first."""
        self._kinds: dict[int, Category] = {}
        self._ghosts: OrderedDict[int, tuple[Category, float]] = OrderedDict()
        self._chances: dict[Category, tuple[Chance, ...]] = {}
        """Of each kind with blocks, when they were last drawn: its own and those of deeper kinds of its turn."""
        self._drawn = -RENEWED
        """Uses counted when they were."""
        self._heads: list[tuple[Rank, Category, float]] = []
        """A heap: at least one entry for each kind with blocks, with the last use of its first block when it was
        ranked; that can only have become later, and the rank higher, in this moment."""
        self._listed: set[Category] = set()
        self._ranked = math.nan
        """The moment of those ranks, s."""

    def insert(self, block: Block) -> None:
        ghost = self._ghosts.pop(block.key, None)
        if ghost is not None:
            self._model.followed(ghost[0], self.tier.now() - ghost[1])
        self._use(block)

    def touch(self, block: Block) -> None:
        kind, used = self._take(block)
        self._model.followed(kind, self.tier.now() - used)
        self._use(block)

    def release(self, block: Block) -> None:
        queue = self._queues[self._kinds[block.key]]
        queue[block.key] = (self.tier.now(), block)
        queue.move_to_end(block.key)

    def victims(self) -> Iterator[Block]:
        first = self._first()
        if first is None:
            return
        yield first
        rest = self._all()
        next(rest)
        yield from rest

    def remove(self, block: Block) -> None:
        kind, used = self._take(block)
        self._model.left(self.tier.now() - used)
        if self.remembered and not block.private:
            self._ghosts[block.key] = (kind, used)
            if len(self._ghosts) > self.remembered:
                self._ghosts.popitem(last=False)

    def _first(self) -> Block | None:
        """The block that leaves first; the ranks of heads stay for the next time if that is in the same moment."""
        now = self.tier.now()
        if now != self._ranked or self._model.counted - self._drawn >= RENEWED:
            self._rank(now)
        heads, queues = self._heads, self._queues
        while heads:
            _, kind, ranked = heads[0]
            for used, block in queues[kind].values():
                if used == ranked:
                    return block
                heapreplace(heads, (self._rank_of(kind, now - used), kind, used))
                break
            else:
                heappop(heads)
                self._listed.discard(kind)
        return None

    def _rank(self, now: float) -> None:
        """Rank the first block of every kind, with new probabilities if they are due."""
        if self._model.counted - self._drawn >= RENEWED:
            self._draw()
        kinds = [kind for kind, queue in self._queues.items() if queue]
        self._listed = set(kinds)
        self._heads = []
        for kind in kinds:
            used, _ = next(iter(self._queues[kind].values()))
            self._heads.append((self._rank_of(kind, now - used), kind, used))
        heapify(self._heads)
        self._ranked = now

    def _draw(self) -> None:
        """Draw the probabilities of all kinds from the counts."""
        life = self._model.life if self.interval is None else self.interval
        deeper: dict[int, tuple[Chance, ...]] = {}
        for kind in sorted(self._queues, key=lambda kind: -kind[1]):
            turn = kind[0]
            deeper[turn] = self._chances[kind] = (*deeper.get(turn, ()), self._model.chance(kind, life))
        self._drawn = self._model.counted

    def _rank_of(self, kind: Category, age: float) -> Rank:
        return likelihood(self._chances[kind], age), -kind[1], kind[0]

    def _all(self) -> Iterator[Block]:
        """All blocks in order, by the ranks of this moment."""
        now = self._ranked
        heads = []
        for kind, queue in self._queues.items():
            rest = iter(queue.values())
            for used, block in rest:
                heads.append((self._rank_of(kind, now - used), block, rest, kind))
                break
        heapify(heads)
        while heads:
            _, block, rest, kind = heads[0]
            yield block
            for used, following in rest:
                heapreplace(heads, (self._rank_of(kind, now - used), following, rest, kind))
                break
            else:
                heappop(heads)

    def _use(self, block: Block) -> None:
        kind = self._kind(block)
        self._model.used(kind)
        self._kinds[block.key] = kind
        queue = self._queues.get(kind)
        if queue is None:
            queue = self._queues[kind] = OrderedDict()
            self._drawn = -RENEWED  # nothing is known of this kind yet, and it is deeper than others
        if not queue and kind not in self._listed and kind in self._chances:
            heappush(self._heads, (self._rank_of(kind, 0.0), kind, math.nan))
            self._listed.add(kind)
        queue[block.key] = (self.tier.now(), block)

    def _take(self, block: Block) -> tuple[Category, float]:
        kind = self._kinds.pop(block.key)
        return kind, self._queues[kind].pop(block.key)[0]

    def _kind(self, block: Block) -> Category:
        if block.private:
            return PRIVATE
        return min(block.turn, self.turns - 1), (block.start.bit_length() + 1) // 2
