"""The links of a cluster as ways: from tiers to the GPU, away from it, and between tiers behind it.

Tiers, with host memory between them, form a tree whose root is HBM: each names what it loads through (`via`), and has
one link with a direction each way: `pcie_h2d` and `pcie_d2h` for host memory, `<tier>_read` and `<tier>_write` for the
others. A way toward the GPU goes up that tree. Where bytes stop between two links without a tier that keeps them, they
lie in a bounce buffer of the host.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from hw_profiles.schema import CAPS
from sim.clock import Clock
from sim.disaggregation_spec import KV_IN, KV_OUT
from sim.hierarchy.link import CopyEngine
from sim.hierarchy.network import Network, Resource
from sim.hierarchy.route import HOST, Hop, Route
from sim.inputs import Inputs
from sim.link_inputs import GPU_LINKS, NODE_CAPS, joint_name
from sim.recorder import Recorder
from sim.spec import ScenarioSpec
from sim.tier_spec import HBM, LinkSpec, TierSpec, waypoint


class Ways:
    """Routes of every replica over copy engines and shared bandwidths, which are made when first used.

    spec       the scenario with the tiers that there are; levels count those
    declared   all its tiers: bytes also pass one of no size, which keeps nothing
    """

    def __init__(
        self,
        spec: ScenarioSpec,
        declared: Sequence[TierSpec],
        inputs: Inputs,
        clock: Clock,
        recorder: Recorder,
        make_engine: Callable[..., CopyEngine] = CopyEngine,
    ) -> None:
        self.links: list[CopyEngine] = []
        self.resources: dict[tuple[str, str], Resource] = {}
        """Shared bandwidths by name and owner."""
        self._spec = spec
        self._tiers = spec.tiers
        self._levels = {tier.name: level for level, tier in enumerate(spec.tiers)}
        self._declared = {tier.name: tier for tier in declared}
        self._inputs = inputs
        self._clock = clock
        self._recorder = recorder
        self.network = Network(clock)
        self._engines: dict[tuple[str, str], CopyEngine] = {}
        self._make_engine = make_engine

    def changed(self, inputs: Inputs) -> None:
        """From now on links and shared bandwidths are those of `inputs`; what moves goes on at its own pace."""
        self._inputs = inputs
        for engine in self.links:
            if engine.name in inputs.links:  # and not between pools of replicas, say
                engine.change_model(inputs.links[engine.name])
        for (name, _), resource in self.resources.items():
            resource.capacity = inputs.caps.get(name, resource.capacity)
        self.network.capacities_changed(self._clock.now, self.resources.values())

    # ---- ways

    def loads(self, replica: int) -> dict[str, Route]:
        """The way from every tier behind HBM to it."""
        return {self._tiers[level].name: self.toward_gpu(level, replica) for level in range(1, len(self._tiers))}

    def host_level(self, level: int) -> int | None:
        """The tier of host memory that what a tier moves passes, or (for what is direct) that lies beside its way."""
        tier, nearer = self._tiers[level], self._tiers[:level]
        via = waypoint(tier, nearer)
        if via == HBM:
            return next((i for i, t in enumerate(nearer) if t.kind == "host"), None)
        return None if via is None else self._levels.get(via)

    def toward_gpu(self, level: int, replica: int) -> Route:
        """The way from a tier to HBM. A tier keeps what passes only behind the first link."""
        tier = self._tiers[level]
        return self._up(tier, tier.name, replica, first=True)

    def _up(self, tier: TierSpec, src: str, replica: int, *, first: bool) -> Route:
        """The way of what lies at `src`, which is the tier or a buffer beside it, over the tier's link and on."""
        via = self._waypoint(tier)
        if via == HBM:
            return (self._hop(f"{tier.link}_{tier.toward_gpu}", tier, replica, src, HBM),)
        stop = via if first and via in self._levels else HOST
        hop = self._hop(f"{tier.link}_read", tier, replica, src, stop)
        if via is None:
            return (hop, self._hop("pcie_h2d", tier, replica, HOST, HBM))
        return (hop, *self._up(self._declared[via], stop, replica, first=False))

    def out(self, level: int, replica: int) -> Route:
        """The way from HBM to a tier."""
        tier = self._tiers[level]
        links: list[tuple[str, TierSpec]] = []
        via: str | None = tier.name
        while via != HBM:
            if via is None:
                links.append(("pcie_d2h", tier))
                break
            at = self._declared[via]
            links.append((f"{at.link}_{at.from_gpu}", at))
            via = self._waypoint(at)
        links.reverse()
        ends = [HBM, *[HOST] * (len(links) - 1), tier.name]
        return tuple(self._hop(link, at, replica, *ends[i : i + 2]) for i, (link, at) in enumerate(links))

    def between(self, level: int, other: int, replica: int) -> Route:
        """The way from one tier behind HBM to another one: over their own links by way of host memory, not of the GPU.

        None of it over the link of memory that the other tier's bytes pass anyway.
        """
        source, target = self._tiers[level], self._tiers[other]
        route: Route = ()
        if source.kind != "host" and self._waypoint(target) != source.name:
            beside = target.kind == "host" or self._waypoint(source) == target.name
            end = target.name if beside else HOST
            route = (self._hop(f"{source.link}_read", source, replica, source.name, end),)
        if target.kind != "host" and self._waypoint(source) != target.name:
            start = HOST if route else source.name
            route = (*route, self._hop(f"{target.link}_write", target, replica, start, target.name))
        return route

    def near(self, level: int, further: int, replica: int) -> Route | None:
        """The way from host memory to the tier `further` on, for what a device at `level` stores there too."""
        host = self.host_level(level)
        if host is None or self._tiers[level].kind != "device":
            return None
        return self.between(host, further, replica)

    def _waypoint(self, tier: TierSpec) -> str | None:
        level = self._levels.get(tier.name)
        return waypoint(tier, self._tiers if level is None else self._tiers[:level])

    # ---- links

    def host_link(self, replica: int) -> CopyEngine:
        """The link of a replica's GPUs from host memory, which weights come over too."""
        return self._engine("pcie_h2d", self._spec.tiers[0], replica)

    @property
    def _one_card(self) -> bool:
        """KV between instances crosses the card of their node, which the tier `remote` is behind too."""
        chosen = self._spec.disaggregation
        return chosen is not None and chosen.link.per == "node"

    def kv_link(self, replica: int, way: str) -> tuple[Resource, ...]:
        """What a replica's KV crosses to others (`KV_OUT`), or theirs to it (`KV_IN`)."""
        return self._resources({way: self.node(replica) if self._one_card else str(replica)})

    def node(self, replica: int) -> str:
        """The node of a replica's first GPU."""
        hardware = self._spec.hardware
        return f"node{replica * hardware.parallel.gpus // hardware.gpus_per_node}"

    def label(self, tier: TierSpec, replica: int) -> str:
        """Which one of several tiers of a name a replica has: its own, that of its node, or that of all."""
        owner = {"private": str(replica), "node": self.node(replica), "cluster": "cluster"}[tier.shared]
        return f"{tier.name}/{owner}"

    def _hop(self, link: str, tier: TierSpec, replica: int, src: str, dst: str) -> Hop:
        """One link of a way. A copy is a block of a disk's or a network's tier (file systems and transfer engines split
        what is longer than the copies that the device was measured with); for the GPU it is an engine block, or a piece
        of one where the layout says so.

        The GPUs of a replica copy their parts of it at the same time, and each has the layers of its stage.
        """
        spec, inputs = self._spec, self._inputs
        layout = inputs.layout
        unit = inputs.blocks[tier.name] * inputs.token_bytes
        if link in GPU_LINKS or tier.on_gpu:
            each, block = layout.layers * layout.tensors, spec.engine.block_tokens
            pieces = {"block": 1, "layer": layout.layers, "layer_kv": each, "token_kv": each * block}
            unit = block * inputs.token_bytes // pieces[spec.engine.kv_layout]
        elif (measured := inputs.devices[tier.name].measured_copies) is not None:
            unit = min(unit, int(measured[1]))
        shared, slow = self._shared(link, tier, replica, src, dst), self._pageable(link, src, dst)
        if tier.name == "remote" and link not in GPU_LINKS and self._one_card:
            shared += self.kv_link(replica, KV_IN if link.endswith("_read") else KV_OUT)
        return Hop(self._engine(link, tier, replica), src, dst, unit, shared, slow)

    def _pageable(self, link: str, src: str, dst: str) -> float:
        """Share of the host memory at the end of a GPU's link that is not page-locked."""
        ends = [t for t in self._tiers if t.name in (src, dst) and t.pinned is not None]
        if link not in GPU_LINKS or not ends:
            return 0.0
        pinned, capacity = ends[0].pinned, ends[0].capacity
        return max(0.0, 1 - pinned / capacity) if pinned is not None and capacity else 0.0

    def _shared(self, link: str, tier: TierSpec, replica: int, src: str, dst: str) -> tuple[Resource, ...]:
        """What a copy from or to a disk or a network shares: a GPU's link if it is direct, else the host's memory."""
        node = self.node(replica)
        if link in GPU_LINKS or tier.on_gpu:
            return ()
        if self._waypoint(tier) == HBM and HBM in (src, dst):
            return self._resources(dict.fromkeys(CAPS, str(replica)) | {"host_root": node})
        return self._resources({"dram": node})

    def _engine(self, name: str, tier: TierSpec, replica: int) -> CopyEngine:
        """One direction of a link, over the bandwidths that it shares with the other direction and its host.

        A GPU has its own engines for its PCIe link and for memory behind a link of its own, and those of a replica's
        GPUs work in step, as one; a disk belongs to its tier, a network link to a node.
        """
        node = self.node(replica)
        of_gpu = name in GPU_LINKS or tier.on_gpu
        owner = str(replica) if of_gpu else node if tier.name == "remote" else self.label(tier, replica)
        if (name, owner) not in self._engines:
            shared = {joint_name(tier): owner}
            if name in GPU_LINKS:
                shared = dict.fromkeys(CAPS, str(replica)) | dict.fromkeys(NODE_CAPS, node)
            chunk = self._spec.links.get(name, LinkSpec()).chunk
            if chunk is not None and of_gpu:
                chunk = round(chunk * self._inputs.layout.lanes)
            pageable = self._inputs.profile.pageable(name) if name in GPU_LINKS else None
            engine = self._make_engine(
                name,
                replica if of_gpu else -1,
                self._inputs.links[name],
                self._resources(shared),
                self.network,
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
