"""Copy a block when what its copy is expected to save is more than what the copy costs."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence

from policies.base import Block, Event, Move, OffloadPolicy, TierView
from policies.options import number

Kind = tuple[int, int, int]
"""Times seen so far (3 and more alike), class of the turn, class of the depth."""
CONFIDENCE = 8.0
"""Blocks of a kind that count as much as what all kinds together suggest (assumed)."""
MOST_SEEN = 3
MOST_TURNS = 3


class ByCost(OffloadPolicy):
    """Copies a block to the tier below if P(reuse) x (recompute - load) > `weight` x store, in seconds.

    `recompute` is the time that the GPU needs to compute the block again, `load` that to load it from the tier below,
    `store` that to copy it there, all on idle links. P(reuse) is learnt: the share of blocks of this kind that were
    seen again before they were forgotten, where a block's kind is how often it has been seen (computed, hit or loaded:
    once, twice, three times or more), the turn of its conversation, and its depth in powers of four tokens:

        P = (again + c P_all) / (settled + c),    P_all = (again_all + 1) / (settled_all + 2),    c = CONFIDENCE

    A sight of a block is settled when the block is seen again, or when it is forgotten because so many others came
    since. Until the first ones are forgotten P is high, so a run starts like write-through.

    weight          what a second of a link is worth in seconds of the GPU. Copies run beside the computation, so less
                    than 1 unless the link is what everything waits for; 0 stores whatever is loaded sooner than
                    computed. The default is assumed
    history_ratio   blocks remembered, as a multiple of the blocks that fit the tier: how far apart two uses of a block
                    may lie to count as a reuse. It should be no less than what the tier below holds

    Blocks are judged when their bytes are there and at each hit, never when they leave, so no step waits for a copy.
    Of the blocks judged together, those before one that is worth its copy are copied with it: a block whose prefix is
    gone cannot be loaded.
    Two departures in a row mean that the block was loaded in between, which counts as seen. (Blocks that a prefetch
    brought in vain count so too.)

    Source: the rule weighs an expected saving against a cost, as in N. Beckmann, D. Sanchez, "Maximizing cache
    performance under uncertainty", HPCA 2017; its form and the estimate here are our own.

    Complexity: O(log n) amortised for each of n blocks judged together, memory bounded by `history_ratio`.
    """

    def __init__(self, *, weight: float = 0.1, history_ratio: float = 16.0) -> None:
        self._weight = number("weight", weight, 0)
        self._history_ratio = number("history_ratio", history_ratio, 0, 1000, above=True)
        self._seen: OrderedDict[int, tuple[Kind, bool]] = OrderedDict()
        """By key, seen longest ago first: the kind as of the last sight, and whether the block has left since."""
        self._largest = 1
        self._settled: dict[Kind, float] = {}
        self._again: dict[Kind, float] = {}
        self._settled_all = 0.0
        self._again_all = 0.0

    def plan(self, event: Event, blocks: Sequence[Block], tier: TierView) -> Iterable[Move]:
        if tier.below is None:
            return ()
        if event is Event.EVICTED:
            for block in blocks:
                self._leave(block)
            return ()
        kinds = {block.key: self._see(event, block, tier) for block in blocks}
        plan = []
        wanted: set[int | None] = set()
        for block in sorted(blocks, key=lambda block: -block.start):
            held = tier.holds_below(block)
            if block.key in wanted or (not held and self._worth(block, kinds[block.key], tier, tier.below)):
                wanted.add(block.parent)
                if not held:
                    plan.append(Move(block, tier.below))
        plan.reverse()
        return plan

    def chance(self, kind: Kind) -> float:
        """P(reuse) of a block of that kind."""
        overall = (self._again_all + 1) / (self._settled_all + 2)
        return (self._again.get(kind, 0) + CONFIDENCE * overall) / (self._settled.get(kind, 0) + CONFIDENCE)

    def _worth(self, block: Block, kind: Kind, tier: TierView, below: str) -> bool:
        saving = tier.recompute_s(block) - tier.load_s(block, below)
        return self.chance(kind) * saving > self._weight * tier.store_s(block, below)

    def _see(self, event: Event, block: Block, tier: TierView) -> Kind:
        """The block has been computed (anew if it had left, else it only grew) or hit; its kind as of now.

        It may be forgotten again at once, if more blocks are seen together than are remembered.
        """
        last = self._seen.pop(block.key, None)
        times = 1
        if last is not None:
            kind, gone = last
            times = kind[0]
            if gone or event is Event.HIT:
                self._settle(kind, again=True)
                times = min(times + 1, MOST_SEEN)
        turn = min(block.turn, MOST_TURNS)
        kind = (times, turn, (block.start.bit_length() + 1) // 2)
        self._seen[block.key] = (kind, False)
        self._largest = max(self._largest, block.size)
        limit = max(1, int(self._history_ratio * tier.capacity / self._largest))
        while len(self._seen) > limit:
            self._settle(self._seen.popitem(last=False)[1][0], again=False)
        return kind

    def _leave(self, block: Block) -> None:
        last = self._seen.get(block.key)
        if last is None:
            return
        kind, gone = last
        if gone:  # it was loaded after it left the first time
            self._settle(kind, again=True)
            kind = (min(kind[0] + 1, MOST_SEEN), *kind[1:])
            self._seen.move_to_end(block.key)
        self._seen[block.key] = (kind, True)

    def _settle(self, kind: Kind, *, again: bool) -> None:
        self._settled[kind] = self._settled.get(kind, 0) + 1
        self._settled_all += 1
        if again:
            self._again[kind] = self._again.get(kind, 0) + 1
            self._again_all += 1
