"""An order of blocks for an engine, where they come and go as parts of prompts.

A request uses the blocks of its prompt together, so a block is nearly always moved with the same neighbours. Kept as
runs of blocks that were moved together last, a prompt is one move or a few, whatever its length, and its blocks are not
looked at one by one.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from itertools import chain
from operator import attrgetter

from policies.block import Block, Run

_blocks = attrgetter("blocks")


class RunOrder:
    """Blocks in an order, in runs. Each operation costs O(1) for each run that it moves, splits or joins.

    A run is split where a request uses a part of it: at most once for each place where prompts part. Runs of one block
    that are moved one after the other become one run.
    """

    def __init__(self) -> None:
        self._runs: OrderedDict[Run, None] = OrderedDict()

    def add(self, blocks: list[Block]) -> None:
        """New blocks, which come last."""
        if blocks:
            run = Run(blocks)
            for block in blocks:
                block.run = run
            self._runs[run] = None

    def to_end(self, blocks: list[Block]) -> None:
        """Put the blocks last, in this order."""
        runs, at, count = self._runs, 0, len(blocks)
        while at < count:
            run = blocks[at].run
            assert run is not None
            held = run.blocks
            length = len(held)
            if length == 1:
                upto = at + 1
                while upto < count and _alone(blocks[upto]):
                    upto += 1
                if upto - at == 1:
                    runs.move_to_end(run)
                else:
                    self._join(blocks[at:upto])
                at = upto
                continue
            if held[0] is not blocks[at] and held[-1] is blocks[at]:
                held.reverse()
                if blocks[at : at + length] != held:
                    held.reverse()  # a part of it only: the others stay as they are
                    at = self._part_to_end(run, blocks, at)
                    continue
            elif blocks[at : at + length] != held:
                at = self._part_to_end(run, blocks, at)
                continue
            runs.move_to_end(run)
            at += length

    def remove(self, blocks: list[Block]) -> None:
        """Take the blocks out."""
        at, count = 0, len(blocks)
        while at < count:
            run = blocks[at].run
            assert run is not None
            held = run.blocks
            length = len(held)
            if blocks[at : at + length] == held:
                del self._runs[run]
                run.blocks = []  # no cycle: nobody searches for those while a run lasts
                at += length
            else:
                at += len(_taken(held, blocks, at))
                if not held:
                    del self._runs[run]

    def coldest(self) -> Iterator[Block]:
        """The blocks in their order; none may be moved meanwhile."""
        return chain.from_iterable(map(_blocks, self._runs))

    def _join(self, blocks: list[Block]) -> None:
        """Blocks that are runs by themselves become one, the last; one that is named twice stands where it is last."""
        once = list(dict.fromkeys(reversed(blocks)))
        once.reverse()
        for block in once:
            assert block.run is not None
            del self._runs[block.run]
        self.add(once)

    def _part_to_end(self, run: Run, blocks: list[Block], at: int) -> int:
        """Make the part of a run that `blocks` goes on with a run of its own, the last; where `blocks` goes on then."""
        part = _taken(run.blocks, blocks, at)
        if not run.blocks:
            del self._runs[run]
        self.add(part)
        return at + len(part)


def _alone(block: Block) -> bool:
    return block.run is not None and len(block.run.blocks) == 1


def _taken(held: list[Block], blocks: list[Block], at: int) -> list[Block]:
    """Take the longest part out of `held` that `blocks` has from `at` on, in the order of either or in reverse."""
    first = held.index(blocks[at])
    last, rest = first + 1, len(blocks)
    next_one = at + 1
    while next_one < rest and last < len(held) and held[last] is blocks[next_one]:
        last += 1
        next_one += 1
    if last == first + 1:
        while next_one < rest and first and held[first - 1] is blocks[next_one]:
            first -= 1
            next_one += 1
    del held[first:last]
    return blocks[at:next_one]
