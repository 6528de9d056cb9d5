"""What a router knows that hears of replicas only now and then.

Every `period` seconds, at whole multiples of it, all replicas report at once: their loads, and what came into their
tiers and left them until then. Between two reports a router sees the last one, so what it knows is half a period old
in the mean (the bulletin board of Mitzenmacher, "How Useful Is Old Information?", IEEE TPDS 2000; vLLM's data-parallel
coordinator reports every 100 ms). What the router itself has sent since is added to the loads, if it wants so.

Exact: loads, and which blocks tiers had at the report. Approximate: of a known block that has grown since, the tokens
that it has now count, less than one block of the trace per prompt; memory that became pinned or free while nothing was
under way is reported with the next request.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

from policies.base import Block
from sim.clock import Clock
from sim.engine.replica import Replica
from sim.engine.sequence import Sequence as Seq
from sim.hierarchy.tier import Tier


class Exact(Protocol):
    """The view of a replica as it is now (sim.routing.View)."""

    @property
    def index(self) -> int: ...
    @property
    def running(self) -> int: ...
    @property
    def waiting(self) -> int: ...
    @property
    def prompt_tokens(self) -> int: ...
    @property
    def active_tokens(self) -> int: ...


class Journal:
    """The blocks of one tier as of the last report, and what came and went since."""

    def __init__(self, tier: Tier, clock: Clock) -> None:
        self.known: dict[int, Block] = dict(tier.blocks)
        self.span = tier.span
        self._since: deque[tuple[float, Block, bool]] = deque()
        self._clock = clock
        self._listen(tier)

    def apply(self, upto: float) -> None:
        """A report that tells of everything until `upto`, s."""
        since, known = self._since, self.known
        while since and since[0][0] <= upto:
            _, block, came = since.popleft()
            if came:
                known[block.key] = block
            elif known.get(block.key) is block:
                del known[block.key]

    def _listen(self, tier: Tier) -> None:
        """Hear of every block that the tier tells its policy of: hooks are replaced on the object itself."""
        policy: Any = tier.policy
        for name, came in (("insert", True), ("remove", False)):
            setattr(policy, name, self._one(getattr(policy, name), came=came))
            setattr(policy, f"{name}_all", self._several(getattr(policy, f"{name}_all"), came=came))

    def _one(self, hook: Callable[[Block], None], *, came: bool) -> Callable[[Block], None]:
        def heard(block: Block) -> None:
            self._since.append((self._clock.now, block, came))
            hook(block)

        return heard

    def _several(self, hook: Callable[[Iterable[Block]], None], *, came: bool) -> Callable[[Iterable[Block]], None]:
        def heard(blocks: Iterable[Block]) -> None:
            told = list(blocks)
            now = self._clock.now
            # A policy that hears of them one by one is told through the other hook, too: twice is as good as once.
            self._since.extend((now, block, came) for block in told)
            hook(told)

        return heard


class StaleView:
    """A replica as of its last report (policies.routing.base.ReplicaView)."""

    def __init__(self, view: Exact, replica: Replica, journals: Sequence[Journal]) -> None:
        self.index = view.index
        self.running = self.waiting = self.prompt_tokens = self.active_tokens = 0
        self._view = view
        self._replica = replica
        self._journals = journals
        self._hash_tokens = replica.cache.hash_tokens
        self.report()

    @property
    def busy(self) -> bool:
        """True if a request was under way at the last report."""
        return bool(self.running or self.waiting)

    def report(self) -> None:
        """Take the loads of now."""
        view = self._view
        self.active_tokens = view.active_tokens  # accounts for the steps begun so far: tiers are up to date then
        self.running, self.waiting, self.prompt_tokens = view.running, view.waiting, view.prompt_tokens

    def sent(self, requests: int, tokens: int) -> None:
        """So many requests are on their way there since the last report, with so many prompt tokens."""
        self.waiting += requests
        self.prompt_tokens += tokens

    def cached_tokens(self, keys: Sequence[int], level: int | None = None) -> int:
        """Tokens of a prompt that were cached as a prefix at the last report, in tiers up to `level` (None: all)."""
        journals = self._journals if level is None else self._journals[: level + 1]
        full, start = self._hash_tokens, 0
        for place in range(len(keys)):
            tokens = 0
            for level_, journal in enumerate(journals):
                end = place - place % journal.span + journal.span - 1
                block = journal.known.get(keys[end]) if end < len(keys) else None
                if block is not None and block.start == (place - place % journal.span) * full:
                    held = block.ready if level_ else block.tokens
                    tokens = max(tokens, min(full, held - (start - block.start)))
            start += tokens
            if tokens < full:
                break
        return start


class Reports:
    """The reports of replicas, for as long as requests are under way; none is needed while nothing happens."""

    def __init__(self, period: float, clock: Clock) -> None:
        self._period = period
        self._clock = clock
        self._journals: dict[str, Journal] = {}
        self._views: list[StaleView] = []
        self._coming = False

    def views(self, members: Sequence[tuple[Exact, Replica]]) -> list[StaleView]:
        """Views of these replicas; one that is new among them reports now."""
        known = {view.index: view for view in self._views}
        self._views = [known.get(view.index) or self._view(view, replica) for view, replica in members]
        return self._views

    def current(self) -> None:
        """A request has come: what was last reported is in the views now."""
        if not self._coming:
            self._report(self._clock.now // self._period * self._period)
            self._plan()

    def sent(self, index: int, seq: Seq, times: int = 1) -> None:
        """A request was sent to the replica of this number; times=-1: it was not, after all."""
        view = next(view for view in self._views if view.index == index)
        view.sent(times, times * seq.input_tokens)

    def _view(self, view: Exact, replica: Replica) -> StaleView:
        tiers = (replica.cache.hbm, *(low.tier for low in replica.cache.lower))
        for tier in tiers:
            if tier.label not in self._journals:
                self._journals[tier.label] = Journal(tier, self._clock)
        return StaleView(view, replica, [self._journals[tier.label] for tier in tiers])

    def _tick(self) -> None:
        self._coming = False
        self._report(self._clock.now)
        if any(view.busy for view in self._views):
            self._plan()

    def _report(self, upto: float) -> None:
        for view in self._views:
            view.report()
        for journal in self._journals.values():
            journal.apply(upto)

    def _plan(self) -> None:
        """Report again at the next multiple of the period."""
        now, period = self._clock.now, self._period
        turn = int(now / period) + 1
        while turn * period <= now:
            turn += 1
        self._coming = True
        self._clock.at(turn * period, self._tick)
