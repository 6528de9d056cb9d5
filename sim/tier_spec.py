"""Tiers and links in the scenario: what a memory is, where it lies, and how fast its link is."""

from __future__ import annotations

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
    direct     for a disk or a network: true if it reaches the GPU's memory without passing host memory
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
