"""The pass of workload_aware."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence
from heapq import heapify, heappop, heappush, heapreplace

from policies.eviction.reuse import Chance, Uses, chance_of, likelihood
from policies.eviction.workload_aware import RENEWED, WorkloadAware
from sim.cache.passes.facts import Facts, Pass

Head = tuple[float, int, int, float]
"""Probability of reuse of a kind's first block, minus its depth class, the kind, the block's last use, s."""


def workload_aware(policy: WorkloadAware, capacity: int, facts: Facts) -> Pass:
    """`policies.eviction.workload_aware`. Kinds are numbered: (class of the turn + 1) x depth classes + depth class."""
    resident, room = bytearray(facts.distinct), capacity
    remembered, window = policy.remembered, policy.window
    depths = [(start.bit_length() + 1) // 2 for start in facts.starts]
    levels = max(depths, default=0) + 1
    count = (policy.turns + 1) * levels
    requests = zip(facts.arrivals, [-1] * len(facts.arrivals) if facts.turns is None else facts.turns, strict=True)
    kinds, used_at = [0] * facts.distinct, [0.0] * facts.distinct
    queues: list[OrderedDict[int, None]] = [OrderedDict() for _ in range(count)]
    ghosts: OrderedDict[int, None] = OrderedDict()
    counts, everything = [Uses() for _ in range(count)], Uses()
    all_uses = all_followed = all_seconds = 0.0  # what `everything` will hold when it is next asked
    chances: list[tuple[Chance, ...]] = [() for _ in range(count)]
    heads: list[Head] = []
    listed: set[int] = set()
    seen: set[int] = set()
    ages = leavers = 0.0
    ranked, counted, due, halving = math.nan, 0, 0, window

    def draw() -> None:
        everything.uses, everything.followed, everything.seconds = all_uses, all_followed, all_seconds
        life = policy.interval
        if life is None:
            life = ages / leavers if leavers else math.inf
        for kind in sorted(seen, key=lambda kind: -(kind % levels)):
            deeper = next((k for k in range(kind + 1, kind - kind % levels + levels) if k in seen), None)
            behind = () if deeper is None else chances[deeper]
            chances[kind] = (*behind, chance_of(counts[kind], everything, life))

    def rank(now: float) -> None:
        heads.clear()
        listed.clear()
        for kind in seen:
            for key in queues[kind]:
                used = used_at[key]
                heads.append((likelihood(chances[kind], now - used), -(kind % levels), kind, used))
                listed.add(kind)
                break
        heapify(heads)

    def settle(now: float) -> int:
        """Bring the heads up to date until the kind on top is the one that gives up a block; that kind."""
        while True:
            _, depth, kind, last = heads[0]
            for key in queues[kind]:
                used = used_at[key]
                if used == last:
                    return kind
                heapreplace(heads, (likelihood(chances[kind], now - used), depth, kind, used))
                break
            else:
                heappop(heads)
                listed.discard(kind)

    def use(keys: Sequence[int]) -> int:
        nonlocal room, ages, leavers, ranked, counted, due, halving, all_uses, all_followed, all_seconds
        now, turn = next(requests)
        base = (min(turn, policy.turns - 1) + 1) * levels
        hits = 0
        for key in keys:
            kind = base + depths[key]
            queue = queues[kind]
            if resident[key]:
                hits += 1
                own = counts[kinds[key]]
                if kinds[key] == kind:
                    queue.move_to_end(key)
                else:
                    del queues[kinds[key]][key]
            else:
                if room:
                    room -= 1
                else:
                    if counted >= due:
                        draw()
                        due = counted + RENEWED
                        ranked = math.nan
                    if now != ranked:
                        rank(now)
                        ranked = now
                    _, _, top, last = heads[0]
                    victim = next(iter(queues[top]), -1)
                    if victim < 0 or used_at[victim] != last:
                        top = settle(now)
                        victim = next(iter(queues[top]))
                        last = used_at[victim]
                    del queues[top][victim]
                    resident[victim] = 0
                    ages += now - last
                    leavers += 1
                    if remembered:
                        ghosts[victim] = None
                        if len(ghosts) > remembered:
                            ghosts.popitem(last=False)
                resident[key] = 1
                own = None
                if key in ghosts:
                    del ghosts[key]
                    own = counts[kinds[key]]
            if own is not None:
                after = now - used_at[key]
                own.followed += 1
                own.seconds += after
                all_followed += 1
                all_seconds += after
            counts[kind].uses += 1
            all_uses += 1
            counted += 1
            if counted > halving:
                halving = counted + window
                ages, leavers = ages / 2, leavers / 2
                all_uses, all_followed, all_seconds = all_uses / 2, all_followed / 2, all_seconds / 2
                for each in counts:
                    each.halve()
            if not queue and kind not in listed:
                if kind not in seen:
                    seen.add(kind)
                    due = counted
                elif chances[kind]:
                    heappush(heads, (likelihood(chances[kind], 0.0), -(kind % levels), kind, math.nan))
                    listed.add(kind)
            queue[key] = None
            kinds[key], used_at[key] = kind, now
        return hits

    return Pass(resident, use)
