"""Passes of the policies that keep blocks in FIFO queues: fifo, clock, sieve, s3fifo, 2q."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Sequence

from policies.eviction.clock import Clock
from policies.eviction.fifo import FIFO
from policies.eviction.s3fifo import MAX_HITS, S3FIFO
from policies.eviction.sieve import Sieve
from policies.eviction.two_queue import TwoQueue
from sim.cache.passes.facts import Facts, Pass


def fifo(_policy: FIFO, capacity: int, facts: Facts) -> Pass:
    """`policies.eviction.fifo`."""
    resident, room = bytearray(facts.distinct), capacity
    queue: deque[int] = deque()

    def use(keys: Sequence[int]) -> int:
        nonlocal room
        hits = 0
        for key in keys:
            if resident[key]:
                hits += 1
                continue
            if room:
                room -= 1
            else:
                resident[queue.popleft()] = 0
            resident[key] = 1
            queue.append(key)
        return hits

    return Pass(resident, use)


def clock(policy: Clock, capacity: int, facts: Facts) -> Pass:
    """`policies.eviction.clock`."""
    resident, room, most = bytearray(facts.distinct), capacity, policy.max_hits
    counters = [0] * facts.distinct
    ring: deque[int] = deque()

    def use(keys: Sequence[int]) -> int:
        nonlocal room
        hits = 0
        for key in keys:
            if resident[key]:
                hits += 1
                if counters[key] < most:
                    counters[key] += 1
                continue
            if room:
                room -= 1
            else:
                victim = ring.popleft()
                while counters[victim]:
                    counters[victim] -= 1
                    ring.append(victim)
                    victim = ring.popleft()
                resident[victim] = 0
            resident[key] = 1
            ring.append(key)
        return hits

    return Pass(resident, use)


def sieve(_policy: Sieve, capacity: int, facts: Facts) -> Pass:
    """`policies.eviction.sieve`. A ring of keys in two lists; `end` closes it: newer[end] is the oldest block."""
    resident, room, end = bytearray(facts.distinct), capacity, facts.distinct
    marks = bytearray(facts.distinct)
    newer, older = [end] * (end + 1), [end] * (end + 1)
    hand = end

    def use(keys: Sequence[int]) -> int:
        nonlocal room, hand
        hits = 0
        for key in keys:
            if resident[key]:
                hits += 1
                marks[key] = 1
                continue
            if room:
                room -= 1
            else:
                victim = newer[end] if hand == end else hand
                while marks[victim]:
                    marks[victim] = 0
                    victim = newer[victim]
                    if victim == end:
                        victim = newer[end]
                hand, before = newer[victim], older[victim]
                newer[before], older[hand] = hand, before
                resident[victim] = 0
            resident[key] = 1
            newest = older[end]
            newer[newest] = older[end] = key
            older[key], newer[key] = newest, end
        return hits

    return Pass(resident, use)


def s3fifo(policy: S3FIFO, capacity: int, facts: Facts) -> Pass:
    """`policies.eviction.s3fifo`."""
    resident, room = bytearray(facts.distinct), capacity
    counters = bytearray(facts.distinct)
    small_share, main_share, remembered = policy.small_share, policy.main_share, policy.ghost_capacity
    threshold, filling = policy.threshold, True
    small: deque[int] = deque()
    main: deque[int] = deque()
    ghost: OrderedDict[int, None] = OrderedDict()

    def use(keys: Sequence[int]) -> int:
        nonlocal room, filling
        hits = 0
        for key in keys:
            if resident[key]:
                hits += 1
                if counters[key] < MAX_HITS:
                    counters[key] += 1
                continue
            returns = key in ghost
            if returns:
                del ghost[key]
            if room:
                room -= 1
            else:
                filling = False
                victim = -1
                if len(main) <= main_share:
                    while small:
                        victim = small.popleft()
                        if counters[victim] < threshold:
                            break
                        counters[victim] = 0
                        main.append(victim)
                        victim = -1
                if victim < 0:
                    victim = main.popleft()
                    while counters[victim]:
                        counters[victim] -= 1
                        main.append(victim)
                        victim = main.popleft()
                elif remembered:
                    if len(ghost) >= remembered:
                        ghost.popitem(last=False)
                    ghost[victim] = None
                resident[victim] = 0
            resident[key] = 1
            counters[key] = 0
            (main if returns or (filling and len(small) >= small_share) else small).append(key)
        return hits

    return Pass(resident, use)


def two_queue(policy: TwoQueue, capacity: int, facts: Facts) -> Pass:
    """`policies.eviction.two_queue`. `resident` is 2 in the LRU list."""
    resident, room = bytearray(facts.distinct), capacity
    share, remembered = policy.in_share, policy.out_capacity
    arrived: deque[int] = deque()
    main: OrderedDict[int, None] = OrderedDict()
    ghost: OrderedDict[int, None] = OrderedDict()

    def use(keys: Sequence[int]) -> int:
        nonlocal room
        hits = 0
        for key in keys:
            if resident[key]:
                hits += 1
                if resident[key] == 2:
                    main.move_to_end(key)
                continue
            returns = key in ghost
            if returns:
                del ghost[key]
            if room:
                room -= 1
            elif arrived and (len(arrived) > share or not main):
                victim = arrived.popleft()
                resident[victim] = 0
                if remembered:
                    if len(ghost) >= remembered:
                        ghost.popitem(last=False)
                    ghost[victim] = None
            else:
                resident[main.popitem(last=False)[0]] = 0
            if returns:
                resident[key] = 2
                main[key] = None
            else:
                resident[key] = 1
                arrived.append(key)
        return hits

    return Pass(resident, use)
