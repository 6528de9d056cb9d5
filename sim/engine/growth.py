"""New blocks of decoding sequences whose memory grows along a line, without looking at any of them."""

from __future__ import annotations

import heapq
from bisect import bisect_left, insort
from math import inf
from typing import NamedTuple

from sim.engine.footprint import Curve


class _Member(NamedTuple):
    entry: int
    slope: int
    place: int
    """Its room in the last block, plus what all of its slope have grown by: stays as it is from step to step."""
    prompt: int
    origin: int
    """Its context less the group's steps."""


class Growth:
    """Sequences that each grow by one token per step; tokens take units of memory as `curve` says.

    A sequence needs a new block when it grows by more than the room in its last one. All of one slope grow alike, so
    their rooms stay in one circular order: a sorted list of them, turned by the steps so far, tells by two searches who
    needs one. At a limit of the curve, whose step is known when a sequence joins, it moves to the list of the next
    slope (a heap of those steps). `done`: steps of the group so far.
    """

    def __init__(self, curve: Curve, block_units: int) -> None:
        self._curve = curve
        self._block = block_units
        self._places: dict[int, list[int]] = {slope: [] for slope in curve.slopes if slope}
        self._members: dict[int, _Member] = {}
        self._heap: list[tuple[int, int, int]] = []
        self._entries = 0

    def join(self, index: int, context: int, prompt: int, done: int) -> None:
        """A sequence with KV of `context` tokens."""
        curve = self._curve
        segment = curve.segment(context)
        slope, place = curve.slopes[segment], 0
        if slope:
            place = (slope * done - curve.units(context, prompt)) % self._block
            insort(self._places[slope], place)
        self._entries += 1
        self._members[index] = _Member(self._entries, slope, place, prompt, context - done)
        if segment < len(curve.limits):
            heapq.heappush(self._heap, (done + curve.limits[segment] - context, index, self._entries))

    def leave(self, index: int) -> None:
        """The sequence stops."""
        member = self._members.pop(index)
        if member.slope:
            places = self._places[member.slope]
            del places[bisect_left(places, member.place)]

    def blocks(self, steps: int, done: int) -> int:
        """Blocks that the next `steps` steps (at most `steps_as_planned`) fill for the first time."""
        count = 0
        for slope, places in self._places.items():
            if places:
                cycles, rest = divmod(slope * steps, self._block)
                first = slope * done % self._block
                last = first + rest
                begun = bisect_left(places, last) - bisect_left(places, first)
                if last > self._block:
                    begun += bisect_left(places, last - self._block)
                count += cycles * len(places) + begun
        return count

    def steps_as_planned(self, done: int) -> float:
        """Steps until the next sequence reaches a limit of the curve; infinite if none does."""
        heap = self._heap
        while heap and self._stale(heap[0]):
            heapq.heappop(heap)
        return heap[0][0] - done if heap else inf

    def steps_within(self, free: int, most: int, done: int) -> int:
        """Steps, `most` at most, for which `free` blocks are enough beside those that the first step has."""
        free += self.blocks(1, done)
        if self.blocks(most, done) <= free:
            return most
        low, high = 1, most  # enough for `low` steps, too few for `high`
        while high - low > 1:
            middle = (low + high) // 2
            if self.blocks(middle, done) <= free:
                low = middle
            else:
                high = middle
        return low

    def advance(self, done: int) -> None:
        """Steps have run, which makes `done` in all: who has reached a limit grows on at the next slope."""
        heap = self._heap
        while heap and heap[0][0] <= done:
            entry = heapq.heappop(heap)
            if self._stale(entry):
                continue
            index = entry[1]
            member = self._members[index]
            self.leave(index)
            self.join(index, member.origin + done, member.prompt, done)

    def _stale(self, entry: tuple[int, int, int]) -> bool:
        """True for an entry of a sequence that has left since (and may have joined again)."""
        member = self._members.get(entry[1])
        return member is None or member.entry != entry[2]
