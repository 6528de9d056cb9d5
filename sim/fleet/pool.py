"""GPUs that several models share: which instance runs where, and whose weights lie ready."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from hw_profiles.errors import InputError
from policies.fleet.base import ReplicaState
from policies.fleet.prewarm import NoPrewarm, PoolView, Prewarm, Sharing
from sim.clock import STEP_LAST, Clock
from sim.engine.sequence import Sequence as Seq
from sim.fleet.gateway import Gateway, requests
from sim.fleet.instances import make_instances
from sim.fleet.lifecycle import Lifecycle
from sim.fleet.load import Load
from sim.fleet.parts import build_parts, load_models, shared_parts, views
from sim.fleet.pool_policies import build_prewarm, build_scaling, models_of
from sim.fleet.pool_windows import PoolWindows
from sim.fleet.residency import Residency
from sim.fleet.spec import INSTANCE_REQUESTS
from sim.hierarchy.link import CopyEngine
from sim.inputs import Inputs
from sim.recorder import Recorder
from sim.routing import Routing
from sim.scenario import Scenario


class Pool:
    """The instances of several models on the GPUs of a cluster.

    A GPU runs one instance at a time (or, where a Sharing policy places them, its fixed ones). A request goes to an
    instance of its model that has room, else it waits at that model's gateway; if none of its model is starting, one is
    started at once, on GPUs that nothing runs on: where the weights are, or come, or else where the least is thrown
    out. When an instance starts, other weights leave its GPUs.
    """

    def __init__(
        self,
        scenario: Scenario,
        inputs: Inputs,
        clock: Clock,
        recorder: Recorder,
        link: Callable[[int], CopyEngine],
        ended: Callable[[Seq], None],
        *,
        single_step: bool,
    ) -> None:
        spec = scenario.spec.fleet
        assert spec is not None
        self.spec = spec
        self._scenario = scenario
        self._clock = clock
        loaded = load_models(scenario, inputs.trace)
        self.models, gpus = views(scenario, loaded)
        count = len(self.models)
        policy = build_prewarm(scenario, spec)
        idle = PoolView(0.0, self.models, gpus, (), [0] * count)
        fixed = isinstance(policy, Sharing)
        if isinstance(policy, Sharing):
            self.parts = shared_parts(scenario, loaded, policy.place(idle), clock, recorder)
            prewarm: Prewarm = NoPrewarm()
        else:
            self.parts = build_parts(scenario, loaded, clock, recorder, idle)
            prewarm = policy
        self.instances = make_instances(self.parts, clock, recorder, ended, link, single_step=single_step)
        of = [[i for i, each in enumerate(self.instances) if each.placed.model == m] for m in range(count)]
        try:
            self.least, self.most, initial = spec.instance_bounds(max(map(len, of)))
        except InputError as error:
            raise error.at(where=scenario.where) from None
        self.weight_bytes = sum(m.shard_bytes * m.gpus for m in self.models)
        room = spec.requests_per_replica or INSTANCE_REQUESTS
        self.gateways = [self._gateway(mine, room) for mine in of]
        self.loads = [Load(clock, scenario.spec.slo) for _ in range(count)]
        self._observed = [Load(clock, {}) for _ in range(count)]
        pieces = [model.model.layers for model in loaded]
        self.residency = Residency(clock, [m.shard_bytes for m in self.models], pieces, link)
        self.life = Lifecycle(
            spec,
            clock,
            prewarm,
            self.instances,
            of,
            self.most,
            len(gpus),
            self.residency,
            self.gateways,
            room,
            fixed=fixed,
            where=scenario.where,
        )
        self.states = self.life.states
        self._model_of = models_of(scenario, inputs.trace, [m.share for m in self.models])
        self._left = len(inputs.trace)
        scaling = [build_scaling(scenario, spec) for _ in range(count)]
        self.windows: PoolWindows | None = None
        if not fixed:
            for model in range(count):
                for _ in range(initial):
                    self.life.begin_with(model)
            self.windows = PoolWindows(
                spec,
                clock,
                self.models,
                gpus,
                self.life,
                prewarm,
                scaling,
                self.loads,
                self._observed,
                self.least,
                scenario.where,
            )
        for model in range(count):
            self.life.members_changed(model)

    def _gateway(self, mine: list[int], room: int) -> Gateway:
        """Where requests of a model wait for one of its instances."""
        routing = Routing(self._scenario, self._clock, [self.instances[i].replica for i in mine])

        def onward(seq: Seq) -> None:
            routing.choose(seq).enqueue(seq)

        return Gateway(self._clock, routing, onward, room)

    # ---- requests

    def model_of(self, index: int) -> int:
        """The model that a request is for."""
        return self._model_of[index]

    def inputs_of(self, index: int) -> Inputs:
        """The inputs of the model that a request is for, with the memory that an instance has."""
        model = self._model_of[index]
        return max((p.inputs for p in self.parts if p.model == model), key=lambda found: found.budget.blocks)

    def send(self, seq: Seq) -> None:
        """A request comes."""
        model = self._model_of[seq.index]
        self._moved()
        self.loads[model].came()
        self._observed[model].came()
        self.gateways[model].send(seq)
        if len(self.gateways[model]):
            self.life.on_demand(model)

    def ended(self, seq: Seq) -> None:
        """A request has finished, or was never sent on since it was rejected."""
        self._left -= 1
        self._moved()
        if seq.replica >= 0:
            instance = self.instances[seq.replica]
            model = instance.placed.model
            self.loads[model].went(seq)
            self._observed[model].went(seq)
            if not requests(instance.replica):
                instance.idle_since = self._clock.now
            if self.states[seq.replica] is ReplicaState.DRAINING:
                self._clock.at(self._clock.now, partial(self.life.stop_if_empty, seq.replica), STEP_LAST)
            elif len(self.gateways[model]):
                self._clock.at(self._clock.now, self.gateways[model].flush)
        if not self._left:
            self.life.close()

    def _moved(self) -> None:
        if self.windows is not None:
            self.windows.moved_s = self._clock.now

    # ---- what others see

    @property
    def waits(self) -> dict[int, float]:
        """Seconds that requests waited at a gateway, by index."""
        return {index: wait for gateway in self.gateways for index, wait in gateway.waits.items()}

    @property
    def most_waiting(self) -> int:
        """Most requests at one gateway at a time."""
        return max(gateway.most_waiting for gateway in self.gateways)

    def samples(self) -> list[tuple[str, str, str, float]]:
        """Rows for the table of samples."""
        states = (ReplicaState.SERVING, ReplicaState.STARTING, ReplicaState.DRAINING)
        rows = [("fleet", "fleet", s.value, float(len(self.states.indices(s)))) for s in states]
        return [*rows, ("fleet", "fleet", "gateway", float(sum(map(len, self.gateways))))]

    def check(self) -> None:
        """What holds between any two events. Raises InvariantError."""
        self.life.check()
