"""What the policies for several models are asked, once per window, and what comes of their answers."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from hw_profiles.errors import InputError
from policies.fleet.base import FleetWindow, ReplicaState, ReplicaStatus, Scaling, Start
from policies.fleet.prewarm import GpuView, ModelView, NoPrewarm, Placed, PoolView, Prewarm
from sim.clock import Clock
from sim.fleet.actions import actions_of
from sim.fleet.fleet import ensure_moving, kv_use
from sim.fleet.gateway import requests
from sim.fleet.lifecycle import Lifecycle
from sim.fleet.load import Load
from sim.fleet.spec import FleetSpec

OFF, STARTING, SERVING, DRAINING = ReplicaState


class PoolWindows:
    """Asks a scaling policy per model, and one that loads weights ahead.

    loads, observed: of each model, for the windows of the one and of the other. least: instances of a model that are
    on at least. where: the file of the scenario, for errors.
    """

    def __init__(
        self,
        spec: FleetSpec,
        clock: Clock,
        models: Sequence[ModelView],
        gpus: Sequence[GpuView],
        life: Lifecycle,
        prewarm: Prewarm,
        scaling: Sequence[Scaling],
        loads: Sequence[Load],
        observed: Sequence[Load],
        least: int,
        where: str | None,
    ) -> None:
        self.prewarms = 0
        """Weights that were loaded ahead."""
        self._spec = spec
        self._clock = clock
        self._models = models
        self._gpus = gpus
        self._life = life
        self._prewarm = prewarm
        self._scaling = scaling
        self._loads = loads
        self._observed = observed
        self._least = least
        self._where = where
        self.moved_s = 0.0
        """When a request came or ended last."""
        clock.at(spec.window, self.tick)
        clock.at(prewarm.window_s, self.observe)

    def tick(self) -> None:
        """A window of `fleet.window` ends."""
        if self._life.over:
            return
        ensure_moving(self._clock.now - self.moved_s, sum(map(len, self._life.gateways)), self._where)
        for model, policy in enumerate(self._scaling):
            if self._spec.scaling.name != "none":
                self._scale(model, policy)
        for model, gateway in enumerate(self._life.gateways):
            if len(gateway):
                self._life.on_demand(model)
        self._life.lending.give_back()
        if type(self._prewarm) is not NoPrewarm:
            self._load_ahead()
        self._clock.at(self._clock.now + self._spec.window, self.tick)

    def _scale(self, model: int, policy: Scaling) -> None:
        mine = self._life.of[model]
        status = []
        for place, index in enumerate(mine):
            replica, state = self._life.instances[index].replica, self._life.states[index]
            use = kv_use(replica, self._clock)
            running, waiting = len(replica.batch.running), replica.batch.queue_length
            status.append(ReplicaStatus(place, state, self._life.states.since(index), running, waiting, use))
        info = self._models[model]
        window = FleetWindow(
            self._clock.now,
            self._spec.window,
            *self._loads[model].take(),
            waiting=len(self._life.gateways[model]),
            replicas=status,
            least=self._least,
            most=min(self._life.most, len(mine)),
            start_s=info.load_s + self._life.init_s(),
        )
        for action in actions_of(policy.plan(window), window, self._spec.scaling.name):
            index = mine[action.replica]
            if isinstance(action, Start):
                if self._life.states[index] is DRAINING:
                    self._life.states.kept += 1
                    self._life.states.set(index, SERVING)
                    self._life.members_changed(model)
                else:
                    self._life.start(model)
            elif self._life.states[index] is SERVING and self._may_stop(index):
                self._life.stop(index)

    def _may_stop(self, index: int) -> bool:
        instance, keep = self._life.instances[index], self._prewarm.keep_alive
        if not keep:
            return True
        return not requests(instance.replica) and self._clock.now - instance.idle_since >= keep

    def observe(self) -> None:
        """A window of the prewarm policy ends."""
        if self._life.over:
            return
        for model, load in enumerate(self._observed):
            seen = load.take()
            self._prewarm.observe(model, seen.load, float(seen.peak))
        if type(self._prewarm) is not NoPrewarm:
            self._load_ahead()  # for the window that begins
        self._clock.at(self._clock.now + self._prewarm.window_s, self.observe)

    def view(self) -> PoolView:
        """What a policy sees now."""
        gpus = [
            GpuView(gpu.index, gpu.node, self._serving(gpu.index), self.free(gpu.index, gpu.free)) for gpu in self._gpus
        ]
        at_work = {self._life.instances[i].placed for i in self._life.states.indices(STARTING, SERVING, DRAINING)}
        prewarmed = [placed for placed in self._life.residency.held if placed not in at_work]
        instances = [sum(self._life.states[i] in (SERVING, STARTING) for i in mine) for mine in self._life.of]
        return PoolView(self._clock.now, self._models, gpus, prewarmed, instances)

    def _serving(self, gpu: int) -> int | None:
        index = self._life.running[gpu]
        return None if index is None else self._life.instances[index].placed.model

    def free(self, gpu: int, whole: int) -> int:
        """Bytes that weights may take on a GPU."""
        index = self._life.running[gpu]
        if index is None:
            return whole - self._life.residency.bytes_on(gpu)
        if not self._prewarm.lends or self._life.states[index] is not SERVING:
            return 0
        own = self._life.instances[index].placed
        return self._life.lending.spare(self._life.instances[index]) - self._life.residency.bytes_on(gpu, own)

    def _load_ahead(self) -> None:
        for placed in self._prewarm.drop(self.view()):
            if placed in self._life.residency.held:
                self._life.drop(placed)
        plan = list(self._prewarm.plan(self.view()))
        if not plan:
            return
        for placed in plan:
            room = all(self.free(g, self._gpus[g].free) >= self._models[placed.model].shard_bytes for g in placed.group)
            if not room or any(p.model == placed.model for p in self._life.residency.on(placed.group)):
                name = self._spec.prewarm.name if self._spec.prewarm else "none"
                raise InputError(f"prewarm policy {name} broke its contract: no room for {placed}")
            self.prewarms += 1
            self._life.residency.add(placed)
            self._life.lending.borrow(placed, partial(self._lent, placed))

    def _lent(self, placed: Placed) -> None:
        """The memory for weights is there."""
        if placed in self._life.residency.held and not self._life.over:
            self._life.residency.load(placed)
