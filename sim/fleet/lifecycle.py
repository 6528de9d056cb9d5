"""Instances of several models that start and stop on the GPUs that they share."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from hw_profiles.errors import InputError
from policies.fleet.base import ReplicaState
from policies.fleet.prewarm import Placed, Prewarm
from sim.clock import STEP_LAST, Clock
from sim.fleet.gateway import Gateway, requests
from sim.fleet.instances import Instance
from sim.fleet.lending import Lending
from sim.fleet.residency import Residency
from sim.fleet.spec import WARM_INIT_S, FleetSpec
from sim.fleet.states import States
from sim.invariants import ensure

OFF, STARTING, SERVING, DRAINING = ReplicaState


class Lifecycle:
    """Which instance runs where: starts on demand or as a policy wants, drains, stops.

    of        instances of each model, by index
    most      of one model that are on at most
    gpus      how many there are
    fixed     True if all instances serve from the start to the end, several on a GPU
    gateways  of each model
    where     the file of the scenario, for errors
    """

    def __init__(
        self,
        spec: FleetSpec,
        clock: Clock,
        policy: Prewarm,
        instances: Sequence[Instance],
        of: Sequence[Sequence[int]],
        most: int,
        gpus: int,
        residency: Residency,
        gateways: Sequence[Gateway],
        room: int,
        *,
        fixed: bool,
        where: str | None,
    ) -> None:
        self.instances = instances
        self.of = of
        self.gateways = gateways
        self.residency = residency
        self.states = States(clock, len(instances))
        self.most = most
        self.running: list[int | None] = [None] * gpus
        """The instance on each GPU, if one has it to itself."""
        self.lending = Lending(self, clock, room)
        self.starts: list[tuple[float, int, str]] = []
        """(time, model, how) of every start: warm, if all weights were there, partly if some were to come, cold."""
        self.unused = 0
        """Weights that were loaded ahead and left before an instance used them."""
        self.over = False
        """True once the last request has ended."""
        self._spec = spec
        self._clock = clock
        self._policy = policy
        self._fixed = fixed
        self._where = where
        if fixed:
            for index in range(len(instances)):
                self.states.set(index, SERVING)

    def begin_with(self, model: int) -> None:
        """An instance that serves from the start on."""
        idle = [i for i in self.of[model] if self._idle(i)]
        if not idle:
            problem = "the instances of the beginning do not all find GPUs"
            raise InputError(problem, where=self._where, path="fleet.initial")
        placed = self.instances[idle[0]].placed
        residence = self.residency.add(placed)
        residence.ready = True
        for gpu in placed.group:
            self.running[gpu] = idle[0]
        self.states.set(idle[0], SERVING)

    # ---- starting

    def on_demand(self, model: int) -> None:
        """Somebody waits: start an instance, unless one is about to serve."""
        if self._fixed or any(self.states[i] is STARTING for i in self.of[model]):
            return
        if not self.start(model) and self._policy.reclaims:
            self._reclaim(model)

    def start(self, model: int) -> bool:
        """Start an instance of a model, where that is soonest done; False if no GPUs are idle."""
        on = sum(self.states[i] in (SERVING, STARTING) for i in self.of[model])
        idle = [i for i in self.of[model] if self._idle(i)]
        if not idle or on >= self.most:
            return False
        index = min(idle, key=self._cost_of)
        placed = self.instances[index].placed
        residence = self.residency.held.get(placed)
        how = "cold" if residence is None else "warm" if residence.ready else "partly"
        self.starts.append((self._clock.now, model, how))
        for other in self.residency.on(placed.group):
            if other != placed:
                self.drop(other)
        for gpu in placed.group:
            self.running[gpu] = index
        self.states.starts += 1
        self.states.set(index, STARTING)
        if residence is None:
            residence = self.residency.add(placed)
            self.residency.load(placed)
        init = self.init_s()
        if residence.ready:
            self._clock.at(self._clock.now + init, partial(self._ready, index))
        else:
            residence.waiting.append(lambda: self._clock.at(self._clock.now + init, partial(self._ready, index)))
        return True

    def init_s(self) -> float:
        """What a start takes once its weights are there, s."""
        warm = self._spec.warm_init
        if not self._policy.warm:
            return self._spec.engine_init
        return WARM_INIT_S if warm is None else warm

    def _idle(self, index: int) -> bool:
        group = self.instances[index].placed.group
        return self.states[index] is OFF and all(self.running[gpu] is None for gpu in group)

    def _cost_of(self, index: int) -> tuple[int, int, int]:
        placed = self.instances[index].placed
        residence = self.residency.held.get(placed)
        there = 2 if residence is None else 0 if residence.ready else 1
        return there, len(self.residency.on(placed.group)), index

    def _ready(self, index: int) -> None:
        if self.states[index] is STARTING and not self.over:
            self.states.set(index, SERVING)
            self.instances[index].idle_since = self._clock.now
            self.members_changed(self.instances[index].placed.model)

    # ---- stopping

    def stop(self, index: int) -> None:
        """Drain an instance."""
        self.states.set(index, DRAINING)
        self.members_changed(self.instances[index].placed.model)
        self.stop_if_empty(index)

    def stop_if_empty(self, index: int) -> None:
        """An instance that has drained gives its GPUs up; its weights stay where they lie if the policy prewarms."""
        instance = self.instances[index]
        if self.states[index] is not DRAINING or requests(instance.replica) or self.over:
            return
        if instance.hbm.pinned or instance.hbm.reserved:
            self._clock.at(self._clock.now, partial(self.stop_if_empty, index), STEP_LAST)
            return
        for block in list(instance.hbm.blocks.values()):
            instance.hbm.drop(block)
        instance.hbm.capacity, instance.lent = instance.full, 0
        self.states.stops += 1
        self.states.set(index, OFF)
        for gpu in instance.placed.group:
            self.running[gpu] = None
        if not self._policy.warm:
            self.residency.drop(instance.placed)
        for model, gateway in enumerate(self.gateways):
            if len(gateway):
                self.on_demand(model)

    def _reclaim(self, model: int) -> None:
        """Stop instances without requests on one group, those that have been idle longest, and start there."""
        best: tuple[float, list[int]] | None = None
        for index in self.of[model]:
            here = {self.running[gpu] for gpu in self.instances[index].placed.group} - {None}
            others = sorted(i for i in here if i is not None)
            if any(self.states[i] is not SERVING or requests(self.instances[i].replica) for i in others):
                continue
            if any(self.instances[i].placed.model == model for i in others):
                continue
            since = max((self.instances[i].idle_since for i in others), default=0.0)
            if best is None or since < best[0]:
                best = since, others
        if best is not None:
            for index in best[1]:
                self.stop(index)

    def drop(self, placed: Placed) -> None:
        """Weights that no instance used leave."""
        self.unused += 1
        self.residency.drop(placed)
        self.lending.settle(placed.group)

    def members_changed(self, model: int) -> None:
        """Requests of a model go to those of its instances that serve."""
        serving = [self.instances[i].replica for i in self.of[model] if self.states[i] is SERVING]
        self.gateways[model].serve(serving)

    # ---- the end

    def close(self) -> None:
        """The last request has ended: nothing starts any more."""
        self.over = True
        self.states.close()
        for placed in list(self.residency.held):
            self.residency.drop(placed)

    def check(self) -> None:
        """What holds between any two events. Raises InvariantError."""
        for index in self.states.indices(OFF, STARTING):
            ensure(not requests(self.instances[index].replica), f"instance {index} is not on and has requests")
        if self._fixed:
            return
        at_work = self.states.indices(STARTING, SERVING, DRAINING)
        for gpu, runs in enumerate(self.running):
            here = [i for i in at_work if gpu in self.instances[i].placed.group]
            ensure(here == ([] if runs is None else [runs]), f"GPU {gpu} runs {here}, not {runs}")
        self.lending.check()
