"""Passes of the policies that rank blocks: lfu, length_aware, gdsf, lru_k."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Sequence
from heapq import heappop, heappush

import numpy as np

from policies.eviction.gdsf import GDSF
from policies.eviction.length_aware import LengthAware
from policies.eviction.lfu import LFU
from policies.eviction.lru_k import LRUK
from sim.cache.passes.facts import Facts, Pass


def lfu(_policy: LFU, capacity: int, facts: Facts) -> Pass:
    """`policies.eviction.lfu`: one LRU list for each number of hits. The list of those without hits always stays."""
    resident, room = bytearray(facts.distinct), capacity
    counts = [0] * facts.distinct
    unused: OrderedDict[int, None] = OrderedDict()
    lists = {0: unused}

    def use(keys: Sequence[int]) -> int:
        nonlocal room
        hits = 0
        for key in keys:
            if resident[key]:
                hits += 1
                count = counts[key]
                holder = lists[count]
                del holder[key]
                if count and not holder:
                    del lists[count]
                count += 1
                counts[key] = count
                if count in lists:
                    lists[count][key] = None
                else:
                    lists[count] = OrderedDict(((key, None),))
                continue
            if room:
                room -= 1
            elif unused:
                resident[unused.popitem(last=False)[0]] = 0
            else:
                fewest = min(count for count in lists if count)
                holder = lists[fewest]
                resident[holder.popitem(last=False)[0]] = 0
                if not holder:
                    del lists[fewest]
            resident[key] = 1
            counts[key] = 0
            unused[key] = None
        return hits

    return Pass(resident, use)


def length_aware(policy: LengthAware, capacity: int, facts: Facts) -> Pass:
    """`policies.eviction.length_aware`: one LRU list for each (hits, depth), numbered in the order in which they leave.

    Lists of blocks without hits are numbered from 0 and found by going on from the first that may hold a block; the
    others by a heap, where a list that has become empty stays until it comes up.
    """
    resident, room = bytearray(facts.distinct), capacity
    shapes, shape_of = facts.shapes
    depths = [start // facts.block_tokens for start, _ in shapes]
    levels = max(depths, default=0) + 1
    if policy.sign < 0:
        depths = [levels - 1 - depth for depth in depths]
    fresh = [depths[shape] for shape in shape_of]
    ranks = fresh.copy()
    unused: list[OrderedDict[int, None]] = [OrderedDict() for _ in range(levels)]
    first = levels
    used: dict[int, OrderedDict[int, None]] = {}
    listed: set[int] = set()
    heap: list[int] = []

    def use(keys: Sequence[int]) -> int:
        nonlocal room, first
        hits = 0
        for key in keys:
            if resident[key]:
                hits += 1
                rank = ranks[key]
                del (unused if rank < levels else used)[rank][key]
                ranks[key] = rank = rank + levels
                if rank not in used:
                    used[rank] = OrderedDict()
                used[rank][key] = None
                if rank not in listed:
                    listed.add(rank)
                    heappush(heap, rank)
                continue
            if room:
                room -= 1
            else:
                while first < levels and not unused[first]:
                    first += 1
                if first < levels:
                    holder = unused[first]
                else:
                    holder = used[heap[0]]
                    while not holder:
                        listed.discard(heappop(heap))
                        holder = used[heap[0]]
                resident[holder.popitem(last=False)[0]] = 0
            resident[key] = 1
            ranks[key] = rank = fresh[key]
            unused[rank][key] = None
            if rank < first:
                first = rank
        return hits

    return Pass(resident, use)


def gdsf(policy: GDSF, capacity: int, facts: Facts) -> Pass:
    """`policies.eviction.gdsf`: a heap of values, each once, with the block that got it first and those after it.

    A value that its block has outgrown by a hit is passed over when it comes up; the block cannot get the same value
    again, since every hit adds its cost.
    """
    resident, room = bytearray(facts.distinct), capacity
    shapes, shape_of = facts.shapes
    by_shape = [policy.cost(start, tokens) for start, tokens in shapes]
    costs = [by_shape[shape] for shape in shape_of]
    counts = [0] * facts.distinct
    values = [0.0] * facts.distinct
    age = 0.0
    heap: list[float] = []
    firsts: dict[float, int] = {}
    others: dict[float, deque[int]] = {}

    def use(keys: Sequence[int]) -> int:
        nonlocal room, age
        hits = 0
        for key in keys:
            if resident[key]:
                hits += 1
                counts[key] = count = counts[key] + 1
                value = age + (1 + count) * costs[key]
            else:
                if room:
                    room -= 1
                else:
                    while True:
                        value = heap[0]
                        victim = firsts[value]
                        if value in others:
                            queue = others[value]
                            firsts[value] = queue.popleft()
                            if not queue:
                                del others[value]
                        else:
                            del firsts[heappop(heap)]
                        if values[victim] == value:
                            break
                    resident[victim] = 0
                    values[victim] = -1.0
                    if value > age:
                        age = value
                resident[key] = 1
                counts[key] = 0
                value = age + costs[key]
            values[key] = value
            if value not in firsts:
                firsts[value] = key
                heappush(heap, value)
            elif value in others:
                others[value].append(key)
            else:
                others[value] = deque((key,))
        return hits

    return Pass(resident, use)


def lru_k(policy: LRUK, capacity: int, facts: Facts) -> Pass:
    """`policies.eviction.lru_k`: an LRU list of the blocks with fewer than k uses, a heap of the others.

    The number of an access stands for its time. The k-th last use of a block, if that many are remembered, is then
    k - 1 steps back along the accesses of its key, the same for every capacity.
    """
    resident, room = bytearray(facts.distinct), capacity
    k, remembered = policy.k, policy.remembered
    back = np.arange(len(facts.order))
    for _ in range(k - 1):
        back = np.where(back < 0, -1, facts.previous[back])
    kth: list[int] = back.tolist()
    owner = facts.order
    counts = [0] * facts.distinct
    looked_back = [-1] * facts.distinct
    young: OrderedDict[int, None] = OrderedDict()
    past: OrderedDict[int, None] = OrderedDict()
    heap: list[int] = []
    now = -1

    def use(keys: Sequence[int]) -> int:
        nonlocal room, now
        hits = 0
        for key in keys:
            now += 1
            if resident[key]:
                hits += 1
                if counts[key] < k:
                    del young[key]
            else:
                if room:
                    room -= 1
                else:
                    if young:
                        victim = young.popitem(last=False)[0]
                    else:
                        first = heappop(heap)
                        victim = owner[first]
                        while looked_back[victim] != first:
                            first = heappop(heap)
                            victim = owner[first]
                        looked_back[victim] = -1
                    resident[victim] = 0
                    past[victim] = None
                    if len(past) > remembered:
                        counts[past.popitem(last=False)[0]] = 0
                resident[key] = 1
                if counts[key]:
                    del past[key]
            counts[key] += 1
            if counts[key] < k:
                young[key] = None
            else:
                looked_back[key] = first = kth[now]
                heappush(heap, first)
        return hits

    return Pass(resident, use)
