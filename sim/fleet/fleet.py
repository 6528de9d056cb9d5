"""Replicas that start, serve, drain and stop, as a scaling policy wants it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial

from hw_profiles.errors import InputError
from policies.build import build_policy
from policies.fleet.base import FleetWindow, ReplicaState, ReplicaStatus, Scaling, Start
from sim.clock import STEP_LAST, Clock
from sim.engine.replica import Replica
from sim.engine.sequence import Sequence as Seq
from sim.fleet.actions import actions_of
from sim.fleet.gateway import Gateway, requests
from sim.fleet.load import Load
from sim.fleet.states import States
from sim.fleet.weights import HBM, REASON, STORE, WeightLoad, replica_bytes
from sim.hierarchy.link import CopyEngine
from sim.hierarchy.tier import Tier
from sim.hierarchy.transfer import Transfer
from sim.inputs import Inputs
from sim.invariants import ensure
from sim.routing import Routing
from sim.scenario import Scenario

RETRY_S = 1e-3
"""A replica whose last copies are under way is looked at again after this."""
STUCK_S = 7 * 86400.0
"""Requests that wait while nobody has served any for a week will wait for ever."""


class Fleet:
    """The replicas of a run and who of them serves.

    onward: sends a request to a replica. host_link: the link that the weights of a replica come over, by its index.
    private: its own tiers, whose content goes when it stops.
    """

    def __init__(
        self,
        scenario: Scenario,
        inputs: Inputs,
        clock: Clock,
        replicas: Sequence[Replica],
        routing: Routing,
        onward: Callable[[Seq], None],
        host_link: Callable[[int], CopyEngine],
        private: Callable[[int], Iterable[Tier]],
    ) -> None:
        spec, hardware = scenario.spec.fleet, scenario.spec.hardware
        assert spec is not None
        try:
            self.least, self.most, initial = spec.bounds(hardware.replicas)
            named = spec.scaling.model_dump()
            self._policy: Scaling = build_policy("fleet", named, base_dir=scenario.base_dir, path="fleet.scaling")
            if not isinstance(self._policy, Scaling):
                raise InputError("it is for several models (fleet.prewarm)", path="fleet.scaling", found=named["name"])
        except InputError as error:
            raise error.at(where=scenario.where) from None
        self.spec = spec
        self.states = States(clock, len(replicas))
        self.gateway = Gateway(clock, routing, onward, spec.requests_per_replica)
        self.load = Load(clock, scenario.spec.slo)
        self.weight_bytes = replica_bytes(inputs.model, hardware.parallel)
        self._clock = clock
        self._replicas = replicas
        self._host_link = host_link
        self._private = private
        self._pieces = inputs.model.layers
        self._loads: dict[int, WeightLoad] = {}
        self._attempt = [0] * len(replicas)
        """Starts of each replica so far: what is planned for one that was given up means nothing."""
        self._left = len(inputs.trace)
        self._moved_s = 0.0
        """When a request came or ended last."""
        self._where = scenario.where
        for index in range(initial):
            self.states.set(index, ReplicaState.SERVING)
        self._members_changed()
        if spec.scaling.name != "none":
            clock.at(spec.window, self._tick)

    # ---- requests

    def send(self, seq: Seq) -> None:
        """A request comes."""
        self._moved_s = self._clock.now
        self.load.came()
        self.gateway.send(seq)

    def ended(self, seq: Seq) -> None:
        """A request has finished, or was never sent on since it was rejected."""
        self._left -= 1
        self._moved_s = self._clock.now
        if seq.replica >= 0:
            self.load.went(seq)
            if self.states[seq.replica] is ReplicaState.DRAINING:
                # Whoever ends with it in the same step has to be told of first.
                self._clock.at(self._clock.now, partial(self._stop_if_empty, seq.replica), STEP_LAST)
        if not self._left:
            self.states.close()
            for load in self._loads.values():
                load.cancel()
        elif len(self.gateway):
            self._clock.at(self._clock.now, self.gateway.flush)

    # ---- what the policy wants

    def _tick(self) -> None:
        if not self._left:
            return
        ensure_moving(self._clock.now - self._moved_s, len(self.gateway), self._where)
        window = self._window()
        for action in actions_of(self._policy.plan(window), window, self.spec.scaling.name):
            (self._start if isinstance(action, Start) else self._stop)(action.replica)
        self._clock.at(self._clock.now + self.spec.window, self._tick)

    def _window(self) -> FleetWindow:
        seen = self.load.take()
        status = [
            ReplicaStatus(
                i,
                self.states[i],
                self.states.since(i),
                len(r.batch.running),
                r.batch.queue_length,
                kv_use(r, self._clock),
            )
            for i, r in enumerate(self._replicas)
        ]
        return FleetWindow(
            self._clock.now,
            self.spec.window,
            *seen,
            waiting=len(self.gateway),
            replicas=status,
            least=self.least,
            most=self.most,
            start_s=self.start_s(0),
        )

    def start_s(self, replica: int) -> float:
        """What a start takes when its link is idle, s."""
        if self.spec.start_time is not None:
            return self.spec.start_time
        return self.load_s(replica) + self.spec.engine_init

    def load_s(self, replica: int) -> float:
        """What it takes to load the weights of a replica when its link is idle, s."""
        link = self._host_link(replica)
        piece = Transfer(STORE, HBM, self.weight_bytes // self._pieces, 1, REASON)
        over = self._pieces * link.service_s(piece)
        rate = self.spec.load_rate
        return over if rate is None else max(over, self.weight_bytes / rate)

    # ---- starting

    def _start(self, index: int) -> None:
        if self.states[index] is ReplicaState.DRAINING:
            self.states.kept += 1
            self.states.set(index, ReplicaState.SERVING)
            self._members_changed()
            return
        self.states.starts += 1
        self._attempt[index] += 1
        attempt = self._attempt[index]
        self.states.set(index, ReplicaState.STARTING)
        if self.spec.start_time is not None:
            self._clock.at(self._clock.now + self.spec.start_time, partial(self._ready, index, attempt))
            return
        rate = self.spec.load_rate
        done = partial(self._loaded, index, attempt)
        self._loads[index] = WeightLoad(
            self._clock, self._host_link(index), self.weight_bytes, self._pieces, rate, done
        )

    def _loaded(self, index: int, attempt: int) -> None:
        del self._loads[index]
        self._clock.at(self._clock.now + self.spec.engine_init, partial(self._ready, index, attempt))

    def _ready(self, index: int, attempt: int) -> None:
        if attempt != self._attempt[index] or self.states[index] is not ReplicaState.STARTING or not self._left:
            return  # it was given up
        self._forget(index)  # what a late prefetch brought
        self.states.set(index, ReplicaState.SERVING)
        self._members_changed()

    # ---- stopping

    def _stop(self, index: int) -> None:
        if self.states[index] is ReplicaState.STARTING:
            self.states.cancelled += 1
            self._attempt[index] += 1
            load = self._loads.pop(index, None)
            if load is not None:
                load.cancel()
            self.states.set(index, ReplicaState.OFF)
            return
        self.states.set(index, ReplicaState.DRAINING)
        self._members_changed()
        self._stop_if_empty(index)

    def _stop_if_empty(self, index: int) -> None:
        """Turn a draining replica off when it has no request and no copy of its own is under way."""
        if self.states[index] is not ReplicaState.DRAINING or requests(self._replicas[index]) or not self._left:
            return
        if any(tier.pinned for tier in self._private(index)):
            self._clock.at(self._clock.now + RETRY_S, partial(self._stop_if_empty, index), STEP_LAST)
            return
        self._forget(index)
        self.states.stops += 1
        self.states.set(index, ReplicaState.OFF)

    def _forget(self, index: int) -> None:
        """What its own tiers hold is lost."""
        for tier in self._private(index):
            for block in list(tier.blocks.values()):
                if not block.pins:
                    if not (block.uses or block.sent):
                        tier.counters.never_loaded_bytes += block.size
                    tier.drop(block)

    def _members_changed(self) -> None:
        self.gateway.serve([self._replicas[i] for i in self.states.indices(ReplicaState.SERVING)])

    # ---- what others see

    @property
    def waits(self) -> dict[int, float]:
        """Seconds that requests waited at the gateway, by index."""
        return self.gateway.waits

    @property
    def most_waiting(self) -> int:
        """Most requests at the gateway at a time."""
        return self.gateway.most_waiting

    def samples(self) -> list[tuple[str, str, str, float]]:
        """Rows for the table of samples."""
        rows = [
            ("fleet", "fleet", state.value, float(len(self.states.indices(state))))
            for state in (ReplicaState.SERVING, ReplicaState.STARTING, ReplicaState.DRAINING)
        ]
        return [*rows, ("fleet", "fleet", "gateway", float(len(self.gateway)))]

    def check(self) -> None:
        """What holds between any two events. Raises InvariantError."""
        for index in self.states.indices(ReplicaState.OFF, ReplicaState.STARTING):
            ensure(not requests(self._replicas[index]), f"replica {index} is not on and has requests")
        ensure(self._left >= len(self.gateway), "more requests wait at the gateway than are left")


def kv_use(replica: Replica, clock: Clock) -> float:
    """Share of a replica's memory for KV that requests hold."""
    replica.book(clock.now)
    hbm = replica.cache.hbm
    return (hbm.pinned + hbm.reserved) / hbm.capacity


def ensure_moving(still_s: float, waiting: int, where: str | None) -> None:
    """Raises InputError if requests wait and none has come or ended for STUCK_S."""
    if waiting and still_s > STUCK_S:
        problem = "nobody serves the requests that wait, and has not for a week"
        raise InputError(problem, where=where, path="fleet.scaling", found=f"{waiting} waiting")
