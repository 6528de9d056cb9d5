"""Does a prefetch policy keep its contract?"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from policies.base import STOP_RULES, Fetch, PrefetchPolicy, Trigger
from policies.checks.error import CAPACITY, TOKENS, Watch
from policies.checks.eviction import Timeline

HIERARCHIES = (("hbm", "dram", "ssd"), ("hbm", "dram"))


@dataclass(frozen=True)
class Asked:
    """A request (policies.base.RequestView)."""

    index: int
    keys: Sequence[int]
    input_tokens: int
    turn: int
    session: int
    think_s: float | None
    carried: bool = False


class Tiers:
    """Tiers whose content changes at random (policies.base.CacheView)."""

    def __init__(self, names: Sequence[str], time: Timeline, source: random.Random) -> None:
        self.tiers = tuple(names)
        self._levels = {name: level for level, name in enumerate(names)}
        self.block_bytes = self.block_tokens = TOKENS
        self._time = time
        self._random = source
        self._held: dict[str, set[int]] = {name: set() for name in names}
        self.waiting: list[Asked] = []

    @property
    def now(self) -> float:
        return self._time.now()

    def capacity(self, tier: str) -> int:
        return CAPACITY * TOKENS << 2 * self._levels[tier]

    def free(self, tier: str) -> int:
        return self.capacity(tier) - len(self._held[tier]) * TOKENS

    def holds(self, key: int, tier: str) -> bool:
        return key in self._held[tier]

    def bring(self, keys: Sequence[int], tier: str) -> None:
        """The tier takes blocks in, as far as it has room, and loses some of what it has."""
        held = self._held[tier]
        for key in sorted(held):
            if self._random.random() < 0.1:
                held.discard(key)
        for key in keys:
            if self.free(tier) >= TOKENS:
                held.add(key)


def check_prefetch(factory: Callable[[], PrefetchPolicy], *, seed: int, operations: int) -> None:
    """Drive a prefetch policy through conversations that arrive and finish, over three tiers and over two.

    Checked: `listens` and `stop` name what there is, `timeout_s` is a time; plans are made of fetches into tiers that
    exist, of keys that are not private, no key twice into the same tier, after a time that is finite and not negative;
    `reach` names a tier or is None; nothing is raised; two policies built alike agree. Raises ContractError.
    """
    for names in HIERARCHIES:
        _check(factory, names, seed, operations)


def _check(factory: Callable[[], PrefetchPolicy], names: Sequence[str], seed: int, operations: int) -> None:
    source, time = random.Random(seed), Timeline(seed)
    first, twin = factory(), factory()
    watch = Watch("prefetch", first, twin)
    _check_settings(watch, first)
    cache = Tiers(names, time, source)
    reach = watch.guarded("reach", first.reach, cache, about=f"tiers {', '.join(names)}")
    if reach is not None and reach not in names:
        watch.fail(f"reach() names a tier that does not exist, expected one of {', '.join(names)}", repr(reach))
    prompts: dict[int, list[int]] = {}
    turns: dict[int, int] = {}
    running: list[Asked] = []
    for operation in range(operations):
        watch.operation = operation
        time.step()
        if running and source.random() < 0.5:
            trigger, request = Trigger.FINISHED, running.pop(source.randrange(len(running)))
            for name in names:
                cache.bring(request.keys, name)
        elif cache.waiting and source.random() < 0.5:
            trigger, request = Trigger.ADMITTED, cache.waiting.pop(0)
        else:
            trigger, request = Trigger.ARRIVED, _arrive(source, operation, prompts, turns)
            running.append(request)
            cache.waiting.append(request)
        if trigger in first.listens:
            about = f"{trigger.name} of request {request.index}"
            plan = watch.plans(Fetch, (trigger, request, cache), blocks=(), about=about)
            _check_fetches(watch, plan, names)
            for fetch in plan:
                cache.bring(fetch.keys, fetch.into)


def _arrive(source: random.Random, index: int, prompts: dict[int, list[int]], turns: dict[int, int]) -> Asked:
    """A request of one of a few conversations, whose prompts grow, or of none."""
    session = source.randint(-1, 9)
    if session < 0:
        keys = [source.randint(1, 20), *(1_000 + 8 * index + n for n in range(source.randint(0, 3)))]
        return Asked(index, keys, TOKENS * len(keys), -1, -1, None)
    if len(prompts.get(session, ())) > 12:
        del prompts[session], turns[session]
    keys = prompts.setdefault(session, [source.randint(1, 3)])
    keys.extend(100_000 + 8 * index + n for n in range(source.randint(0, 3)))
    turns[session] = turns.get(session, -1) + 1
    think_s = source.expovariate(0.1) if source.random() < 0.8 else None
    return Asked(index, tuple(keys), TOKENS * len(keys), turns[session], session, think_s, source.random() < 0.5)


def _check_settings(watch: Watch, policy: PrefetchPolicy) -> None:
    if not all(isinstance(trigger, Trigger) for trigger in policy.listens):
        watch.fail("listens names something that is not a Trigger", repr(policy.listens))
    if policy.stop not in STOP_RULES:
        watch.fail(f"stop is not one of {', '.join(STOP_RULES)}", repr(policy.stop))
    if not _time(policy.timeout_s) or (policy.stop == "timeout" and not policy.timeout_s):
        watch.fail("timeout_s is not a time in seconds", repr(policy.timeout_s))


def _check_fetches(watch: Watch, plan: list[Fetch], names: Sequence[str]) -> None:
    seen: set[tuple[int, str]] = set()
    for keys, into, after_s, patience_s in plan:
        if patience_s is not None and not _time(patience_s):
            watch.fail("plan() says to wait for something that is not a time in seconds", repr(patience_s))
        if into not in names:
            watch.fail(f"plan() names a tier that does not exist, expected one of {', '.join(names)}", repr(into))
        if not _time(after_s):
            watch.fail("plan() names a start that is not a time from now on, in seconds", repr(after_s))
        if not isinstance(keys, Sequence) or not all(type(key) is int for key in keys):
            watch.fail("plan() fetches something that is not a sequence of keys", repr(keys))
        for key in keys:
            if key < 0:
                watch.fail("plan() fetches a private block", key)
            if (key, into) in seen:
                watch.fail("plan() fetches the same block twice", key)
            seen.add((key, into))


def _time(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < math.inf
