"""Everything that a scenario names, loaded and checked against each other."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Protocol, TypeVar

from hw_profiles.devices import Device
from hw_profiles.errors import InputError
from hw_profiles.l2 import l2_model
from hw_profiles.loader import load_profile
from hw_profiles.models import ModelSpec, load_model
from hw_profiles.profile import Profile
from hw_profiles.sampling import Draw, sampled_device, sampled_profile
from hw_profiles.scaling import Machine
from policies.architecture.base import Architecture
from policies.build import build_policy
from policies.scheduling.base import Scheduler
from sim.block_sizes import block_sizes
from sim.cache_state import CacheState, read_state
from sim.cost.framework import FRAMEWORKS, framework_footprint, framework_limits
from sim.cost.graphs import sglang_sizes
from sim.cost.kv import KVLayout, kv_layout
from sim.cost.memory import HBMBudget, Limits, better_layout, hbm_budget, static_share
from sim.disaggregation_spec import KV_LINK
from sim.engine.footprint import Footprint
from sim.link_inputs import Link, check_pinned, link_models, load_tier_device, of_replicas, with_links
from sim.scenario import Scenario
from sim.sequence import Planned, plan_sequence
from sim.snapshot import SUFFIX, Snapshot, read_snapshot
from sim.spec import ScenarioSpec
from sim.spec_base import resolved_path
from sim.speculation import Speculation, load_speculation
from traces.request import Trace
from traces.spec import TraceSpec
from traces.spec import build as build_trace

T = TypeVar("T")


@dataclass(frozen=True)
class Inputs:
    """What a run depends on besides the scenario and the version."""

    trace: Trace
    model: ModelSpec
    profile: Profile
    budget: HBMBudget
    layout: KVLayout
    """Where the KV of a replica is; `links` and `caps` of a GPU are those of all of its GPUs together."""
    hbm_bytes: int
    """KV that fits the GPUs of a replica."""
    caps: Mapping[str, float]
    """Bandwidths that several transfers share, bytes/s, by name (`sim.link_inputs`); of a replica's GPUs together."""
    links: Mapping[str, Link]
    """Links by name: those of the GPU (`pcie_h2d`, `pcie_d2h`), and those of tiers that have their own (`ssd_read`
    toward the GPU, `ssd_write` away from it, ...)."""
    blocks: Mapping[str, int]
    """Tokens of one block of each tier, by name."""
    warm_start: CacheState | None
    """What the tiers hold at the start."""
    devices: Mapping[str, Device]
    """Devices behind tiers, by name of the tier, with what `links` says in place of their values; that of the links
    between prefill and decode instances is `KV_LINK`."""
    footprint: Footprint | None = None
    """What a sequence holds in HBM and in host memory, where that is not one block per so many tokens."""
    host_limit: float | None = None
    """Host memory of a replica for the KV that sequences keep there, bytes; None: nobody says."""
    planned: Planned | None = None
    """What policies within a sequence make of it."""
    speculation: Speculation | None = None
    """Who drafts tokens, if anybody does."""
    snapshot: Snapshot | None = None
    """The run that this one goes on from."""
    scheduler: Callable[[], Scheduler] | None = None
    """Makes the scheduling policy of a replica; None: the engine's own order."""
    seed: int = 0
    """Of the scenario."""

    @property
    def token_bytes(self) -> int:
        """KV bytes of one token on all GPUs of a replica, as blocks count them."""
        return self.layout.token_bytes


class TraceReader(Protocol):
    """`traces.spec.build`, or what does the same from memory."""

    def __call__(self, spec: TraceSpec, seed: int, base_dir: str | Path = ".", *, strict: bool = False) -> Trace: ...


def load_inputs(
    scenario: Scenario,
    *,
    strict: bool = False,
    draw: Draw | None = None,
    read: TraceReader = build_trace,
    change: Callable[[Machine], Machine] | None = None,
) -> Inputs:
    """Load trace (with `read`), model and profile, and size the HBM. `strict` refuses a trace that needs a warning.

    With `draw`, values of profile and devices are drawn from their intervals (`hw_profiles.sampling`). With `change`,
    the run is on another machine: what it makes of this one, with all that the scenario sets (`hw_profiles.scaling`).

    Raises InputError naming the scenario's key."""
    spec, base = scenario.spec, scenario.base_dir
    model = _named(scenario, "model", lambda: load_model(resolved_path(spec.model, base)))
    model = model.with_dtypes(spec.engine.weights_dtype, spec.engine.kv_dtype)
    model = _transformed(scenario, model)
    profile = _named(scenario, "hardware.profile", lambda: load_profile(resolved_path(spec.hardware.profile, base)))
    devices = {
        t.name: _named(scenario, None, partial(load_tier_device, spec, t, base)) for t in spec.tiers if t.device_name
    }
    chosen = spec.disaggregation
    if chosen is not None:
        devices[KV_LINK] = _named(scenario, None, lambda: chosen.link.load(base))
    if draw is not None:
        profile = sampled_profile(profile, draw)
        devices = {
            name: sampled_device(device, lambda path, name=name: draw(f"{name}.{path}"))  # type: ignore[misc]
            for name, device in devices.items()
        }
    profile, caps = _named(scenario, None, lambda: with_links(profile, devices, spec))
    if change is not None:
        changed = change(Machine(profile, devices, caps))
        profile, devices, caps = changed.profile, dict(changed.devices), dict(changed.caps)
    parallel = spec.hardware.parallel
    _named(scenario, "hardware", lambda: parallel.check_model(model))
    if spec.engine.expert_skew and not any(layer.moe for layer in model.specs):
        problem, skew = f"{model.name} has no experts", spec.engine.expert_skew
        raise InputError(problem, where=scenario.where, path="engine.expert_skew", found=skew, allowed="0")
    speculation = _named(scenario, None, lambda: load_speculation(spec, model, base))
    layout = _layout(spec, model, profile, speculation)
    apart = any(share.windows for share in layout.shares)
    trace = _named(scenario, "trace", lambda: read(spec.trace, spec.seed, base, strict=strict))
    planned = _named(scenario, None, lambda: plan_sequence(scenario, model, hybrid=apart, longest=longest(trace)))
    _check_l2(scenario, profile, planned)
    _named(scenario, None, lambda: check_pinned(profile, spec))
    _check_period(scenario, model)
    links = _named(scenario, None, lambda: link_models(profile, devices, spec, layout.lanes))
    caps = of_replicas(caps, spec, layout.lanes)
    if chosen is not None:
        caps |= chosen.link.caps(devices[KV_LINK], layout.lanes, parallel.nodes)
    budget = _named(scenario, None, lambda: _budget(spec, model, profile, layout, planned, speculation))
    if trace.block_tokens % spec.engine.block_tokens:
        raise InputError(
            "the engine's block must divide the trace's hash block",
            where=scenario.where,
            path="engine.block_tokens",
            found=spec.engine.block_tokens,
            allowed=f"a divisor of {trace.block_tokens}",
        )
    if not spec.engine.prefix_caching:
        trace = trace.without_prefixes()
    blocks = _named(scenario, "tiers", lambda: block_sizes(spec, trace.block_tokens))
    hbm_bytes = budget.blocks * spec.engine.block_tokens * layout.token_bytes
    warm = snapshot = None
    if spec.warm_start is not None:
        begin = (base / Path(spec.warm_start.path).expanduser()).resolve()
        if begin.suffix == SUFFIX:
            snapshot = read_snapshot(begin)
        else:
            warm = read_state(begin)
    return Inputs(
        trace,
        model,
        profile,
        budget,
        layout,
        hbm_bytes,
        caps,
        links,
        blocks,
        warm,
        devices,
        footprint=_footprint(spec, model, layout, trace, planned),
        host_limit=spec.engine.host_kv_memory,
        planned=planned,
        speculation=speculation,
        snapshot=snapshot,
        scheduler=_scheduler(scenario),
        seed=spec.seed,
    )


def _scheduler(scenario: Scenario) -> Callable[[], Scheduler] | None:
    """What makes a replica's scheduling policy; tried once, so that what is wrong with it is told before the run."""
    named = scenario.spec.policies.scheduling
    if named is None:
        return None
    make = partial(
        build_policy, "scheduling", named.model_dump(), base_dir=scenario.base_dir, path="policies.scheduling"
    )
    _named(scenario, None, make)
    return make


def _footprint(
    spec: ScenarioSpec, model: ModelSpec, layout: KVLayout, trace: Trace, planned: Planned | None
) -> Footprint | None:
    """What a sequence holds; None if that is one block per so many tokens."""
    engine = spec.engine
    framework, static = FRAMEWORKS[engine.framework], engine.scheduling == "static"
    slot = (engine.slot_tokens or longest(trace)) if framework.slots else None
    own = None if planned is None else Footprint(planned.decoding, planned.prefilling, planned.host)
    parts = 1 if planned is None else planned.plan.gpu_batches
    if own == Footprint():
        own = None
    return framework_footprint(
        framework, model, spec.hardware.parallel, layout, own, static=static, slot_tokens=slot, parts=parts
    )


def longest(trace: Trace) -> int:
    """Tokens of the longest request, prompt and output."""
    return int((trace.input_tokens + trace.output_tokens).max(initial=1))


def _transformed(scenario: Scenario, model: ModelSpec) -> ModelSpec:
    """The model as the scenario's architecture policy makes it."""
    named = scenario.spec.policies.architecture
    if named is None:
        return model
    path = "policies.architecture"

    def apply() -> ModelSpec:
        policy: Architecture = build_policy("architecture", named.model_dump(), base_dir=scenario.base_dir, path=path)
        try:
            return policy.apply(model)
        except InputError as error:
            raise error.at(path=path) from None

    return _named(scenario, None, apply)


def _check_l2(scenario: Scenario, profile: Profile, planned: Planned | None) -> None:
    """InputError if KV is to be prefetched into an L2 that the profile says too little of."""
    if planned is not None and planned.plan.l2_lookahead and not planned.plan.plain:
        problem = "prefetch into L2 goes with no other policy within a sequence in this version"
        raise InputError(problem, where=scenario.where, path="policies.sequence_prefetch")
    needed = ("tiers.l2.read", "tiers.l2.full_hit_bytes", "tiers.l2.full_miss_bytes", "tiers.hbm.latency")
    missing = [path for path in needed if path not in profile.entries]
    wanted = scenario.spec.engine.l2_prefetch or (planned is not None and planned.plan.l2_lookahead)
    if wanted and missing:
        path = "engine.l2_prefetch" if scenario.spec.engine.l2_prefetch else "policies.sequence_prefetch"
        problem = f"profile {profile.name} does not say how its L2 behaves: it has no {' and no '.join(missing)}"
        raise InputError(problem, where=scenario.where, path=path)
    if wanted:
        l2_model(profile)


def _check_period(scenario: Scenario, model: ModelSpec) -> None:
    """InputError unless blocks of the engine hold whole entries of a cache that has one for several tokens."""
    block = scenario.spec.engine.block_tokens
    if scenario.spec.engine.prefix_caching and block % model.period:
        problem = f"{model.name} keeps one entry for {model.period} tokens, so a block must hold a multiple of them"
        raise InputError(problem, where=scenario.where, path="engine.block_tokens", found=block)


def _limits(spec: ScenarioSpec, profile: Profile, speculation: Speculation | None) -> Limits:
    engine = spec.engine
    limits = Limits(
        block_tokens=engine.block_tokens,
        utilization=engine.gpu_memory_utilization,
        max_tokens=engine.max_num_batched_tokens,
        max_seqs=engine.max_num_seqs,
        free_share=engine.free_gpu_memory_fraction or 1.0,
    )
    if engine.kind == "sglang":
        hardware, tokens = spec.hardware, engine.max_num_batched_tokens
        largest = max(engine.graph_batch_sizes or sglang_sizes(profile.hbm_bytes, hardware.tp))
        share = static_share(profile.hbm_bytes, tokens, largest, hardware.parallel.gpus)
        limits = replace(limits, utilization=engine.mem_fraction_static or share, activations=False)
    limits = framework_limits(FRAMEWORKS[engine.framework], limits)
    return limits if speculation is None else speculation.limits(limits)


def _layout(spec: ScenarioSpec, model: ModelSpec, profile: Profile, speculation: Speculation | None) -> KVLayout:
    """Which layers the engine's blocks count."""
    parallel = spec.hardware.parallel
    if spec.engine.hybrid_kv_cache:
        layout = better_layout(model, profile, parallel, _limits(spec, profile, speculation))
    else:
        layout = kv_layout(model, parallel)
    return layout if speculation is None else speculation.layout(layout)


def _budget(
    spec: ScenarioSpec,
    model: ModelSpec,
    profile: Profile,
    layout: KVLayout,
    planned: Planned | None,
    speculation: Speculation | None,
) -> HBMBudget:
    """HBM of one GPU: with the engine's block count, or the HBM tier's capacity, if the scenario sets one."""
    blocks, hbm = spec.engine.num_gpu_blocks, spec.tiers[0]
    if hbm.capacity is not None:
        if blocks is not None:
            raise InputError("set either engine.num_gpu_blocks or tiers.hbm.capacity", path="tiers.hbm.capacity")
        blocks = hbm.capacity // (spec.engine.block_tokens * layout.token_bytes)
    limits = _limits(spec, profile, speculation)
    if planned is not None:
        fixed = round(planned.fixed / spec.hardware.tp)
        limits = replace(limits, weights_on_host=planned.plan.weights_on_host, fixed_bytes=fixed)
    return hbm_budget(model, profile, spec.hardware.parallel, limits, layout, blocks)


def _named(scenario: Scenario, path: str | None, load: Callable[[], T]) -> T:
    """`load()`, with the scenario's file and key put into its InputError."""
    try:
        return load()
    except InputError as error:
        raise error.at(where=scenario.where, path=path if error.where is None else None) from None
