"""From a scenario to runtime objects: replicas with their caches, routing, arrivals."""

from __future__ import annotations

from hw_profiles.errors import InputError
from sim.arrivals import Arrivals
from sim.cache_state import Identity, check_alike, restore
from sim.clock import Clock
from sim.disaggregation import Disaggregation
from sim.engine.footprint import PlannedMemory
from sim.engine.replica import Replica
from sim.engine.sequence import Preemption, Sequence
from sim.engine_spec import EngineSpec
from sim.fleet.fleet import Fleet
from sim.fleet.pool import Pool
from sim.front import Front
from sim.inputs import Inputs
from sim.recorder import Recorder
from sim.replicas import make_batch, step_cost
from sim.routing import Routing
from sim.scenario import Scenario
from sim.served import Served
from sim.topology import Topology
from traces.request import Request


class Cluster:
    """Replicas with their caches, fed by the trace.

    `single_step` advances every engine step on its own: the same results, slower.
    """

    def __init__(self, scenario: Scenario, inputs: Inputs, *, single_step: bool = False) -> None:
        spec = scenario.spec
        self.scenario = scenario
        self.inputs = inputs
        self.single_step = single_step
        self.clock = Clock()
        self.recorder = Recorder()
        self.cost = cost = step_cost(spec, inputs)
        self.topology = Topology(scenario, inputs, self.clock, self.recorder, cost)
        self.tier_names = self.topology.tier_names
        self.tiers = self.topology.tiers
        self.links = self.topology.ways.links
        self.served = Served(len(self.tiers))
        self.trace = inputs.trace
        self.disaggregation: Disaggregation | None = None
        """Prefill and decode on different replicas, if the scenario has that."""
        if spec.disaggregation is not None:
            self.disaggregation = Disaggregation(
                scenario, inputs, self.clock, self.recorder, self.topology.ways, len(self.tiers), self._ended
            )
        several = spec.fleet is not None and bool(spec.fleet.models)
        count = 0 if several else spec.hardware.replicas
        self.replicas = [self._replica(index, single_step=single_step) for index in range(count)]
        self.fleet: Fleet | Pool | None = None
        """Who of the replicas serves; None: all of them do."""
        if several:
            self._make_pool(single_step)
        entries = self.replicas if self.disaggregation is None else self.disaggregation.attach(self.replicas)
        self.restored = self._warm_start()
        """Blocks of each tier that were there from the start, and those that found no room."""
        self.routing = Routing(scenario, self.clock, entries)
        self.front = Front(
            scenario,
            self.clock,
            cost,
            self.routing,
            onward=self._onward,
            answered=self._answered,
            refused=self._turned_away,
        )
        if self.fleet is None:
            self.fleet = self._make_fleet()
        self.arrivals = Arrivals(self.trace, self.clock, self._arrive)

    def _replica(self, index: int, *, single_step: bool) -> Replica:
        """One replica, with the limits of its pool and what it is to tell if it has one."""
        spec, inputs, apart = self.scenario.spec, self.inputs, self.disaggregation
        name, cache = f"replica {index}", self.topology.cache(index)
        limits = None if apart is None else apart.limits(index)
        return Replica(
            index,
            self.clock,
            self.cost,
            make_batch(spec.engine, inputs, self.cost, cache, name, limits),
            self.recorder,
            self._ended if apart is None else apart.finished(index),
            prefetch=self.topology.prefetch() if apart is None or apart.computes_prompts(index) else None,
            links=[link for link in self.links if link.replica == index],
            single_step=single_step,
        )

    @property
    def preemptions(self) -> list[Preemption]:
        """Every preemption, in order of time."""
        return sorted((p for r in self.replicas for p in r.batch.preemptions), key=lambda p: (p.start_s, p.replica))

    @property
    def done(self) -> int:
        """Requests that have ended."""
        return len(self.served)

    def _make_fleet(self) -> Fleet | None:
        spec = self.scenario.spec.fleet
        if spec is None or not spec.on:
            return None
        link, private = self.topology.ways.host_link, self.topology.private
        return Fleet(
            self.scenario, self.inputs, self.clock, self.replicas, self.routing, self.front.send, link, private
        )

    def _make_pool(self, single_step: bool) -> None:
        """Instances of several models in the place of replicas of one."""
        link, clock = self.topology.ways.host_link, self.clock
        pool = Pool(self.scenario, self.inputs, clock, self.recorder, link, self._ended, single_step=single_step)
        self.fleet = pool
        self.replicas = [instance.replica for instance in pool.instances]
        self.tiers = [[instance.hbm for instance in pool.instances]]

    # ---- what tiers hold before and after

    def identity(self) -> Identity:
        """What the keys of the tiers' blocks mean."""
        inputs = self.inputs
        instances = {
            name: tuple(tier.label for tier in tiers) for name, tiers in zip(self.tier_names, self.tiers, strict=True)
        }
        return Identity(
            trace=inputs.trace.name,
            trace_sha256=inputs.trace.content_sha256,
            hash_tokens=inputs.trace.block_tokens,
            model=inputs.model.name,
            token_bytes=inputs.token_bytes,
            blocks=inputs.blocks,
            instances=instances,
        )

    def _warm_start(self) -> dict[str, tuple[int, int]]:
        spec, state = self.scenario.spec.warm_start, self.inputs.warm_start
        if spec is None or state is None:
            return {}
        chosen = spec.tiers or tuple(tier for tier, labels in state.identity.instances.items() if labels)
        try:
            check_alike(state.identity, self.identity(), chosen)
        except InputError as error:
            raise error.at(where=self.scenario.where) from None
        return restore(state, {tier.label: tier for tiers in self.tiers for tier in tiers}, chosen)

    # ---- arrivals

    def _arrive(self, request: Request) -> None:
        seq = Sequence(request, request.hash_ids, len(self.tiers), request.carried_ids)
        self.served.begin(seq)
        inputs = self.fleet.inputs_of(request.index) if isinstance(self.fleet, Pool) else self.inputs
        reason = too_long(request, inputs, self.scenario.spec.engine)
        if reason:
            self._refused(seq, reason)
            return
        if self.disaggregation is not None:
            self.disaggregation.sent(seq, request)
        self.front.arrive(seq)

    def _onward(self, seq: Sequence) -> None:
        if self.fleet is None:
            self.front.send(seq)
        else:
            self.fleet.send(seq)

    def _answered(self, seq: Sequence) -> None:
        """A cache had the answer."""
        if self.disaggregation is not None:
            self.disaggregation.turned_away(seq)
        seq.generated = seq.output_tokens
        self._unserved(seq)

    def _turned_away(self, seq: Sequence, reason: str) -> None:
        if isinstance(self.fleet, Fleet):
            self.fleet.load.refused()
        if self.disaggregation is not None:
            self.disaggregation.turned_away(seq)
        self._refused(seq, reason)

    def _refused(self, seq: Sequence, reason: str) -> None:
        seq.status = reason
        self._unserved(seq)

    def _unserved(self, seq: Sequence) -> None:
        """A request ends that no replica served."""
        if self.topology.future is not None:
            self.topology.future.admitted(seq.index)
        self._done(seq)

    def _ended(self, seq: Sequence) -> None:
        """A replica has served a request."""
        self.front.ended(seq)
        self._done(seq)

    def _done(self, seq: Sequence) -> None:
        self.served.add(seq)
        if self.fleet is not None:
            self.fleet.ended(seq)
        self.arrivals.ended(seq.index)


def too_long(request: Request, inputs: Inputs, engine: EngineSpec) -> str | None:
    """Why a request can never be served, or None. vLLM refuses it too; the KV of the last token is not needed, but one
    who promises all that a request may need promises it."""
    tokens = request.input_tokens + request.output_tokens
    if tokens > inputs.model.max_context:
        return "rejected: longer than the model's context"
    if not engine.chunked_context and request.input_tokens > engine.max_num_batched_tokens:
        return "rejected: a prompt longer than a step (engine.chunked_context is false)"
    last = engine.capacity_policy == "guaranteed_no_evict"
    if inputs.footprint is not None:
        return _no_room(request, inputs, PlannedMemory(inputs.footprint, engine.block_tokens), last=last)
    spare = engine.block_tokens + 2 if engine.kind == "sglang" else last
    if inputs.speculation is not None:
        spare += inputs.speculation.slots
    if tokens - 1 + spare > inputs.budget.blocks * engine.block_tokens:
        return "rejected: longer than the KV cache"
    return None


def _no_room(request: Request, inputs: Inputs, memory: PlannedMemory, *, last: bool) -> str | None:
    """The same for planned memory; `last`: KV of the last token counts."""
    final = request.input_tokens + request.output_tokens - (not last)
    slot = inputs.footprint.slot_tokens if inputs.footprint else None
    if slot is not None and final > slot:
        return "rejected: longer than a slot"
    if memory.whole_blocks(request.input_tokens, final) > inputs.budget.blocks:
        return "rejected: longer than the KV cache"
    limit = inputs.host_limit
    if limit is not None and memory.host_bytes(request.input_tokens, final) > limit:
        return "rejected: longer than host memory has room for"
    return None
