"""From a scenario to runtime objects: replicas, tiers private or shared, links, routing, arrivals."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from hw_profiles.cost_models import LinkModel
from hw_profiles.errors import InputError
from hw_profiles.loader import load_profile
from hw_profiles.models import ModelSpec, load_model
from hw_profiles.profile import Profile
from policies.base import EvictionPolicy, OffloadPolicy, TierInfo
from policies.build import build_policy
from sim.clock import Clock
from sim.cost.memory import HBMBudget, hbm_budget
from sim.cost.step import StepCost
from sim.engine.batch import Batch, EngineLimits
from sim.engine.replica import Replica
from sim.engine.sequence import Sequence
from sim.hierarchy.cache import ReplicaCache
from sim.hierarchy.link import CopyEngine
from sim.hierarchy.mover import LowerTier
from sim.hierarchy.tier import Tier
from sim.recorder import Recorder
from sim.scenario import Scenario
from sim.spec import PolicySpec, TierSpec, resolved_path
from traces.request import Request, Trace
from traces.spec import build as build_trace


@dataclass(frozen=True)
class Inputs:
    """Everything that a scenario names, loaded: what the run depends on besides the scenario and the version."""

    trace: Trace
    model: ModelSpec
    profile: Profile
    budget: HBMBudget


def load_inputs(scenario: Scenario) -> Inputs:
    """Load trace, model and profile, and size the HBM. Raises InputError naming the scenario's key."""
    spec, base = scenario.spec, scenario.base_dir
    model = _named(scenario, "model", lambda: load_model(resolved_path(spec.model, base)))
    profile = _named(scenario, "hardware.profile", lambda: load_profile(resolved_path(spec.hardware.profile, base)))
    for name, link in spec.links.items():
        if name not in profile.links:
            raise InputError(
                "unknown link",
                where=scenario.where,
                path="links",
                found=name,
                allowed=profile.links,
                near=profile.links,
            )
        if link.bandwidth is not None:
            if not link.bandwidth > 0:
                raise InputError(
                    "",
                    where=scenario.where,
                    path=f"links.{name}.bandwidth",
                    found="0",
                    allowed="a rate > 0, such as '50 GB/s'",
                )
            profile = profile.override(f"links.{name}.beta", link.bandwidth)
        if link.latency is not None:
            profile = profile.override(f"links.{name}.alpha", link.latency)
    engine = spec.engine
    budget = _named(
        scenario,
        None,
        lambda: hbm_budget(
            model,
            profile,
            block_tokens=engine.block_tokens,
            utilization=engine.gpu_memory_utilization,
            max_tokens=engine.max_num_batched_tokens,
            max_seqs=engine.max_num_seqs,
            blocks=_exact_blocks(spec.tiers[0], engine.num_gpu_blocks, engine.block_tokens * model.kv_bytes_per_token),
        ),
    )
    trace = _named(scenario, "trace", lambda: build_trace(spec.trace, spec.seed, base))
    if trace.block_tokens % engine.block_tokens:
        raise InputError(
            "the engine's block must divide the trace's hash block",
            where=scenario.where,
            path="engine.block_tokens",
            found=engine.block_tokens,
            allowed=f"a divisor of {trace.block_tokens}",
        )
    return Inputs(trace, model, profile, budget)


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
        self.tier_names = [tier.name for tier in spec.tiers]
        self.tiers: list[list[Tier]] = [[] for _ in spec.tiers]
        self.links: list[CopyEngine] = []
        self.sequences: list[Sequence] = []
        self.done = 0
        self.trace = inputs.trace
        self._shared: dict[str, Tier] = {}
        cost = StepCost(inputs.model, inputs.profile, spec.engine.host_time)
        limits = EngineLimits(spec.engine.max_num_seqs, spec.engine.max_num_batched_tokens)
        self.replicas = [
            Replica(
                index,
                self.clock,
                cost,
                Batch(self._cache(index), limits, f"replica {index}"),
                self.recorder,
                self._on_finished,
                single_step=single_step,
            )
            for index in range(spec.hardware.replicas)
        ]
        arrivals = self._arrivals()
        self._next_arrival(arrivals)

    # ---- arrivals

    def _arrivals(self) -> Iterator[Request]:
        return (self.trace.request(index) for index in range(len(self.trace)))

    def _next_arrival(self, arrivals: Iterator[Request]) -> None:
        request = next(arrivals, None)
        if request is None:
            return

        def arrive() -> None:
            self._arrive(request)
            self._next_arrival(arrivals)

        self.clock.at(request.arrival_s, arrive)

    def _arrive(self, request: Request) -> None:
        seq = Sequence(request, request.hash_ids)
        self.sequences.append(seq)
        reason = self._too_long(request)
        if reason:
            seq.status = reason
            self.done += 1
            return
        self.replicas[request.index % len(self.replicas)].enqueue(seq)

    def _too_long(self, request: Request) -> str | None:
        """Why a request can never be served, or None. vLLM refuses it too; the KV of the last token is not needed."""
        tokens = request.input_tokens + request.output_tokens
        if tokens > self.inputs.model.max_context:
            return "rejected: longer than the model's context"
        if tokens - 1 > self.inputs.budget.blocks * self.scenario.spec.engine.block_tokens:
            return "rejected: longer than the KV cache"
        return None

    def _on_finished(self, _seq: Sequence) -> None:
        self.done += 1

    # ---- construction

    def _cache(self, replica: int) -> ReplicaCache:
        spec, inputs = self.scenario.spec, self.inputs
        hbm, *lower = (self._tier(level, tier, replica) for level, tier in enumerate(spec.tiers))
        links = [self._link(name, replica) for name in ("pcie_h2d", "pcie_d2h")] if lower else []
        offload: OffloadPolicy = self._policy("offload", spec.tiers[0], spec.policies.offload)
        return ReplicaCache(
            hbm,
            [LowerTier(tier, links[0], links[1]) for tier in lower],
            offload,
            hash_tokens=inputs.trace.block_tokens,
            block_tokens=spec.engine.block_tokens,
            token_bytes=inputs.model.kv_bytes_per_token,
        )

    def _tier(self, level: int, tier: TierSpec, replica: int) -> Tier:
        """The tier object of a replica: its own, or the one of its node or of the cluster."""
        node = replica // self.scenario.spec.hardware.gpus_per_node
        owner = {"private": str(replica), "node": f"node{node}", "cluster": "cluster"}[tier.shared]
        label = f"{tier.name}/{owner}"
        if label not in self._shared:
            capacity = self.inputs.budget.kv if level == 0 else tier.capacity
            assert capacity is not None
            block_tokens = self.inputs.trace.block_tokens or self.scenario.spec.engine.block_tokens
            info = TierInfo(tier.name, capacity, block_tokens * self.inputs.model.kv_bytes_per_token)
            policy: EvictionPolicy = self._policy("eviction", tier, self.scenario.spec.policies.eviction, info)
            self._shared[label] = Tier(tier.name, label, capacity, policy)
            self.tiers[level].append(self._shared[label])
        return self._shared[label]

    def _policy(self, family: str, tier: TierSpec, default: PolicySpec, *args: object) -> Any:
        own: PolicySpec | None = getattr(tier, family)
        path = f"policies.{family}" if own is None else f"tiers.{tier.name}.{family}"
        chosen = (own or default).model_dump()
        try:
            return build_policy(family, chosen, *args, base_dir=self.scenario.base_dir, path=path)
        except InputError as error:
            raise error.at(where=self.scenario.where) from None

    def _link(self, name: str, replica: int) -> CopyEngine:
        model: LinkModel = self.inputs.profile.links[name]
        link = CopyEngine(name, replica, model, self.clock, self.recorder)
        self.links.append(link)
        return link


def _exact_blocks(hbm: TierSpec, blocks: int | None, block_bytes: int) -> int | None:
    """KV blocks set by the scenario: the engine's count, or the HBM tier's capacity; None to derive them."""
    if hbm.capacity is None:
        return blocks
    if blocks is not None:
        raise InputError("set either engine.num_gpu_blocks or tiers.hbm.capacity", path="tiers.hbm.capacity")
    return hbm.capacity // block_bytes


def _named(scenario: Scenario, path: str | None, load):  # type: ignore[no-untyped-def]
    """`load()`, with the scenario's file and key put into its InputError."""
    try:
        return load()
    except InputError as error:
        raise error.at(where=scenario.where, path=path if error.where is None else None) from None
