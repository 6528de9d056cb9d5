"""The hierarchy of a cluster: tiers private or shared, copy engines, and the bandwidths that they share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from hw_profiles.errors import InputError
from hw_profiles.schema import CAPS
from policies.base import AdmissionPolicy, EvictionPolicy, OffloadPolicy, PrefetchPolicy, TierInfo
from policies.build import build_policy
from policies.tables import FAMILIES
from sim.clock import Clock
from sim.cost.step import StepCost
from sim.hierarchy.cache import ReplicaCache
from sim.hierarchy.future import Future
from sim.hierarchy.link import CopyEngine
from sim.hierarchy.mover import Source
from sim.hierarchy.network import Network, Resource
from sim.hierarchy.offload import Offload
from sim.hierarchy.place import Behind, Place
from sim.hierarchy.route import HOST, Hop, Route, RouteCosts
from sim.hierarchy.tier import Tier
from sim.inputs import Inputs
from sim.link_inputs import GPU_LINKS, NODE_CAPS, joint_name
from sim.recorder import Recorder
from sim.scenario import Scenario
from sim.spec_base import PolicySpec
from sim.tier_spec import LinkSpec, TierSpec


class Topology:
    """Builds the cache of each replica; tiers, links and shared bandwidths are made when first used.

    A tier of no size is no tier: nothing is built for it, and it comes last in `tier_names`. `make_engine` builds the
    copy engines.
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
        self.links: list[CopyEngine] = []
        self.resources: dict[tuple[str, str], Resource] = {}
        """Shared bandwidths by name and owner."""
        self._scenario = replace(scenario, spec=spec.model_copy(update={"tiers": present}))
        self._inputs = inputs
        self._clock = clock
        self._recorder = recorder
        self._network = Network(clock)
        self._by_label: dict[str, Tier] = {}
        self._places: dict[str, Place] = {}
        self._engines: dict[tuple[str, str], CopyEngine] = {}
        self._cost = cost
        self._make_engine = make_engine
        self.future = None if inputs.trace.closed_loop else Future(inputs.trace)
        """What arrives when; None where that depends on the system."""
        self._check_unused()

    def cache(self, replica: int) -> ReplicaCache:
        """The cache of a replica over its tiers and links."""
        spec, inputs = self._scenario.spec, self._inputs
        lower = [self._place(level, replica) for level in range(1, len(spec.tiers))]
        sources = [Source(place, *self._way_in(level, lower, replica)) for level, place in enumerate(lower, start=1)]
        behind = {p.tier.name: Behind(p, self._way_out(i, replica)) for i, p in enumerate(lower, start=1)}
        here = self._make_place(0, self._tier(0, spec.tiers[0], replica), behind, replica)
        loading = spec.engine.loading
        return ReplicaCache(
            here,
            sources,
            hash_tokens=inputs.trace.block_tokens,
            block_tokens=spec.engine.block_tokens,
            token_bytes=inputs.token_bytes,
            choose=self.costs(replica) if loading.choose == "by_cost" else None,
            layerwise=loading.mode == "layerwise",
            admitted=None if self.future is None else self.future.admitted,
            empty=[tier.name for tier in self.empty],
        )

    def costs(self, replica: int) -> RouteCosts:
        """What it takes to load prefixes into a replica's HBM, and to compute them there."""
        return RouteCosts(self._recompute_s, self._scenario.spec.tiers[0].name, {}, self._loads(replica))

    def held_bytes(self) -> dict[str, int]:
        """Bytes of KV that each tier holds, over all replicas and nodes; HBM first, none of no size."""
        replicas = range(self._scenario.spec.hardware.replicas)
        return {
            tier.name: self._capacity(level) * len({self._label(tier, replica) for replica in replicas})
            for level, tier in enumerate(self._scenario.spec.tiers)
        }

    def prefetch(self) -> PrefetchPolicy | None:
        """The prefetch policy of one replica, if the scenario names one and there is a tier to fetch from."""
        spec = self._scenario.spec
        if spec.policies.prefetch is None or len(spec.tiers) == 1:
            return None
        policy: PrefetchPolicy = self._policy("prefetch", spec.tiers[0], spec.policies.prefetch)
        return policy if policy.listens else None

    # ---- places

    def _place(self, level: int, replica: int) -> Place:
        """The tier of a level as a replica sees it, with what lies behind it; one for all that share it."""
        spec = self._scenario.spec
        tier = self._tier(level, spec.tiers[level], replica)
        if tier.label not in self._places:
            behind = {}
            for further in range(level + 1, len(spec.tiers)):
                place = self._place(further, replica)
                route = self._way_between(level, further, replica)
                behind[place.tier.name] = Behind(place, route, self._near_way(level, further, replica))
            self._places[tier.label] = self._make_place(level, tier, behind, replica)
        return self._places[tier.label]

    def _make_place(self, level: int, tier: Tier, behind: dict[str, Behind], replica: int) -> Place:
        spec, policies = self._scenario.spec.tiers[level], self._scenario.spec.policies
        others = [b.place.tier for b in behind.values()]
        policy: OffloadPolicy = self._policy("offload", spec, policies.offload)
        costs = RouteCosts(self._recompute_s, tier.name, {n: b.route for n, b in behind.items()}, self._loads(replica))
        offload = Offload(policy, tier, others, costs, lambda: self._clock.now)
        admission: AdmissionPolicy | None = None
        if level and (spec.admission or policies.admission) is not None:
            admission = self._policy("admission", spec, policies.admission, self._info(spec, tier.capacity, replica))
        token_bytes = self._inputs.token_bytes
        host = self._host_level(level)
        near = None if host is None else self._tier(host, self._scenario.spec.tiers[host], replica)
        return Place(tier, offload, admission, behind, token_bytes, inclusive=spec.inclusive, host=near)

    # ---- ways

    def _loads(self, replica: int) -> dict[str, Route]:
        """The way from every tier behind HBM to it."""
        tiers = self._scenario.spec.tiers
        return {tiers[level].name: self._route_in(level, replica) for level in range(1, len(tiers))}

    def _way_in(self, level: int, lower: list[Place], replica: int) -> tuple[Route, Place | None, dict[int, Route]]:
        """The way from a tier to HBM, the tier on it that may keep a copy of what passes, the ways to other tiers."""
        route = self._route_in(level, replica)
        host = self._host_level(level)
        stop = lower[host - 1] if len(route) > 1 and host is not None else None
        return route, stop, {into: self._way_between(level, into, replica) for into in range(1, level)}

    def _host_level(self, level: int) -> int | None:
        """Host memory nearer to the GPU than `level`, if it is a tier."""
        return next((i for i, t in enumerate(self._scenario.spec.tiers[:level]) if t.kind == "host"), None)

    def _route_in(self, level: int, replica: int) -> Route:
        tier = self._scenario.spec.tiers[level]
        if tier.kind == "host":
            return (self._hop("pcie_h2d", level, replica, tier.name, "hbm"),)
        if tier.kind == "memory" or tier.direct:
            return (self._hop(f"{tier.name}_read", level, replica, tier.name, "hbm"),)
        host = self._host_name(level)
        return (
            self._hop(f"{tier.name}_read", level, replica, tier.name, host),
            self._hop("pcie_h2d", level, replica, host, "hbm"),
        )

    def _way_out(self, level: int, replica: int) -> Route:
        """The way from HBM to a tier."""
        tier = self._scenario.spec.tiers[level]
        if tier.kind == "host":
            return (self._hop("pcie_d2h", level, replica, "hbm", tier.name),)
        if tier.kind == "memory" or tier.direct:
            return (self._hop(f"{tier.name}_write", level, replica, "hbm", tier.name),)
        return (
            self._hop("pcie_d2h", level, replica, "hbm", HOST),
            self._hop(f"{tier.name}_write", level, replica, HOST, tier.name),
        )

    def _way_between(self, level: int, further: int, replica: int) -> Route:
        """The way from one tier behind HBM to another one behind that: by the devices themselves, not by the GPU."""
        tiers = self._scenario.spec.tiers
        source, target = tiers[level], tiers[further]
        route: Route = ()
        if source.kind in ("device", "memory"):
            end = target.name if target.kind == "host" else HOST
            route = (self._hop(f"{source.name}_read", level, replica, source.name, end),)
        if target.kind in ("device", "memory"):
            start = HOST if route else source.name
            route = (*route, self._hop(f"{target.name}_write", further, replica, start, target.name))
        return route

    def _near_way(self, level: int, further: int, replica: int) -> Route | None:
        """The way from host memory to the tier `further` on, for what a device at `level` stores there too."""
        host = self._host_level(level)
        if host is None or self._scenario.spec.tiers[level].kind != "device":
            return None
        return self._way_between(host, further, replica)

    def _host_name(self, level: int) -> str:
        host = self._host_level(level)
        return HOST if host is None else self._scenario.spec.tiers[host].name

    def _hop(self, link: str, level: int, replica: int, src: str, dst: str) -> Hop:
        """One link of a way. A copy is a block of a disk's or a network's tier (file systems and transfer engines split
        what is longer than the copies that the device was measured with); for the GPU it is an engine block, or a piece
        of one where the layout says so.

        The GPUs of a replica copy their parts of it at the same time, and each has the layers of its stage.
        """
        spec, inputs = self._scenario.spec, self._inputs
        tier, layout = spec.tiers[level], inputs.layout
        unit = inputs.blocks[tier.name] * inputs.token_bytes
        if link.startswith("pcie") or tier.kind == "memory":
            pieces = {"block": 1, "layer": layout.layers, "layer_kv": layout.layers * layout.tensors}
            unit = spec.engine.block_tokens * inputs.token_bytes // pieces[spec.engine.kv_layout]
        elif (measured := inputs.devices[tier.name].measured_copies) is not None:
            unit = min(unit, int(measured[1]))
        shared, slow = self._via(link, level, replica, src, dst), self._pageable(link, src, dst)
        return Hop(self._engine(link, level, replica), src, dst, unit, shared, slow)

    def _pageable(self, link: str, src: str, dst: str) -> float:
        """Share of the host memory at the end of a GPU's link that is not page-locked."""
        ends = [t for t in self._scenario.spec.tiers if t.name in (src, dst) and t.pinned is not None]
        if not link.startswith("pcie") or not ends:
            return 0.0
        pinned, capacity = ends[0].pinned, ends[0].capacity
        return max(0.0, 1 - pinned / capacity) if pinned is not None and capacity else 0.0

    def _via(self, link: str, level: int, replica: int, src: str, dst: str) -> tuple[Resource, ...]:
        """What a copy from or to a disk or a network shares: a GPU's link if it is direct, else the host's memory."""
        tier, node = self._scenario.spec.tiers[level], self._node(replica)
        if link.startswith("pcie") or tier.kind != "device":
            return ()
        if tier.direct and "hbm" in (src, dst):
            return self._resources(dict.fromkeys(CAPS, str(replica)) | {"host_root": node})
        return self._resources({"dram": node})

    def _recompute_s(self, start: int, tokens: int) -> float:
        return self._cost.recompute_s(tokens, start)

    # ---- tiers and links

    def _node(self, replica: int) -> str:
        """The node of a replica's first GPU."""
        hardware = self._scenario.spec.hardware
        return f"node{replica * hardware.parallel.gpus // hardware.gpus_per_node}"

    def _label(self, tier: TierSpec, replica: int) -> str:
        owner = {"private": str(replica), "node": self._node(replica), "cluster": "cluster"}[tier.shared]
        return f"{tier.name}/{owner}"

    def _capacity(self, level: int) -> int:
        """Bytes of one tier of a level."""
        spec = self._scenario.spec
        tier = spec.tiers[level]
        capacity = self._inputs.hbm_bytes if level == 0 else tier.capacity
        assert capacity is not None
        return capacity * (spec.hardware.parallel.nodes if tier.shared == "node" else 1)

    def _tier(self, level: int, tier: TierSpec, replica: int) -> Tier:
        """The tier object of a replica: its own, or the one of its node or of the cluster."""
        label = self._label(tier, replica)
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
                leaf_only=tier.leaf_only,
                block_tokens=tokens,
                span=span,
                page_locked=locked,
            )
            self.tiers[level].append(self._by_label[label])
        return self._by_label[label]

    def _info(self, tier: TierSpec, capacity: int, replica: int) -> TierInfo:
        hash_tokens = self._inputs.trace.block_tokens or self._scenario.spec.engine.block_tokens
        size = hash_tokens * self._span(tier) * self._inputs.token_bytes
        return TierInfo(tier.name, capacity, size, lambda: self._clock.now, self._next_use(tier, replica))

    def _span(self, tier: TierSpec) -> int:
        """Hashes of the trace per block of a tier."""
        hash_tokens = self._inputs.trace.block_tokens
        return max(1, self._inputs.blocks[tier.name] // hash_tokens) if hash_tokens else 1

    def _next_use(self, tier: TierSpec, replica: int) -> Callable[[int], float] | None:
        """When a key is used next by a request that looks into this tier; if only round robin says which ones do."""
        if self.future is None:
            return None
        if self._scenario.spec.routing.name != "round_robin":
            return self.future.of(lambda _: True)
        label, replicas = self._label(tier, replica), self._scenario.spec.hardware.replicas
        users = {other for other in range(replicas) if self._label(tier, other) == label}
        return self.future.of(lambda index: index % replicas in users)

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

    def _engine(self, name: str, level: int, replica: int) -> CopyEngine:
        """One direction of a link, over the bandwidths that it shares with the other direction and its host.

        A GPU has its own engines for its PCIe link and for memory behind a link of its own, and those of a replica's
        GPUs work in step, as one; a disk belongs to its tier, a network link to a node.
        """
        tier, node = self._scenario.spec.tiers[level], self._node(replica)
        of_gpu = name.startswith("pcie") or tier.kind == "memory"
        owner = str(replica) if of_gpu else node if tier.name == "remote" else self._label(tier, replica)
        if (name, owner) not in self._engines:
            shared = {joint_name(tier): owner}
            if name.startswith("pcie"):
                shared = dict.fromkeys(CAPS, str(replica)) | dict.fromkeys(NODE_CAPS, node)
            path = self._resources(shared)
            model = self._inputs.links[name]
            index = replica if of_gpu else -1
            chunk = self._scenario.spec.links.get(name, LinkSpec()).chunk
            if chunk is not None and of_gpu:
                chunk = round(chunk * self._inputs.layout.lanes)
            pageable = self._inputs.profile.pageable(name) if name in GPU_LINKS else None
            engine = self._make_engine(
                name,
                index,
                model,
                path,
                self._network,
                self._clock,
                self._recorder,
                chunk_bytes=chunk,
                pageable=None if pageable is None else pageable * self._inputs.layout.lanes,
            )
            self._engines[name, owner] = engine
            self.links.append(engine)
        return self._engines[name, owner]

    def _resources(self, owners: Mapping[str, str]) -> tuple[Resource, ...]:
        """Those of the shared bandwidths, named with their owners, that are limited."""
        return tuple(self._resource(cap, owner) for cap, owner in owners.items() if cap in self._inputs.caps)

    def _resource(self, name: str, owner: str) -> Resource:
        key = (name, owner)
        if key not in self.resources:
            both = name.endswith("_joint") and name not in CAPS
            self.resources[key] = Resource(f"{name}/{owner}", self._inputs.caps[name], least=2 if both else 1)
        return self.resources[key]
