"""GPUs that several models share: which instance runs where, and whose weights lie ready."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from hw_profiles.errors import InputError
from policies.build import build_policy
from policies.fleet.base import FleetWindow, ReplicaState, ReplicaStatus, Scaling, Start
from policies.fleet.prewarm import GpuView, NoPrewarm, Placed, PoolView, Prewarm, Sharing
from sim.clock import STEP_LAST, Clock
from sim.engine.sequence import Sequence as Seq
from sim.fleet.actions import actions_of
from sim.fleet.fleet import kv_use
from sim.fleet.gateway import Gateway, requests
from sim.fleet.instances import make_instances
from sim.fleet.lending import Lending
from sim.fleet.load import Load
from sim.fleet.parts import build_parts, load_models, shared_parts, views
from sim.fleet.residency import Residency
from sim.fleet.spec import INSTANCE_REQUESTS, WARM_INIT_S
from sim.fleet.states import States
from sim.hierarchy.link import CopyEngine
from sim.inputs import Inputs
from sim.invariants import ensure
from sim.recorder import Recorder
from sim.routing import Routing
from sim.scenario import Scenario
from traces.random import stream

OFF, STARTING, SERVING, DRAINING = ReplicaState


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
        self.loaded = load_models(scenario, inputs.trace)
        self.models, self._gpus = views(scenario, self.loaded)
        count = len(self.models)
        self.policy = self._build_prewarm()
        idle = PoolView(0.0, self.models, self._gpus, (), [0] * count)
        if isinstance(self.policy, Sharing):
            self.parts = shared_parts(scenario, self.loaded, self.policy.place(idle), clock, recorder)
            self._prewarm: Prewarm = NoPrewarm()
        else:
            self.parts = build_parts(scenario, self.loaded, clock, recorder, idle)
            self._prewarm = self.policy
        self._shared = isinstance(self.policy, Sharing)
        self.instances = make_instances(self.parts, clock, recorder, ended, link, single_step=single_step)
        self.states = States(clock, len(self.instances))
        self._of = [[i for i, each in enumerate(self.instances) if each.placed.model == m] for m in range(count)]
        self.least = spec.min
        self.most = max(len(mine) for mine in self._of) if spec.max is None else spec.max
        self.weight_bytes = sum(m.shard_bytes * m.gpus for m in self.models)
        room = spec.requests_per_replica or INSTANCE_REQUESTS
        self.gateways = [self._gateway(mine, room) for mine in self._of]
        self.loads = [Load(clock, scenario.spec.slo) for _ in range(count)]
        self._observed = [Load(clock, {}) for _ in range(count)]
        pieces = [model.model.layers for model in self.loaded]
        self.residency = Residency(clock, [m.shard_bytes for m in self.models], pieces, link)
        self.lending = Lending(self, clock, room)
        self.running: list[int | None] = [None] * len(self._gpus)
        """The instance on each GPU, if one has it to itself."""
        self.starts: list[tuple[float, int, str]] = []
        """(time, model, how) of every start: warm, if all weights were there, partly if some were to come, cold."""
        self.prewarms = self.unused = 0
        self._model_of = self._models_of(inputs)
        self._left = len(inputs.trace)
        self._scaling = [self._build_scaling() for _ in range(count)]
        self._begin()

    def _gateway(self, mine: list[int], room: int) -> Gateway:
        """Where requests of a model wait for one of its instances."""
        routing = Routing(self._scenario, self._clock, [self.instances[i].replica for i in mine])

        def onward(seq: Seq) -> None:
            routing.choose(seq).enqueue(seq)

        return Gateway(self._clock, routing, onward, room)

    # ---- what is named

    def _build_prewarm(self) -> Prewarm | Sharing:
        named = self.spec.prewarm
        if named is None:
            return NoPrewarm()
        policy = self._build(named.model_dump(), "fleet.prewarm")
        if not isinstance(policy, Prewarm | Sharing):
            problem = "it scales and is named under fleet.scaling"
            raise InputError(problem, where=self._scenario.where, path="fleet.prewarm", found=named.name)
        return policy

    def _build_scaling(self) -> Scaling:
        policy = self._build(self.spec.scaling.model_dump(), "fleet.scaling")
        if not isinstance(policy, Scaling):
            problem = "it loads weights and is named under fleet.prewarm"
            raise InputError(problem, where=self._scenario.where, path="fleet.scaling", found=self.spec.scaling.name)
        return policy

    def _build(self, named: dict[str, object], path: str) -> object:
        try:
            return build_policy("fleet", named, base_dir=self._scenario.base_dir, path=path)
        except InputError as error:
            raise error.at(where=self._scenario.where) from None

    def _models_of(self, inputs: Inputs) -> list[int]:
        """The model of each request: the trace's, or drawn by share from the stream "models"."""
        count = len(self.models)
        if inputs.trace.models is not None:
            most = int(inputs.trace.models.max(initial=0))
            if most >= count:
                problem = f"the trace has requests for {most + 1} models"
                raise InputError(problem, where=self._scenario.where, path="fleet.models", found=f"{count} models")
            return [int(m) for m in inputs.trace.models.tolist()]
        upto = np.cumsum([m.share for m in self.models])
        drawn = stream(self._scenario.spec.seed, "models").random(len(inputs.trace))
        return np.minimum(np.searchsorted(upto, drawn, side="right"), count - 1).tolist()  # type: ignore[no-any-return]

    # ---- the beginning

    def _begin(self) -> None:
        if self._shared:
            for index in range(len(self.instances)):
                self.states.set(index, SERVING)
        else:
            for model in range(len(self.models)):
                initial = self.spec.min if self.spec.initial is None else self.spec.initial
                for _ in range(initial):
                    self._first(model)
            self._clock.at(self.spec.window, self._tick)
            self._clock.at(self._prewarm.window_s, self._observe)
        for model in range(len(self.models)):
            self._members_changed(model)

    def _first(self, model: int) -> None:
        """An instance that serves from the start on."""
        idle = [i for i in self._of[model] if self._idle(i)]
        if not idle:
            problem = "the instances of the beginning do not all find GPUs"
            raise InputError(problem, where=self._scenario.where, path="fleet.initial")
        placed = self.instances[idle[0]].placed
        residence = self.residency.add(placed)
        residence.ready = True
        for gpu in placed.group:
            self.running[gpu] = idle[0]
        self.states.set(idle[0], SERVING)

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
        self.loads[model].came()
        self._observed[model].came()
        self.gateways[model].send(seq)
        if len(self.gateways[model]):
            self._on_demand(model)

    def ended(self, seq: Seq) -> None:
        """A request has finished, or was never sent on since it was rejected."""
        self._left -= 1
        if seq.replica >= 0:
            instance = self.instances[seq.replica]
            model = instance.placed.model
            self.loads[model].went(seq)
            self._observed[model].went(seq)
            if not requests(instance.replica):
                instance.idle_since = self._clock.now
            if self.states[seq.replica] is DRAINING:
                self._clock.at(self._clock.now, partial(self._stop_if_empty, seq.replica), STEP_LAST)
            elif len(self.gateways[model]):
                self._clock.at(self._clock.now, self.gateways[model].flush)
        if not self._left:
            self.states.close()
            for placed in list(self.residency.held):
                self.residency.drop(placed)

    # ---- starting

    def _on_demand(self, model: int) -> None:
        """Somebody waits: start an instance, unless one is about to serve."""
        if self._shared or any(self.states[i] is STARTING for i in self._of[model]):
            return
        if not self._start(model) and self._prewarm.reclaims:
            self._reclaim(model)

    def _start(self, model: int) -> bool:
        """Start an instance of a model, where that is soonest done; False if no GPUs are idle."""
        on = sum(self.states[i] in (SERVING, STARTING) for i in self._of[model])
        idle = [i for i in self._of[model] if self._idle(i)]
        if not idle or on >= self.most:
            return False
        index = min(idle, key=self._cost_of)
        placed = self.instances[index].placed
        residence = self.residency.held.get(placed)
        how = "cold" if residence is None else "warm" if residence.ready else "partly"
        self.starts.append((self._clock.now, model, how))
        for other in self.residency.on(placed.group):
            if other != placed:
                self._drop(other)
        for gpu in placed.group:
            self.running[gpu] = index
        self.states.starts += 1
        self.states.set(index, STARTING)
        if residence is None:
            residence = self.residency.add(placed)
            self.residency.load(placed)
        init = self._init_s()
        if residence.ready:
            self._clock.at(self._clock.now + init, partial(self._ready, index))
        else:
            residence.waiting.append(lambda: self._clock.at(self._clock.now + init, partial(self._ready, index)))
        return True

    def _init_s(self) -> float:
        warm = self.spec.warm_init
        if not self._prewarm.warm:
            return self.spec.engine_init
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
        if self.states[index] is STARTING and self._left:
            self.states.set(index, SERVING)
            self.instances[index].idle_since = self._clock.now
            self._members_changed(self.instances[index].placed.model)

    # ---- stopping

    def _stop(self, index: int) -> None:
        self.states.set(index, DRAINING)
        self._members_changed(self.instances[index].placed.model)
        self._stop_if_empty(index)

    def _stop_if_empty(self, index: int) -> None:
        """An instance that has drained gives its GPUs up; its weights stay where they lie if the policy prewarms."""
        instance = self.instances[index]
        if self.states[index] is not DRAINING or requests(instance.replica) or not self._left:
            return
        if instance.hbm.pinned or instance.hbm.reserved:
            self._clock.at(self._clock.now, partial(self._stop_if_empty, index), STEP_LAST)
            return
        for block in list(instance.hbm.blocks.values()):
            instance.hbm.drop(block)
        instance.hbm.capacity, instance.lent = instance.full, 0
        self.states.stops += 1
        self.states.set(index, OFF)
        for gpu in instance.placed.group:
            self.running[gpu] = None
        if not self._prewarm.warm:
            self.residency.drop(instance.placed)
        for model, gateway in enumerate(self.gateways):
            if len(gateway):
                self._on_demand(model)

    def _reclaim(self, model: int) -> None:
        """Stop instances without requests on one group, those that have been idle longest, and start there."""
        best: tuple[float, list[int]] | None = None
        for index in self._of[model]:
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
                self._stop(index)

    def _drop(self, placed: Placed) -> None:
        """Weights that no instance used leave."""
        self.unused += 1
        self.residency.drop(placed)
        self.lending.settle(placed.group)

    def _members_changed(self, model: int) -> None:
        serving = [self.instances[i].replica for i in self._of[model] if self.states[i] is SERVING]
        self.gateways[model].serve(serving)

    # ---- what the policies want

    def _tick(self) -> None:
        if not self._left:
            return
        for model, policy in enumerate(self._scaling):
            if self.spec.scaling.name != "none":
                self._scale(model, policy)
        for model, gateway in enumerate(self.gateways):
            if len(gateway):
                self._on_demand(model)
        self.lending.give_back()
        if type(self._prewarm) is not NoPrewarm:
            self._load_ahead()
        self._clock.at(self._clock.now + self.spec.window, self._tick)

    def _scale(self, model: int, policy: Scaling) -> None:
        mine = self._of[model]
        status = []
        for place, index in enumerate(mine):
            replica, state = self.instances[index].replica, self.states[index]
            use = kv_use(replica, self._clock)
            running, waiting = len(replica.batch.running), replica.batch.queue_length
            status.append(ReplicaStatus(place, state, self.states.since(index), running, waiting, use))
        info = self.models[model]
        window = FleetWindow(
            self._clock.now,
            self.spec.window,
            *self.loads[model].take(),
            waiting=len(self.gateways[model]),
            replicas=status,
            least=self.least,
            most=min(self.most, len(mine)),
            start_s=info.load_s + self._init_s(),
        )
        for action in actions_of(policy.plan(window), window, self.spec.scaling.name):
            index = mine[action.replica]
            if isinstance(action, Start):
                if self.states[index] is DRAINING:
                    self.states.kept += 1
                    self.states.set(index, SERVING)
                    self._members_changed(model)
                else:
                    self._start(model)
            elif self.states[index] is SERVING and self._may_stop(index):
                self._stop(index)

    def _may_stop(self, index: int) -> bool:
        instance, keep = self.instances[index], self._prewarm.keep_alive
        if not keep:
            return True
        return not requests(instance.replica) and self._clock.now - instance.idle_since >= keep

    def _observe(self) -> None:
        if not self._left:
            return
        for model, load in enumerate(self._observed):
            seen = load.take()
            self._prewarm.observe(model, seen.load, float(seen.peak))
        if type(self._prewarm) is not NoPrewarm:
            self._load_ahead()  # for the window that begins
        self._clock.at(self._clock.now + self._prewarm.window_s, self._observe)

    def view(self) -> PoolView:
        """What a policy sees now."""
        gpus = [
            GpuView(gpu.index, gpu.node, self._serving(gpu.index), self.free(gpu.index, gpu.free)) for gpu in self._gpus
        ]
        at_work = {self.instances[i].placed for i in self.states.indices(STARTING, SERVING, DRAINING)}
        prewarmed = [placed for placed in self.residency.held if placed not in at_work]
        instances = [sum(self.states[i] in (SERVING, STARTING) for i in mine) for mine in self._of]
        return PoolView(self._clock.now, self.models, gpus, prewarmed, instances)

    def _serving(self, gpu: int) -> int | None:
        index = self.running[gpu]
        return None if index is None else self.instances[index].placed.model

    def free(self, gpu: int, whole: int) -> int:
        """Bytes that weights may take on a GPU."""
        index = self.running[gpu]
        if index is None:
            return whole - self.residency.bytes_on(gpu)
        if not self._prewarm.lends or self.states[index] is not SERVING:
            return 0
        own = self.instances[index].placed
        return self.lending.spare(self.instances[index]) - self.residency.bytes_on(gpu, own)

    def _load_ahead(self) -> None:
        for placed in self._prewarm.drop(self.view()):
            if placed in self.residency.held:
                self._drop(placed)
        plan = list(self._prewarm.plan(self.view()))
        if not plan:
            return
        for placed in plan:
            room = all(self.free(g, self._gpus[g].free) >= self.models[placed.model].shard_bytes for g in placed.group)
            if not room or any(p.model == placed.model for p in self.residency.on(placed.group)):
                name = self.spec.prewarm.name if self.spec.prewarm else "none"
                raise InputError(f"prewarm policy {name} broke its contract: no room for {placed}")
            self.prewarms += 1
            self.residency.add(placed)
            self.lending.borrow(placed, partial(self._lent, placed))

    def _lent(self, placed: Placed) -> None:
        """The memory for weights is there."""
        if placed in self.residency.held and self._left:
            self.residency.load(placed)

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
        states = (SERVING, STARTING, DRAINING)
        rows = [("fleet", "fleet", s.value, float(len(self.states.indices(s)))) for s in states]
        return [*rows, ("fleet", "fleet", "gateway", float(sum(map(len, self.gateways))))]

    def check(self) -> None:
        """What holds between any two events. Raises InvariantError."""
        for index in self.states.indices(OFF, STARTING):
            ensure(not requests(self.instances[index].replica), f"instance {index} is not on and has requests")
        if self._shared:
            return
        at_work = self.states.indices(STARTING, SERVING, DRAINING)
        for gpu, runs in enumerate(self.running):
            here = [i for i in at_work if gpu in self.instances[i].placed.group]
            ensure(here == ([] if runs is None else [runs]), f"GPU {gpu} runs {here}, not {runs}")
        self.lending.check()
