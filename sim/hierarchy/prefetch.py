"""A prefetch policy at work for one replica: what it may see, and the fetches that it plans."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf

from hw_profiles.errors import InputError
from policies.base import STOP_RULES, Fetch, PrefetchPolicy, Trigger
from sim.clock import Clock
from sim.engine.sequence import Sequence as Seq
from sim.hierarchy.batches import BATCH_PAGES, Batches
from sim.hierarchy.cache import ReplicaCache


class CacheView:
    """What a prefetch policy may see of a replica's tiers (policies.base.CacheView).

    Tiers of no size are not among `tiers`; asked for by name, they hold nothing.
    """

    def __init__(self, cache: ReplicaCache, clock: Clock, waiting: Sequence[Seq] = ()) -> None:
        self.waiting = waiting
        self._tiers = {tier.name: tier for tier in (cache.hbm, *(place.tier for place in cache.lower))}
        self._clock = clock
        self._empty = frozenset(cache.empty)
        self.tiers: Sequence[str] = tuple(self._tiers)
        self.block_tokens = cache.hash_tokens or cache.block_tokens
        self.block_bytes = self.block_tokens * cache.token_bytes

    @property
    def now(self) -> float:
        return self._clock.now

    def capacity(self, tier: str) -> int:
        return 0 if tier in self._empty else self._tiers[tier].capacity

    def free(self, tier: str) -> int:
        return 0 if tier in self._empty else self._tiers[tier].free

    def holds(self, key: int, tier: str) -> bool:
        return tier not in self._empty and self._tiers[tier].holds(key)


class Prefetcher:
    """Asks the policy when requests arrive and finish, and starts its fetches.

    woken          called when a request need not wait for its fetch any more
    waiting        the queue, in the order in which the scheduler looks at it
    between_steps  calls back before the next step is decided: what takes HBM must not take it from steps under way
    """

    def __init__(
        self,
        policy: PrefetchPolicy,
        cache: ReplicaCache,
        clock: Clock,
        woken: Callable[[], None],
        between_steps: Callable[[Callable[[], None]], None],
        waiting: Sequence[Seq] = (),
    ) -> None:
        self._between_steps = between_steps
        self._policy = policy
        self._cache = cache
        self._clock = clock
        self._woken = woken
        self._view = CacheView(cache, clock, waiting)
        self._waits = policy.stop in ("wait_complete", "timeout")
        self._arrived = Trigger.ARRIVED in policy.listens
        self._finished = Trigger.FINISHED in policy.listens
        self._admitted = Trigger.ADMITTED in policy.listens
        self._ends = policy.stop in ("best_effort", "timeout")
        self.hears_admitted = self._admitted or self._ends
        self._under_way: dict[int, list[Batches]] = {}
        """Fetches of the requests that wait, which end when their turn comes."""
        self._joins = policy.stop == "join"
        reach = policy.reach(self._view)
        if reach is not None and reach not in self._view.tiers:
            raise self._broken(f"a reach up to {reach!r}, expected one of {', '.join(self._view.tiers)}")
        cache.reach(None if reach is None else self._view.tiers.index(reach))
        if policy.stop not in STOP_RULES:
            raise self._broken(f"stop is {policy.stop!r}, expected one of {', '.join(STOP_RULES)}")

    def arrived(self, seq: Seq) -> None:
        """The request is in the queue: what the policy fetches for it, the scheduler may have to wait for."""
        if not self._arrived:
            return
        patience_s = 0.0
        for fetch in self._plan(Trigger.ARRIVED, seq):
            into = self._view.tiers.index(fetch.into)
            if self._joins or set(seq.keys).isdisjoint(fetch.keys):  # for others: no business of its own
                self._start(fetch, into, lambda: None)
                continue
            seq.fetch_level = into if seq.fetch_level is None else max(into, seq.fetch_level)
            if self._waits:
                seq.fetching += 1
            batches = None
            if self._ends:
                batches = Batches(BATCH_PAGES * self._cache.block_tokens)
                self._under_way.setdefault(seq.index, []).append(batches)
            own = self._policy.timeout_s if fetch.patience_s is None else fetch.patience_s
            patience_s = max(patience_s, own)
            self._start(fetch, into, lambda: self._complete(seq), batches)
        if seq.fetching and self._policy.stop == "timeout":
            self._clock.at(self._clock.now + patience_s, lambda: self._give_up(seq))

    def admitted(self, seq: Seq) -> None:
        """The request has left the queue; what that leads to comes after the step that is being decided."""
        for batches in self._under_way.pop(seq.index, ()):
            batches.end()
        if self._admitted:
            self._clock.at(self._clock.now, lambda: self._fetch(Trigger.ADMITTED, seq))

    def finished(self, seq: Seq) -> None:
        """The request has its last token."""
        if self._finished:
            self._fetch(Trigger.FINISHED, seq)

    def _fetch(self, trigger: Trigger, seq: Seq) -> None:
        for fetch in self._plan(trigger, seq):
            self._start(fetch, self._view.tiers.index(fetch.into), lambda: None)

    def _start(self, fetch: Fetch, into: int, done: Callable[[], None], batches: Batches | None = None) -> None:
        def fetch_now() -> None:
            self._cache.mover.fetch(fetch.keys, into, done, batches or Batches())

        def begin() -> None:
            if into:
                fetch_now()
            else:
                self._between_steps(fetch_now)

        if fetch.after_s > 0:
            self._clock.at(self._clock.now + fetch.after_s, begin)
        else:
            begin()

    def _complete(self, seq: Seq) -> None:
        if seq.fetching:
            seq.fetching -= 1
            if not seq.fetching:
                seq.fetched_s = self._clock.now
                self._woken()

    def _give_up(self, seq: Seq) -> None:
        if seq.fetching:
            seq.fetching = 0
            seq.fetched_s = self._clock.now
            self._woken()

    def _plan(self, trigger: Trigger, seq: Seq) -> list[Fetch]:
        plan = list(self._policy.plan(trigger, seq, self._view))
        for fetch in plan:
            if not isinstance(fetch, Fetch):
                raise self._broken(f"plan() must return fetches, not {fetch!r}")
            if fetch.into not in self._view.tiers and fetch.into not in self._cache.empty:
                raise self._broken(f"a fetch into {fetch.into!r}, expected one of {', '.join(self._view.tiers)}")
            if not fetch.after_s >= 0:
                raise self._broken(f"a fetch after {fetch.after_s} s")
            if fetch.patience_s is not None and not 0 <= fetch.patience_s < inf:
                raise self._broken(f"a fetch that is waited for {fetch.patience_s} s")
        return [fetch for fetch in plan if fetch.into not in self._cache.empty]

    def _broken(self, what: str) -> InputError:
        return InputError(f"prefetch policy {type(self._policy).__name__} broke its contract: {what}")
