"""The pass of ARC."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from policies.eviction.arc import ARC
from sim.cache.passes.facts import Facts, Pass

ONCE, AGAIN = 1, 2


def arc(_policy: ARC, capacity: int, facts: Facts) -> Pass:
    """`policies.eviction.arc`. `resident` says which of the two lists holds a block."""
    resident, room = bytearray(facts.distinct), capacity
    once: OrderedDict[int, None] = OrderedDict()
    again: OrderedDict[int, None] = OrderedDict()
    left_once: OrderedDict[int, None] = OrderedDict()
    left_again: OrderedDict[int, None] = OrderedDict()
    target = 0.0

    def use(keys: Sequence[int]) -> int:
        nonlocal room, target
        hits = 0
        for key in keys:
            where = resident[key]
            if where:
                hits += 1
                if where == AGAIN:
                    again.move_to_end(key)
                else:
                    del once[key]
                    again[key] = None
                    resident[key] = AGAIN
                continue
            returns = missed_again = False
            if key in left_once:
                target = min(capacity, target + max(len(left_again) / len(left_once), 1))
                del left_once[key]
                returns = True
            elif key in left_again:
                target = max(0, target - max(len(left_once) / len(left_again), 1))
                del left_again[key]
                returns = missed_again = True
            held = len(once)
            if room:
                room -= 1
            elif held and (held > target or (missed_again and held == target) or not again):
                victim = once.popitem(last=False)[0]
                left_once[victim] = None
                resident[victim] = 0
            else:
                victim = again.popitem(last=False)[0]
                left_again[victim] = None
                resident[victim] = 0
            if returns:
                again[key] = None
                resident[key] = AGAIN
            else:
                once[key] = None
                resident[key] = ONCE
            held, remembered = len(once), len(left_once)
            while remembered and held + remembered > capacity:
                left_once.popitem(last=False)
                remembered -= 1
            rest = 2 * capacity - held - len(again) - remembered
            while left_again and len(left_again) > rest:
                left_again.popitem(last=False)
        return hits

    return Pass(resident, use)
