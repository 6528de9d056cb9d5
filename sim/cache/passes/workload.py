"""The pass of workload_aware."""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from collections.abc import Sequence
from heapq import heapify, heappop, heappush, heapreplace

from policies.eviction.reuse import Chance, Uses, chance_of, likelihood, overall
from policies.eviction.workload_aware import RENEWED, WorkloadAware
from sim.cache.passes.facts import Facts, Pass

Head = tuple[float, int, int, float]
"""Probability of reuse of a kind's first block, minus its depth class, the kind, the block's last use, s."""


def workload_aware(policy: WorkloadAware, capacity: int, facts: Facts) -> Pass:
    """`policies.eviction.workload_aware`. Kinds are numbered: (class of the turn + 1) x depth classes + depth class.

    The queue of a kind holds accesses by their number. One that is not its block's last any more is passed over when it
    comes up: `last[key]` says which is, and stays for what has left.

    A head is ranked in full only when it comes up: until then the probability by its own kind alone stands for the
    greatest of all, which is no less.
    """
    resident, room = bytearray(facts.distinct), capacity
    remembered, window, lasting = policy.remembered, policy.window, policy.interval
    depths, times, order, levels = facts.depths, facts.times, facts.order, facts.levels
    count = (policy.turns + 1) * levels
    turns = iter([-1] * len(facts.requests) if facts.turns is None else facts.turns)
    last, kinds = [-1] * facts.distinct, [0] * facts.distinct
    queues: list[deque[int]] = [deque() for _ in range(count)]
    ghosts: OrderedDict[int, None] = OrderedDict()
    counts, everything = [Uses() for _ in range(count)], Uses()
    all_uses = all_followed = all_seconds = 0.0  # what `everything` will hold when it is next asked,
    counted = -1  # and the uses after this access
    chances: list[tuple[Chance, ...]] = [() for _ in range(count)]
    heads: list[Head] = []
    listed: set[int] = set()
    seen: set[int] = set()
    ages = leavers = 0.0
    ranked, at, due, halving = math.nan, -1, 0, math.floor(window - 1)

    def draw() -> None:
        """New probabilities for the kinds seen, deeper ones of a turn first."""
        everything.uses, everything.followed, everything.seconds = all_uses + at - counted, all_followed, all_seconds
        life = lasting
        if life is None:
            life = ages / leavers if leavers else math.inf
        p_all, mean_all = overall(everything, life)
        turn = -1
        behind: tuple[Chance, ...] = ()
        for kind in sorted(seen, reverse=True):
            if kind // levels != turn:
                turn, behind = kind // levels, ()
            behind = (chance_of(counts[kind], p_all, mean_all, life), *behind)
            chances[kind] = behind

    def first(kind: int) -> int:
        """The last use of the block of a kind that was used longest ago; -1 if there is none."""
        queue = queues[kind]
        while queue:
            used = queue[0]
            if last[order[used]] == used:
                return used
            queue.popleft()
        return -1

    def rank(now: float) -> None:
        """List the first block of every kind with a probability that it has at least."""
        heads.clear()
        listed.clear()
        for kind in seen:
            used = first(kind)
            if used >= 0:
                heads.append((likelihood(chances[kind][:1], now - times[used]), -(kind % levels), kind, math.nan))
                listed.add(kind)
        heapify(heads)

    def settle(now: float) -> int:
        """Bring the heads up to date until the kind on top is the one that gives up a block; that one's last use."""
        while True:
            _, depth, kind, ranked_at = heads[0]
            used = first(kind)
            if used < 0:
                heappop(heads)
                listed.discard(kind)
            elif times[used] == ranked_at:
                return used
            else:
                heapreplace(heads, (likelihood(chances[kind], now - times[used]), depth, kind, times[used]))

    def use(keys: Sequence[int]) -> int:
        nonlocal room, at, ages, leavers, ranked, due, halving, all_uses, all_followed, all_seconds, counted
        base = (min(next(turns), policy.turns - 1) + 1) * levels
        now = times[at + 1] if keys else 0.0
        hits = 0
        current = due if now == ranked else -1  # the access from which on the heads are out of date
        for key in keys:
            kind = base + depths[key]
            before = last[key]
            if resident[key]:
                hits += 1
            else:
                if room:
                    room -= 1
                else:
                    if at >= current:
                        if at >= due:
                            draw()
                            due = at + RENEWED
                        rank(now)
                        ranked, current = now, due
                    _, _, top, ranked_at = heads[0]
                    queue = queues[top]
                    used = queue[0] if queue else -1
                    victim = order[used]
                    if used < 0 or times[used] != ranked_at or last[victim] != used:
                        used = settle(now)
                        victim = order[used]
                        queue = queues[heads[0][2]]
                    queue.popleft()
                    resident[victim] = 0
                    ages += now - times[used]
                    leavers += 1
                    if remembered:
                        ghosts[victim] = None
                        if len(ghosts) > remembered:
                            ghosts.popitem(last=False)
                resident[key] = 1
                if before >= 0:
                    if key in ghosts:
                        del ghosts[key]
                    else:
                        before = -1
            at += 1
            if before >= 0:
                own, after = counts[kinds[key]], now - times[before]
                own.followed += 1
                own.seconds += after
                all_followed += 1
                all_seconds += after
            counts[kind].uses += 1
            if at > halving:
                halving = math.floor(at + window)
                ages, leavers = ages / 2, leavers / 2
                all_uses, all_followed, all_seconds = (all_uses + at - counted) / 2, all_followed / 2, all_seconds / 2
                counted = at
                for each in counts:
                    each.halve()
            queue = queues[kind]
            if not queue and kind not in listed:
                if kind not in seen:
                    seen.add(kind)
                    due = current = at
                elif chances[kind]:
                    heappush(heads, (likelihood(chances[kind], 0.0), -(kind % levels), kind, math.nan))
                    listed.add(kind)
            queue.append(at)
            last[key] = at
            kinds[key] = kind
        return hits

    return Pass(resident, use)
