"""What makes a replica of a scenario: the prices of its steps, and its scheduler."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sim.cost.framework import FRAMEWORKS
from sim.cost.graphs import TRTLLM_SIZES, captured_sizes, graph_multiples, sglang_sizes
from sim.cost.planned import PlannedStep
from sim.cost.speculation import SpeculativeStep
from sim.cost.step import StepCost
from sim.disaggregation_spec import PoolEngineSpec
from sim.engine.batch import Batch
from sim.engine.chosen import ChosenBatch
from sim.engine.inflight import InFlightBatch
from sim.engine.limits import EngineLimits
from sim.engine.prefill_first import PrefillFirstBatch
from sim.engine.speculative import SpeculativeGroup
from sim.engine.static import StaticBatch
from sim.engine_spec import EngineSpec
from sim.hierarchy.cache import ReplicaCache
from sim.inputs import Inputs
from sim.kind_spec import KindName
from sim.link_inputs import copy_method
from sim.spec import ScenarioSpec
from sim.speculation import Speculation

BATCHES: Mapping[KindName, type[Batch]] = {"vllm": Batch, "sglang": PrefillFirstBatch, "tensorrt_llm": InFlightBatch}
"""The scheduler of each engine."""


def make_batch(
    engine: EngineSpec,
    inputs: Inputs,
    cost: StepCost,
    cache: ReplicaCache,
    name: str,
    pool: PoolEngineSpec | None = None,
) -> Batch:
    """The scheduler of one replica, which has `cache`. pool: limits of its pool, if it has any of its own."""
    made = _batch(engine, inputs, cost, cache, name, engine_limits(engine, cache, pool))
    if isinstance(cost, SpeculativeStep) and inputs.speculation is not None:
        cache.slots_ahead = inputs.speculation.slots
        made.decoding = SpeculativeGroup(
            cache.block_tokens,
            cost.all_windows,
            inputs.speculation.acceptance(),
            ahead=inputs.speculation.ahead,
            give_back=cache.give_back,
            padded=engine.kind != "vllm",
            lengths=cost.asks_longest,
        )
    return made


def _batch(
    engine: EngineSpec, inputs: Inputs, cost: StepCost, cache: ReplicaCache, name: str, limits: EngineLimits
) -> Batch:
    """As `make_batch`, for steps of one token per sequence."""
    host_limit = inputs.host_limit
    if inputs.scheduler is not None:
        return ChosenBatch(
            cache,
            limits,
            name,
            cost.windows,
            prompts=cost.prompts,
            lengths=cost.asks_longest,
            host_limit=host_limit,
            scheduler=inputs.scheduler(),
            seed=inputs.seed,
        )
    batch: type[Batch] = StaticBatch if engine.scheduling == "static" else BATCHES[engine.kind]
    return batch(
        cache,
        limits,
        name,
        cost.windows,
        prompts=cost.prompts,
        lengths=cost.asks_longest,
        host_limit=host_limit,
    )


def engine_limits(engine: EngineSpec, cache: ReplicaCache, pool: PoolEngineSpec | None = None) -> EngineLimits:
    """The limits of the scheduler that `engine:` asks for, or the replica's pool, on a replica with this cache."""
    return EngineLimits(
        (pool and pool.max_num_seqs) or engine.max_num_seqs,
        (pool and pool.max_num_batched_tokens) or engine.max_num_batched_tokens,
        engine.scheduling,
        FRAMEWORKS[engine.framework].whole_prompts,
        chunked=engine.chunked_context,
        no_evict=engine.capacity_policy == "guaranteed_no_evict",
        mixed=engine.mixed_chunk is not False,
        conservativeness=engine.schedule_conservativeness or 1.0,
        longest_prefix_first=engine.schedule_policy == "lpm",
        reserve_full_isl=engine.reserve_full_isl,
        watermark=int(engine.watermark * (cache.hbm.capacity // cache.block_bytes)) * cache.block_bytes,
    )


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
    if inputs.speculation is not None:
        return _speculative(spec, inputs, inputs.speculation)
    if planned is None or planned.plan.plain:
        return StepCost(inputs.model, inputs.profile, host_time_s, lookahead, **options)
    copy = {way: inputs.profile.copy_model(f"pcie_{way}", copy_method(spec, f"pcie_{way}")) for way in ("h2d", "d2h")}
    return PlannedStep(inputs.model, inputs.profile, host_time_s, lookahead, plan=planned.plan, copy=copy, **options)


def _speculative(spec: ScenarioSpec, inputs: Inputs, speculation: Speculation) -> SpeculativeStep:
    """The prices of steps that verify drafted tokens; graphs are captured for them too."""
    engine, rows = spec.engine, 1 + speculation.spec.tokens
    sizes = engine.graph_batch_sizes or _graph_sizes(spec, inputs)
    if engine.graph_batch_sizes is None and engine.kind == "vllm":  # vLLM's are tokens, others' are sequences
        captured = captured_sizes(engine.max_num_seqs * rows, engine.max_num_batched_tokens)
        verify = graph_multiples(captured, rows)
    else:
        verify = tuple(size * rows for size in sizes)
    return SpeculativeStep(
        inputs.model,
        inputs.profile,
        engine.host_time + speculation.lookup_s,
        tokens=speculation.spec.tokens,
        tokens_per_step=speculation.tokens_per_step,
        draft=speculation.model,
        draft_tp=speculation.tp,
        projection=speculation.projection,
        parallel=spec.hardware.parallel,
        expert_skew=engine.expert_skew,
        graphs=engine.graphs,
        eager_launch_s=engine.eager_launch,
        graph_sizes=sizes,
        graph_padding=sizes is not TRTLLM_SIZES,
        verify_sizes=verify,
        draft_sizes=None if engine.kind == "vllm" else verify,
    )


def _graph_sizes(spec: ScenarioSpec, inputs: Inputs) -> tuple[int, ...]:
    """Decode batches that the engine captures graphs of by default."""
    engine = spec.engine
    if engine.kind == "tensorrt_llm":
        return TRTLLM_SIZES
    if engine.kind == "sglang":
        return sglang_sizes(inputs.profile.hbm_bytes, spec.hardware.tp)
    return captured_sizes(engine.max_num_seqs, engine.max_num_batched_tokens)
