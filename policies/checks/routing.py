"""Does a router keep its contract?"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

from policies.checks.error import TOKENS, Watch
from policies.checks.prefetch import Asked
from policies.routing.base import Router, replica_of

MOST_REPLICAS = 5


@dataclass
class Seen:
    """A replica (policies.routing.base.ReplicaView) that has `held` tokens of every prompt in each of its two tiers."""

    index: int
    running: int
    waiting: int
    prompt_tokens: int
    active_tokens: int
    held: tuple[int, int]

    def cached_tokens(self, keys: Sequence[int], level: int | None = None) -> int:
        found = self.held[0] if level == 0 else sum(self.held)
        return min(found, TOKENS * len(keys))


def check_router(factory: Callable[[], Router], *, seed: int, operations: int) -> None:
    """Drive a router through requests to one replica and more, whose load and caches change at random.

    Checked: `choose` returns the index of one of the replicas, changes nothing and raises nothing; two routers built
    alike agree. Raises ContractError.
    """
    for count in range(1, MOST_REPLICAS + 1):
        _check(factory, count, seed, -(-operations // MOST_REPLICAS))


def _check(factory: Callable[[], Router], count: int, seed: int, operations: int) -> None:
    source = random.Random(seed)
    first, twin = factory(), factory()
    watch = Watch("routing", first, twin)
    for operation in range(operations):
        watch.operation = operation
        request = a_request(source, operation)
        replicas = [a_replica(source, index) for index in range(count)]
        before = asdict(request), [asdict(replica) for replica in replicas]
        about = f"request {operation}, {count} replicas"
        chosen = [watch.guarded("choose", router.choose, request, replicas, about=about) for router in (first, twin)]
        if (asdict(request), [asdict(replica) for replica in replicas]) != before:
            watch.fail("choose() changed what it was shown", about)
        for index in chosen:
            if replica_of(index, count) is None:
                watch.fail(f"choose() did not return the index of a replica, 0 to {count - 1}", repr(index))
        if chosen[0] != chosen[1]:
            watch.fail("two routers built alike chose different replicas", about)


def a_request(source: random.Random, index: int) -> Asked:
    """A request of one of a few conversations, or of none; its prompt may have no block that anyone shares."""
    session = source.randint(-1, 9)
    keys = tuple(1_000 * session + n for n in range(source.randint(0, 12))) if session >= 0 else ()
    tokens = TOKENS * len(keys) + source.randint(1, TOKENS)
    return Asked(index, keys, tokens, -1 if session < 0 else source.randint(0, 5), session, None)


def a_replica(source: random.Random, index: int) -> Seen:
    """A replica, idle as often as not."""
    if source.random() < 0.5:
        return Seen(index, 0, 0, 0, 0, (0, 0))
    running, waiting = source.randint(0, 9), source.randint(0, 3)
    held = (TOKENS * source.randint(0, 12), TOKENS * source.randint(0, 12))
    return Seen(index, running, waiting, 100 * (running + waiting), 500 * running, held)
