"""The hierarchy of a cluster: its tiers, private or shared, with their policies, over the ways between them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from hw_profiles.errors import InputError
from policies.base import AdmissionPolicy, EvictionPolicy, OffloadPolicy, PrefetchPolicy, TierInfo
from policies.build import build_policy
from policies.tables import FAMILIES
from sim.clock import Clock
from sim.cost.step import StepCost
from sim.hierarchy.cache import ReplicaCache
from sim.hierarchy.future import Future
from sim.hierarchy.link import CopyEngine
from sim.hierarchy.mover import Source
from sim.hierarchy.offload import Offload
from sim.hierarchy.place import Behind, Place
from sim.hierarchy.queued import QueueIndex
from sim.hierarchy.route import RouteCosts
from sim.hierarchy.tier import Tier
from sim.inputs import Inputs
from sim.recorder import Recorder
from sim.scenario import Scenario
from sim.spec_base import PolicySpec
from sim.tier_spec import TierSpec
from sim.ways import Ways


class Topology:
    """Builds the cache of each replica; tiers are made when first used.

    A tier of no size is no tier: nothing is built for it, and it comes last in `tier_names`. `ways`: the links;
    `make_engine` builds their copy engines.
    """

    def __init__(
        self,
        scenario: Scenario,
        inputs: Inputs,
        clock: Clock,
        recorder: Recorder,
        cost: StepCost,
        make_engine: Callable[..., CopyEngine] = CopyEngine,
    ) -> None:
        spec = scenario.spec
        present = tuple(tier for level, tier in enumerate(spec.tiers) if not level or tier.capacity)
        self.empty = tuple(tier for tier in spec.tiers if tier not in present)
        self.tier_names = [tier.name for tier in (*present, *self.empty)]
        self.tiers: list[list[Tier]] = [[] for _ in self.tier_names]
        """Tiers of each level: one per replica, per node, or one; none of no size."""
        self._scenario = replace(scenario, spec=spec.model_copy(update={"tiers": present}))
        self._inputs = inputs
        self._clock = clock
        self.ways = Ways(self._scenario.spec, spec.tiers, inputs, clock, recorder, make_engine)
        self._by_label: dict[str, Tier] = {}
        self._places: dict[str, Place] = {}
        self._queues: defaultdict[int, QueueIndex] = defaultdict(QueueIndex)
        """By replica."""
        self._cost = cost
        self.future = None if inputs.trace.closed_loop else Future(inputs.trace)
        """What arrives when; None where that depends on the system."""
        self._check_unused()

    def cache(self, replica: int) -> ReplicaCache:
        """The cache of a replica over its tiers and links."""
        spec, inputs = self._scenario.spec, self._inputs
        lower = [self._place(level, replica) for level in range(1, len(spec.tiers))]
        sources = [self._source(level, lower, replica) for level in range(1, len(spec.tiers))]
        behind = {p.tier.name: Behind(p, self.ways.out(i, replica)) for i, p in enumerate(lower, start=1)}
        here = self._make_place(0, self._tier(0, spec.tiers[0], replica), behind, replica)
        loading = spec.engine.loading
        return ReplicaCache(
            here,
            sources,
            hash_tokens=inputs.trace.block_tokens,
            keeping=spec.engine.prefix_caching,
            block_tokens=spec.engine.block_tokens,
            token_bytes=inputs.token_bytes,
            choose=self.costs(replica) if loading.choose == "by_cost" else None,
            layerwise=loading.mode != "blocking",
            synchronous=loading.mode == "synchronous",
            answers=spec.engine.offload_answers,
            admitted=None if self.future is None else self.future.admitted,
            empty=[tier.name for tier in self.empty],
            footprint=inputs.footprint,
            least_load=loading.least_tokens,
            queue=self._queues[replica],
        )

    def private(self, replica: int) -> list[Tier]:
        """The tiers that no other replica has."""
        own = [f"{tier.name}/{replica}" for tier in self._scenario.spec.tiers if tier.shared == "private"]
        return [self._by_label[label] for label in own]

    def costs(self, replica: int) -> RouteCosts:
        """What it takes to load prefixes into a replica's HBM, and to compute them there."""
        return RouteCosts(self._recompute_s, self._scenario.spec.tiers[0].name, {}, self.ways.loads(replica))

    def held_bytes(self) -> dict[str, int]:
        """Bytes of KV that each tier holds, over all replicas and nodes; HBM first, none of no size."""
        replicas = range(self._scenario.spec.hardware.replicas)
        return {
            tier.name: self._capacity(level) * len({self.ways.label(tier, replica) for replica in replicas})
            for level, tier in enumerate(self._scenario.spec.tiers)
        }

    def prefetch(self) -> PrefetchPolicy | None:
        """The prefetch policy of one replica, if the scenario names one and there is a tier to fetch from."""
        spec = self._scenario.spec
        if spec.policies.prefetch is None or len(spec.tiers) == 1:
            return None
        policy: PrefetchPolicy = self._policy("prefetch", spec.tiers[0], spec.policies.prefetch)
        return policy if policy.listens else None

    # ---- a running system that changes (sim.snapshot_changes)

    def changed(self, scenario: Scenario, inputs: Inputs) -> None:
        """From now on policies and sizes are those of another scenario with the same tiers."""
        present = tuple(t for t in scenario.spec.tiers if t.name not in {empty.name for empty in self.empty})
        self._scenario = replace(scenario, spec=scenario.spec.model_copy(update={"tiers": present}))
        self._inputs = inputs
        self._check_unused()

    def capacity(self, level: int) -> int:
        """Bytes of one tier of a level, as the scenario has it."""
        return self._capacity(level)

    def eviction_of(self, tier: Tier, level: int) -> EvictionPolicy:
        """An eviction policy for a tier, as the scenario has it."""
        spec = self._scenario.spec
        users = range(spec.hardware.replicas)
        replica = next(r for r in users if self.ways.label(spec.tiers[level], r) == tier.label)
        info = self._info(spec.tiers[level], tier.capacity, replica)
        policy: EvictionPolicy = self._policy("eviction", spec.tiers[level], spec.policies.eviction, info)
        return policy

    def offload_of(self, level: int, tier: Tier, behind: Mapping[str, Behind], replica: int) -> Offload:
        """What decides which blocks of a tier go on to those behind it."""
        spec = self._scenario.spec
        policy: OffloadPolicy = self._policy("offload", spec.tiers[level], spec.policies.offload)
        ways = {name: b.route for name, b in behind.items()}
        costs = RouteCosts(self._recompute_s, tier.name, ways, self.ways.loads(replica))
        return Offload(policy, tier, [b.place.tier for b in behind.values()], costs, lambda: self._clock.now)

    def admission_of(self, level: int, tier: Tier, replica: int) -> AdmissionPolicy | None:
        """What decides which blocks enter a tier; None: all may, as into HBM."""
        spec, policies = self._scenario.spec.tiers[level], self._scenario.spec.policies
        if not level or (spec.admission or policies.admission) is None:
            return None
        info = self._info(spec, tier.capacity, replica)
        policy: AdmissionPolicy = self._policy("admission", spec, policies.admission, info)
        return policy

    # ---- places

    def _source(self, level: int, lower: list[Place], replica: int) -> Source:
        """A tier as a replica loads from it; the tier on the way that may keep a copy of what passes."""
        route, host = self.ways.toward_gpu(level, replica), self.ways.host_level(level)
        stop = lower[host - 1] if len(route) > 1 and host is not None else None
        into = {nearer: self.ways.between(level, nearer, replica) for nearer in range(1, level)}
        return Source(lower[level - 1], route, stop, into)

    def _place(self, level: int, replica: int) -> Place:
        """The tier of a level as a replica sees it, with what lies behind it; one for all that share it."""
        spec = self._scenario.spec
        tier = self._tier(level, spec.tiers[level], replica)
        if tier.label not in self._places:
            behind = {}
            for further in range(level + 1, len(spec.tiers)):
                place = self._place(further, replica)
                route, near = self.ways.between(level, further, replica), self.ways.near(level, further, replica)
                behind[place.tier.name] = Behind(place, route, near)
            self._places[tier.label] = self._make_place(level, tier, behind, replica)
        return self._places[tier.label]

    def _make_place(self, level: int, tier: Tier, behind: dict[str, Behind], replica: int) -> Place:
        spec = self._scenario.spec.tiers[level]
        offload = self.offload_of(level, tier, behind, replica)
        admission = self.admission_of(level, tier, replica)
        token_bytes = self._inputs.token_bytes
        host = self.ways.host_level(level)
        near = None if host is None else self._tier(host, self._scenario.spec.tiers[host], replica)
        return Place(tier, offload, admission, behind, token_bytes, inclusive=spec.inclusive, host=near)

    def _recompute_s(self, start: int, tokens: int) -> float:
        return self._cost.recompute_s(tokens, start)

    # ---- tiers and links

    def _capacity(self, level: int) -> int:
        """Bytes of one tier of a level."""
        spec = self._scenario.spec
        tier = spec.tiers[level]
        capacity = self._inputs.hbm_bytes if level == 0 else tier.capacity
        assert capacity is not None
        return capacity * (spec.hardware.parallel.nodes if tier.shared == "node" else 1)

    def _tier(self, level: int, tier: TierSpec, replica: int) -> Tier:
        """The tier object of a replica: its own, or the one of its node or of the cluster."""
        label = self.ways.label(tier, replica)
        if label not in self._by_label:
            capacity = self._capacity(level)
            info = self._info(tier, capacity, replica)
            policy: EvictionPolicy = self._policy("eviction", tier, self._scenario.spec.policies.eviction, info)
            tokens, span = self._inputs.blocks[tier.name], self._span(tier)
            locked = None
            if tier.pinned is not None and tier.capacity is not None and tier.pinned < tier.capacity:
                locked = tier.pinned * (capacity // tier.capacity)
            self._by_label[label] = Tier(
                tier.name,
                label,
                capacity,
                policy,
                leaf_only=tier.leaf_only or self._scenario.spec.engine.kind == "sglang",
                block_tokens=tokens,
                span=span,
                page_locked=locked,
            )
            self.tiers[level].append(self._by_label[label])
        return self._by_label[label]

    def _info(self, tier: TierSpec, capacity: int, replica: int) -> TierInfo:
        hash_tokens = self._inputs.trace.block_tokens or self._scenario.spec.engine.block_tokens
        size = hash_tokens * self._span(tier) * self._inputs.token_bytes
        next_use, queue = self._next_use(tier, replica), self._queue(tier, replica)
        return TierInfo(tier.name, capacity, size, lambda: self._clock.now, next_use, queue)

    def _span(self, tier: TierSpec) -> int:
        """Hashes of the trace per block of a tier."""
        hash_tokens = self._inputs.trace.block_tokens
        return max(1, self._inputs.blocks[tier.name] // hash_tokens) if hash_tokens else 1

    def _next_use(self, tier: TierSpec, replica: int) -> Callable[[int], float] | None:
        """When a key is used next by a request that looks into this tier; if only round robin says which ones do."""
        if self.future is None:
            return None
        spec = self._scenario.spec
        some = spec.disaggregation is not None or (spec.fleet is not None and spec.fleet.on)
        if spec.routing.name != "round_robin" or some:
            return self.future.of(lambda _: True)
        label, replicas = self.ways.label(tier, replica), self._scenario.spec.hardware.replicas
        users = {other for other in range(replicas) if self.ways.label(tier, other) == label}
        return self.future.of(lambda index: index % replicas in users)

    def _queue(self, tier: TierSpec, replica: int) -> Callable[[int], float]:
        """The first place, in any queue of the replicas that use this tier, of a request with a key."""
        label, replicas = self.ways.label(tier, replica), range(self._scenario.spec.hardware.replicas)
        users = [self._queues[other] for other in replicas if self.ways.label(tier, other) == label]
        if len(users) == 1:
            return users[0].place
        return lambda key: min(user.place(key) for user in users)

    def _policy(self, family: str, tier: TierSpec, default: PolicySpec | None, *args: object) -> Any:
        own: PolicySpec | None = getattr(tier, family)
        if own is not None:
            return self._build(family, own, f"tiers.{tier.name}.{family}", *args)
        assert default is not None
        return self._build(family, default, f"policies.{family}", *args)

    def _build(self, family: str, named: PolicySpec, path: str, *args: object) -> Any:
        try:
            return build_policy(family, named.model_dump(), *args, base_dir=self._scenario.base_dir, path=path)
        except InputError as error:
            raise error.at(where=self._scenario.where) from None

    def _check_unused(self) -> None:
        """What no tier of this run uses must make sense too: defaults that all override, policies of empty tiers."""
        spec = self._scenario.spec
        info = self._info(spec.tiers[0], self._inputs.hbm_bytes, 0)
        for section, path in ((spec.policies, "policies"), *((tier, f"tiers.{tier.name}") for tier in self.empty)):
            for family in FAMILIES:
                named: PolicySpec | None = getattr(section, family)
                if named is not None:
                    args = (info,) if family in ("eviction", "admission") else ()
                    self._build(family, named, f"{path}.{family}", *args)
