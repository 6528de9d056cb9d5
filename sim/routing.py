"""A router at work: what it may see of the replicas, and the replica that it chose."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

from hw_profiles.errors import InputError
from policies.build import build_policy
from policies.routing.base import ReplicaView, Router, replica_of
from policies.routing.round_robin import RoundRobin
from sim.clock import Clock
from sim.engine.replica import Replica
from sim.engine.sequence import Sequence as Seq
from sim.invariants import ensure
from sim.routing_stale import Reports
from sim.scenario import Scenario
from sim.spec_base import PolicySpec


class View:
    """What a router may see of a replica (policies.routing.base.ReplicaView)."""

    def __init__(self, replica: Replica, clock: Clock) -> None:
        self._replica = replica
        self._clock = clock
        self.index = replica.index

    @property
    def running(self) -> int:
        return len(self._replica.batch.running)

    @property
    def waiting(self) -> int:
        return self._replica.batch.queue_length

    @property
    def prompt_tokens(self) -> int:
        return self._replica.prompt_tokens

    @property
    def active_tokens(self) -> int:
        self._settle()
        hbm = self._replica.cache.hbm
        return (hbm.pinned + hbm.reserved) // self._replica.cache.token_bytes

    def cached_tokens(self, keys: Sequence[int], level: int | None = None) -> int:
        self._settle()
        return self._replica.cache.cached_tokens(keys, level)

    def _settle(self) -> None:
        """Account for the memory that the steps begun so far have taken, and what was evicted for them."""
        self._replica.book(self._clock.now)


class Routing:
    """Sends requests to the replicas that a router chooses among the `members`, which may change as replicas start,
    drain and stop (sim.cluster).

    spec: the router's name and options; None: the scenario's `routing`. path: where the scenario names it.
    """

    def __init__(
        self,
        scenario: Scenario,
        clock: Clock,
        replicas: Sequence[Replica],
        spec: PolicySpec | None = None,
        path: str = "routing",
    ) -> None:
        spec = spec or scenario.spec.routing
        try:
            self._router: Router = build_policy("routing", spec.model_dump(), base_dir=scenario.base_dir, path=path)
        except InputError as error:
            raise error.at(where=scenario.where) from None
        self._name = spec.name
        self._clock = clock
        self._router.seed = scenario.spec.seed
        self._reports = Reports(period, clock) if (period := self._stale_s()) else None
        self._adds_sent = self._reports is not None and bool(self._router.adds_sent)
        self.set_members(replicas)

    @property
    def members(self) -> Sequence[Replica]:
        """The replicas that requests may be sent to, in the order in which the router sees them."""
        return self._members

    def set_members(self, replicas: Sequence[Replica]) -> None:
        """From now on requests go to these replicas, one or more."""
        ensure(bool(replicas), "no replica is left to send requests to")
        self._members = tuple(replicas)
        views = [View(replica, self._clock) for replica in replicas]
        self._in_turn = type(self._router) is RoundRobin or len(replicas) == 1
        self._views: Sequence[ReplicaView] = views
        if self._reports is not None:
            self._views = self._reports.views(list(zip(views, replicas, strict=True)))

    def change(self, scenario: Scenario) -> None:
        """Let the router of another scenario choose from now on, among the same members."""
        new = Routing(scenario, self._clock, self._members)
        self._router, self._name, self._in_turn = new._router, new._name, new._in_turn
        self._reports, self._views, self._adds_sent = new._reports, new._views, new._adds_sent

    def choose(self, seq: Seq) -> Replica:
        """The replica that the request goes to. Raises InputError for a router that breaks its contract."""
        if self._in_turn:
            return self._members[seq.index % len(self._members)]
        if self._reports is not None:
            self._reports.current()
        chosen = self._router.choose(seq, self._views)
        place = replica_of(chosen, len(self._members))
        if place is None:
            raise InputError(
                f"router {self._name} broke its contract: choose() returned {chosen!r} for request {seq.index}, "
                f"expected the place of a replica in the list, 0 to {len(self._members) - 1}"
            )
        if self._adds_sent and self._reports is not None:
            self._reports.sent(self._members[place].index, seq)
        return self._members[place]

    def taken_back(self, seq: Seq, replica: Replica) -> None:
        """The request that was last sent to this replica never came there: it was turned away."""
        if self._adds_sent and self._reports is not None and not self._in_turn:
            self._reports.sent(replica.index, seq, -1)

    def _stale_s(self) -> float:
        """Seconds between the reports that the router wants; 0: it sees replicas as they are."""
        stale = self._router.stale_s
        if isinstance(stale, bool) or not isinstance(stale, int | float) or not 0 <= stale < inf:
            raise InputError(f"router {self._name} broke its contract: stale_s is {stale!r}, expected seconds")
        return float(stale)
