"""Tiers and links in the scenario: what a memory is, where it lies, and how fast its link is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field, model_validator

from hw_profiles.errors import InputError
from hw_profiles.units import Bytes, Rate, Seconds, format_bytes
from sim.spec_base import PolicySpec, Spec

TIER_KINDS: dict[str, str] = {
    "hbm": "hbm",
    "dram": "host",
    "cxl": "memory",
    "c2c": "memory",
    "ssd": "device",
    "remote": "device",
}
"""What a tier is, by name: memory on the GPU; memory of the host behind PCIe; memory behind a link of its own; a device
(disk, network) that fills and drains host memory by itself."""


HBM = "hbm"
WAYPOINTS = ("host", "memory")
"""Kinds of tiers that bytes of another tier can pass on their way to the GPU: memory, not drives or networks."""


DEFAULT_DEVICES = {"cxl": "cxl", "c2c": "nvlink-c2c", "ssd": "nvme-gen4", "remote": "rdma-200g"}
"""Device behind a tier that names none (hw_profiles/devices)."""


class TierSpec(Spec):
    """One tier. HBM comes first; its capacity is what the model leaves, unless given.

    shared     one per replica (private), per node, or one for the cluster
    inclusive  false: what is loaded from here toward the GPU leaves, and what comes in is what was evicted above
    leaf_only  true: a block is not evicted while blocks that follow it in a prefix are here
    block_tokens  what is stored and loaded as a whole here, in tokens (an LMCache chunk, a page of a store): a multiple
               of that of the tier before, which it is if not given
    pinned     for host memory: bytes of it that are page-locked, all if not given; copies between the GPU and the rest
               go at the profile's rate for pageable memory
    device     what the tier is made of: a shipped device or a YAML file; by name of the tier if not given
    via        the tier that it loads through: dram, cxl or c2c, or hbm for the GPU's own memory. By default a disk or a
               network passes host memory (the tier dram, or c2c, if it comes before), memory reaches the GPU by itself
    direct     for a disk or a network: `via: hbm`
    """

    name: str
    capacity: Bytes | None = None
    shared: Literal["private", "node", "cluster"] = "private"
    eviction: PolicySpec | None = None
    admission: PolicySpec | None = None
    offload: PolicySpec | None = None
    prefetch: PolicySpec | None = None
    block_tokens: Annotated[int, Field(ge=1, le=1 << 20, strict=True)] | None = None
    pinned: Bytes | None = None
    inclusive: bool = True
    leaf_only: bool = False
    via: str | None = None
    direct: bool = False
    device: str | None = None

    @property
    def device_name(self) -> str | None:
        """The device behind the tier; None for HBM and host memory."""
        return self.device or DEFAULT_DEVICES.get(self.name)

    @property
    def kind(self) -> str:
        """One of the values of TIER_KINDS."""
        return TIER_KINDS[self.name]

    @property
    def link(self) -> str:
        """Start of the names of the two directions of its link."""
        return "pcie" if self.kind == "host" else self.name

    @property
    def toward_gpu(self) -> str:
        """End of the name of its link's direction toward the GPU."""
        return "h2d" if self.kind == "host" else "read"

    @property
    def from_gpu(self) -> str:
        """End of the name of its link's direction away from the GPU."""
        return "d2h" if self.kind == "host" else "write"

    @property
    def on_gpu(self) -> bool:
        """True for memory whose link the GPU's own copy engines drive."""
        return self.kind == "memory" and self.via in (None, HBM)

    @model_validator(mode="after")
    def _available(self) -> TierSpec:
        if self.name not in TIER_KINDS:
            raise InputError("unknown tier", path="name", found=self.name, allowed=tuple(TIER_KINDS), near=TIER_KINDS)
        if self.prefetch is not None:
            raise InputError(
                "prefetching is for all tiers: name the tier as the option `into` of policies.prefetch",
                path="prefetch",
                found=self.prefetch.name,
            )
        if self.device is not None and self.kind in ("hbm", "host"):
            raise InputError("this memory belongs to the machine's profile", path="device", found=self.device)
        if self.pinned is not None and self.kind != "host":
            raise InputError("only host memory is page-locked", path="pinned", found=format_bytes(self.pinned))
        if self.direct and self.kind != "device":
            raise InputError("only for a disk or a network", path="direct", found=True, allowed="false")
        if self.via is not None and self.kind in ("hbm", "host") and not (self.kind == "host" and self.via == HBM):
            problem = "the GPU's memory is where ways end" if self.name == HBM else "it is behind the GPU's own link"
            raise InputError(problem, path="via", found=self.via)
        if self.direct and self.via not in (None, HBM):
            raise InputError("a direct tier passes nothing", path="via", found=self.via, allowed=HBM)
        if self.name == "hbm":
            if self.shared != "private":
                raise InputError("HBM belongs to one replica", path="shared", found=self.shared, allowed="private")
            if not self.inclusive:
                raise InputError("HBM holds what the GPU uses", path="inclusive", found=False, allowed="true")
            if self.admission is not None:
                raise InputError("HBM takes what is computed", path="admission", found=self.admission.name)
        elif self.capacity is None:
            raise InputError("missing", path="capacity", allowed="a size such as '2 TiB'")
        return self


def waypoint(tier: TierSpec, nearer: Sequence[TierSpec]) -> str | None:
    """The tier that bytes of a tier pass first on their way to the GPU: "hbm" if they reach it over one link, None for
    a bounce buffer of the host, behind the GPU's own link. nearer: tiers that come before it."""
    if tier.via is not None or tier.direct:
        return tier.via or HBM
    if tier.kind != "device":
        return HBM
    hosts = [other.name for kind in ("host", "c2c") for other in nearer if kind in (other.kind, other.name)]
    return hosts[0] if hosts else None


def check_ways(tiers: Sequence[TierSpec]) -> None:
    """Raise InputError for a tier without a way to HBM, a cycle, and a tier that nothing can pass."""
    by_name = {tier.name: tier for tier in tiers}
    for level, tier in enumerate(tiers):
        passed, at, blocked = [tier.name], tier, None
        while at.via not in (None, HBM):
            assert at.via is not None
            path, found = f"tiers.{at.name}.via", at.via
            if found not in by_name:
                problem = f"no path from {tier.name} to HBM: there is no such tier"
                raise InputError(problem, path=path, found=found, allowed=tuple(by_name), near=by_name)
            if found in passed:
                cycle = " -> ".join([*passed[passed.index(found) :], found])
                raise InputError(f"no path from {tier.name} to HBM: a cycle, {cycle}", path=path, found=found)
            if blocked is None and by_name[found].kind not in WAYPOINTS:
                memory = [name for name, other in by_name.items() if other.kind in WAYPOINTS]
                blocked = InputError("bytes pass memory on their way", path=path, found=found, allowed=(*memory, HBM))
            passed.append(found)
            at = by_name[found]
        if blocked is not None:  # once the way is known to be no cycle, which says more
            raise blocked
        if tier.via not in (None, HBM, *(other.name for other in tiers[:level])):
            problem = "what a tier loads through comes before it, nearer to the GPU"
            raise InputError(problem, path=f"tiers.{tier.name}.via", found=tier.via)


class LinkSpec(Spec):
    """Values of a link in place of the profile's."""

    bandwidth: Rate | None = None
    """bytes/s of one long copy."""
    latency: Seconds | None = None
    """Set-up time of each copy."""
    chunk: Annotated[Bytes, Field(ge=1)] | None = None
    """Longer transfers are cut into parts of about this size, between which others take turns."""
    method: Literal["loop", "batch", "kernel"] | None = None
    """For the GPU's own link: one copy per block in a loop (the default), one batched call, or a copy kernel."""
    pageable: Annotated[Rate, Field(gt=0)] | None = None
    """For the GPU's own link: bytes/s of copies from or to host memory that is not page-locked."""
