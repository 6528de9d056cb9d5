"""Does a scheduling policy keep its contract?"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import asdict, dataclass, field

from policies.checks.error import Watch
from policies.scheduling.base import Scheduler, WaitingRequest, place_of

MOST = 12
"""Requests that wait, or run, in the checks."""
CAPACITY = 4096
"""Tokens of KV that fit."""


@dataclass
class Shown:
    """A request, waiting or running (policies.scheduling.base)."""

    index: int
    arrival_s: float
    priority: int
    session: int
    turn: int
    input_tokens: int
    known_tokens: int
    predicted_tokens: int
    preemptions: int
    tokens: int
    cached: int

    def cached_tokens(self) -> int:
        return self.cached


@dataclass
class Queue:
    """A replica (policies.scheduling.base.QueueView) with one token in a block."""

    now: float
    waiting: list[Shown]
    running: list[Shown]
    capacity_tokens: int = CAPACITY
    free_tokens: int = field(init=False)

    def __post_init__(self) -> None:
        self.free_tokens = max(0, self.capacity_tokens - sum(r.tokens for r in self.running))

    def peak_tokens(self, request: WaitingRequest) -> int:
        rows = [(r.tokens, r.predicted_tokens) for r in self.running]
        rows.append((request.known_tokens, request.predicted_tokens))
        return max(sum(tokens + end for tokens, left in rows if left >= end) for _, end in rows)


def check_scheduler(factory: Callable[[], Scheduler], *, seed: int, operations: int) -> None:
    """Drive a scheduler through queues of one request and more, beside running ones and none.

    Checked: `rank` returns a number, `choose` the place of a waiting request, or None only while a request runs; they
    change nothing and raise nothing; two schedulers built alike agree. Raises ContractError.
    """
    source = random.Random(seed)
    first, twin = factory(), factory()
    watch = Watch("scheduling", first, twin)
    if not 0 <= first.error < math.inf:
        watch.fail("error is not a number >= 0", first.error)
    for operation in range(operations):
        watch.operation = operation
        queue = _queue(source, operation)
        about = f"{len(queue.waiting)} waiting, {len(queue.running)} running"
        before = asdict(queue)
        ranks: dict[int, float] = {}
        for request in queue.waiting:
            found = [watch.guarded("rank", s.rank, request, about=f"request {request.index}") for s in (first, twin)]
            if not all(isinstance(rank, int | float) and not math.isnan(rank) for rank in found):
                watch.fail("rank() did not return a number", found[0])
            if found[0] != found[1]:
                watch.fail("two schedulers built alike ranked a request differently", f"request {request.index}")
            ranks[request.index] = found[0]
        if asdict(queue) != before:
            watch.fail("rank() changed what it was shown", about)
        queue.waiting.sort(key=lambda request: (ranks[request.index], request.index))
        before = asdict(queue)
        chosen = [watch.guarded("choose", s.choose, queue, about=about) for s in (first, twin)]
        if asdict(queue) != before:
            watch.fail("choose() changed what it was shown", about)
        for place in chosen:
            if place is None:
                if not queue.running:
                    watch.fail("choose() admitted nobody while nothing runs", about)
            elif place_of(place, len(queue.waiting)) is None:
                watch.fail("choose() did not return a place in queue.waiting, or None", repr(place))
        if chosen[0] != chosen[1]:
            watch.fail("two schedulers built alike chose differently", about)


def _queue(source: random.Random, operation: int) -> Queue:
    now = float(operation)
    waiting = [_request(source, 100 * operation + i, now) for i in range(source.randint(1, MOST))]
    running = [_request(source, 100 * operation + 50 + i, now) for i in range(source.randint(0, MOST))]
    return Queue(now, waiting, running if source.random() < 0.75 else [])


def _request(source: random.Random, index: int, now: float) -> Shown:
    tokens, made = source.randint(1, CAPACITY // 2), source.choice([0, 0, source.randint(1, 50)])
    return Shown(
        index,
        now - source.random() * 10,
        source.randint(-1, 2),
        source.randint(-1, 3),
        source.randint(-1, 3),
        tokens,
        tokens + made,
        source.randint(1, 400),
        int(made > 0),
        tokens + made,
        source.randint(0, tokens - 1),
    )
