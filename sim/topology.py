"""The hierarchy of a cluster: tiers private or shared, copy engines, and the bandwidths that they share."""

from __future__ import annotations

from typing import Any

from hw_profiles.errors import InputError
from hw_profiles.schema import CAPS
from policies.base import EvictionPolicy, OffloadPolicy, TierInfo
from policies.build import build_policy
from sim.clock import Clock
from sim.hierarchy.cache import ReplicaCache
from sim.hierarchy.link import CopyEngine
from sim.hierarchy.mover import LowerTier
from sim.hierarchy.network import Network, Resource
from sim.hierarchy.tier import Tier
from sim.inputs import NODE_CAPS, Inputs
from sim.recorder import Recorder
from sim.scenario import Scenario
from sim.spec import PolicySpec, TierSpec


class Topology:
    """Builds the cache of each replica; tiers, links and shared bandwidths are made when first used."""

    def __init__(self, scenario: Scenario, inputs: Inputs, clock: Clock, recorder: Recorder) -> None:
        self.tier_names = [tier.name for tier in scenario.spec.tiers]
        self.tiers: list[list[Tier]] = [[] for _ in scenario.spec.tiers]
        """Tiers of each level: one per replica, per node, or one."""
        self.links: list[CopyEngine] = []
        self.resources: dict[tuple[str, str], Resource] = {}
        """Shared bandwidths by name and owner."""
        self._scenario = scenario
        self._inputs = inputs
        self._clock = clock
        self._recorder = recorder
        self._network = Network(clock)
        self._by_label: dict[str, Tier] = {}

    def cache(self, replica: int) -> ReplicaCache:
        """The cache of a replica over its tiers and links."""
        spec, inputs = self._scenario.spec, self._inputs
        hbm, *lower = (self._tier(level, tier, replica) for level, tier in enumerate(spec.tiers))
        engines = [self._engine(name, replica) for name in ("pcie_h2d", "pcie_d2h")] if lower else []
        offload: OffloadPolicy = self._policy("offload", spec.tiers[0], spec.policies.offload)
        return ReplicaCache(
            hbm,
            [LowerTier(tier, engines[0], engines[1]) for tier in lower],
            offload,
            hash_tokens=inputs.trace.block_tokens,
            block_tokens=spec.engine.block_tokens,
            token_bytes=inputs.model.kv_bytes_per_token,
        )

    def _node(self, replica: int) -> str:
        return f"node{replica // self._scenario.spec.hardware.gpus_per_node}"

    def _tier(self, level: int, tier: TierSpec, replica: int) -> Tier:
        """The tier object of a replica: its own, or the one of its node or of the cluster."""
        owner = {"private": str(replica), "node": self._node(replica), "cluster": "cluster"}[tier.shared]
        label = f"{tier.name}/{owner}"
        if label not in self._by_label:
            capacity = self._inputs.budget.kv if level == 0 else tier.capacity
            assert capacity is not None
            block_tokens = self._inputs.trace.block_tokens or self._scenario.spec.engine.block_tokens
            info = TierInfo(tier.name, capacity, block_tokens * self._inputs.model.kv_bytes_per_token)
            policy: EvictionPolicy = self._policy("eviction", tier, self._scenario.spec.policies.eviction, info)
            self._by_label[label] = Tier(tier.name, label, capacity, policy)
            self.tiers[level].append(self._by_label[label])
        return self._by_label[label]

    def _policy(self, family: str, tier: TierSpec, default: PolicySpec, *args: object) -> Any:
        own: PolicySpec | None = getattr(tier, family)
        path = f"policies.{family}" if own is None else f"tiers.{tier.name}.{family}"
        chosen = (own or default).model_dump()
        try:
            return build_policy(family, chosen, *args, base_dir=self._scenario.base_dir, path=path)
        except InputError as error:
            raise error.at(where=self._scenario.where) from None

    def _engine(self, name: str, replica: int) -> CopyEngine:
        """One direction of a GPU's link, over the bandwidths that it shares with the other direction and its host."""
        owners = dict.fromkeys(CAPS, str(replica)) | dict.fromkeys(NODE_CAPS, self._node(replica))
        path = tuple(self._resource(cap, owner) for cap, owner in owners.items() if cap in self._inputs.caps)
        model = self._inputs.profile.links[name]
        engine = CopyEngine(name, replica, model, path, self._network, self._clock, self._recorder)
        self.links.append(engine)
        return engine

    def _resource(self, name: str, owner: str) -> Resource:
        key = (name, owner)
        if key not in self.resources:
            self.resources[key] = Resource(f"{name}/{owner}", self._inputs.caps[name])
        return self.resources[key]
