"""From a scenario to runtime objects: replicas with their caches, routing, arrivals."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hw_profiles.errors import InputError
from sim.arrivals import Arrivals
from sim.cache_state import Identity, check_alike, restore
from sim.clock import Clock
from sim.cost.framework import FRAMEWORKS
from sim.cost.graphs import TRTLLM_SIZES, captured_sizes, sglang_sizes
from sim.cost.planned import PlannedStep
from sim.cost.step import StepCost
from sim.engine.batch import Batch, EngineLimits
from sim.engine.footprint import PlannedMemory
from sim.engine.inflight import InFlightBatch
from sim.engine.prefill_first import PrefillFirstBatch
from sim.engine.replica import Replica
from sim.engine.sequence import Preemption, Sequence
from sim.engine.static import StaticBatch
from sim.engine_spec import EngineSpec
from sim.inputs import Inputs
from sim.kind_spec import KindName
from sim.link_inputs import copy_method
from sim.recorder import Recorder
from sim.routing import Routing
from sim.scenario import Scenario
from sim.served import Served
from sim.spec import ScenarioSpec
from sim.topology import Topology
from traces.request import Request

BATCHES: Mapping[KindName, type[Batch]] = {"vllm": Batch, "sglang": PrefillFirstBatch, "tensorrt_llm": InFlightBatch}
"""The scheduler of each engine."""


class Cluster:
    """Replicas with their caches, fed by the trace.

    `single_step` advances every engine step on its own: the same results, slower.
    """

    def __init__(self, scenario: Scenario, inputs: Inputs, *, single_step: bool = False) -> None:
        spec = scenario.spec
        self.scenario = scenario
        self.inputs = inputs
        self.clock = Clock()
        self.recorder = Recorder()
        self.cost = cost = step_cost(spec, inputs)
        self.topology = Topology(scenario, inputs, self.clock, self.recorder, cost)
        self.tier_names = self.topology.tier_names
        self.tiers = self.topology.tiers
        self.links = self.topology.ways.links
        self.served = Served(len(self.tiers))
        self.trace = inputs.trace
        engine = spec.engine
        static = engine.scheduling == "static"
        whole = FRAMEWORKS[engine.framework].whole_prompts
        limits = EngineLimits(
            engine.max_num_seqs,
            engine.max_num_batched_tokens,
            engine.scheduling,
            whole,
            chunked=engine.chunked_context,
            no_evict=engine.capacity_policy == "guaranteed_no_evict",
            mixed=engine.mixed_chunk is not False,
            conservativeness=engine.schedule_conservativeness or 1.0,
            longest_prefix_first=engine.schedule_policy == "lpm",
        )
        batch: type[Batch] = StaticBatch if static else BATCHES[engine.kind]
        self.replicas = [
            Replica(
                index,
                self.clock,
                cost,
                batch(
                    self.topology.cache(index),
                    limits,
                    f"replica {index}",
                    cost.windows,
                    prompts=cost.prompts,
                    lengths=cost.asks_longest,
                    host_limit=inputs.host_limit,
                ),
                self.recorder,
                self._ended,
                prefetch=self.topology.prefetch(),
                links=[link for link in self.links if link.replica == index],
                single_step=single_step,
            )
            for index in range(spec.hardware.replicas)
        ]
        self.restored = self._warm_start()
        """Blocks of each tier that were there from the start, and those that found no room."""
        self.routing = Routing(scenario, self.clock, self.replicas)
        self.arrivals = Arrivals(self.trace, self.clock, self._arrive)

    @property
    def preemptions(self) -> list[Preemption]:
        """Every preemption, in order of time."""
        return sorted((p for r in self.replicas for p in r.batch.preemptions), key=lambda p: (p.start_s, p.replica))

    @property
    def done(self) -> int:
        """Requests that have ended."""
        return len(self.served)

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
        reason = too_long(request, self.inputs, self.scenario.spec.engine)
        if reason:
            seq.status = reason
            if self.topology.future is not None:
                self.topology.future.admitted(seq.index)
            self._ended(seq)
            return
        self.routing.choose(seq).enqueue(seq)

    def _ended(self, seq: Sequence) -> None:
        self.served.add(seq)
        self.arrivals.ended(seq.index)


def step_cost(spec: ScenarioSpec, inputs: Inputs) -> StepCost:
    """The prices of a replica's steps."""
    engine, planned = spec.engine, inputs.planned
    framework = FRAMEWORKS[engine.framework]
    slots = (engine.max_num_seqs,) if framework.slots else None
    sizes = engine.graph_batch_sizes or slots or _graph_sizes(spec, inputs)
    lookahead = engine.l2_prefetch or (0 if planned is None else planned.plan.l2_lookahead)
    host_time_s = engine.host_time + framework.sync_s * inputs.model.layers
    options: dict[str, Any] = {
        "parallel": spec.hardware.parallel,
        "expert_skew": engine.expert_skew,
        "graphs": engine.graphs,
        "eager_launch_s": engine.eager_launch,
        "launches_per_layer": framework.launches_per_layer,
        "graph_sizes": sizes,
        "graph_padding": sizes is not TRTLLM_SIZES,
        "attention_share": None if planned is None else planned.plan.attention_share,
    }
    if planned is None or planned.plan.plain:
        return StepCost(inputs.model, inputs.profile, host_time_s, lookahead, **options)
    copy = {way: inputs.profile.copy_model(f"pcie_{way}", copy_method(spec, f"pcie_{way}")) for way in ("h2d", "d2h")}
    return PlannedStep(inputs.model, inputs.profile, host_time_s, lookahead, plan=planned.plan, copy=copy, **options)


def _graph_sizes(spec: ScenarioSpec, inputs: Inputs) -> tuple[int, ...]:
    """Decode batches that the engine captures graphs of by default."""
    engine = spec.engine
    if engine.kind == "tensorrt_llm":
        return TRTLLM_SIZES
    if engine.kind == "sglang":
        return sglang_sizes(inputs.profile.hbm_bytes, spec.hardware.tp)
    return captured_sizes(engine.max_num_seqs, engine.max_num_batched_tokens)


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
