"""The scenario schema kvsim-scenario/1 as frozen pydantic models.

The schema is the whole input contract. What a later version will bring is part of it already and is refused with that
reason, so a file written for a later version never runs as something else.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from hw_profiles.errors import InputError
from hw_profiles.units import Bytes, Rate, Seconds
from policies.tables import FAMILIES, LATER_FAMILIES
from traces.spec import TraceSpec

SCHEMA = "kvsim-scenario/1"
Count = Annotated[int, Field(ge=1, strict=True)]
MOST_REPLICAS = 4096

SLO_METRICS = ("ttft", "tpot", "itl", "e2e", "queue")
SLO_STATISTICS = ("mean", "p50", "p90", "p95", "p99", "max")


class Spec(BaseModel):
    """Base of every part: frozen, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def refuse(value: Any, path: str | None, what: str, available: tuple[str, ...] = ()) -> InputError:
    """The error for a part of the schema that this version does not run."""
    return InputError(f"{what} is not available in this version", path=path, found=value, allowed=available or None)


class HardwareSpec(Spec):
    """Which machine, and how many: `replicas` engines of `tp` GPUs each, `gpus_per_node` GPUs to a host."""

    profile: str
    replicas: Annotated[int, Field(ge=1, le=MOST_REPLICAS, strict=True)] = 1
    tp: Count = 1
    gpus_per_node: Count = 8

    @model_validator(mode="after")
    def _available(self) -> HardwareSpec:
        if self.tp != 1:
            raise refuse(self.tp, "tp", "tensor parallelism", ("1",))
        return self


class LoadingSpec(Spec):
    """How a cached prefix comes to HBM when its request is scheduled.

    mode    blocking: the request waits for all of it while others run. layerwise: its prefill starts at once, each
            layer when its part has arrived, and the batch waits with it (vLLM's connectors: wait_for_layer_load)
    choose  always: everything that a tier has is loaded. by_cost: as much of the prefix as is faster than computing it
    """

    mode: Literal["blocking", "layerwise"] = "blocking"
    choose: Literal["always", "by_cost"] = "always"


class EngineSpec(Spec):
    """The serving engine; defaults are vLLM's, but for host_time.

    num_gpu_blocks   KV blocks of HBM; derived from memory when not given
    host_time        time per step that the GPU waits for the host; 0 s assumes asynchronous scheduling hides it
    loading          how cached prefixes are loaded
    kv_layout        what is contiguous in memory and so one copy: a block of all layers, of one layer, or of the keys
                     or values of one layer
    """

    kind: Literal["vllm", "sglang", "tensorrt_llm"] = "vllm"
    max_num_seqs: Count = 256
    max_num_batched_tokens: Count = 8192
    block_tokens: Annotated[int, Field(ge=1, le=65536, strict=True)] = 16
    gpu_memory_utilization: Annotated[float, Field(gt=0, le=1, strict=True)] = 0.9
    num_gpu_blocks: Count | None = None
    host_time: Seconds = 0.0
    loading: LoadingSpec = LoadingSpec()
    kv_layout: Literal["block", "layer", "layer_kv"] = "block"

    @model_validator(mode="after")
    def _available(self) -> EngineSpec:
        if self.kind != "vllm":
            raise refuse(self.kind, "kind", "this engine", ("vllm",))
        if self.max_num_batched_tokens < self.max_num_seqs:
            raise InputError(
                "must not be less than max_num_seqs, since each running sequence takes a token of every step",
                path="max_num_batched_tokens",
                found=self.max_num_batched_tokens,
                allowed=f"a whole number >= {self.max_num_seqs}",
            )
        return self


class PolicySpec(BaseModel):
    """A policy and its options: `lru`, `{name: lru}`, or `{name: "my_policy.py:MyPolicy", option: value}`."""

    model_config = ConfigDict(frozen=True, extra="allow")
    name: str

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        if isinstance(value, str):
            return {"name": value}
        if not isinstance(value, dict) or "name" not in value:
            raise InputError("", found=value, allowed="a policy name, or {name: ..., option: value}")
        return value

    def resolved(self, base_dir: Path) -> dict[str, Any]:
        """With an absolute path, if the name is a file."""
        source, colon, attribute = self.name.rpartition(":")
        name = f"{(base_dir / source).resolve()}:{attribute}" if colon and source.endswith(".py") else self.name
        return {**self.model_dump(), "name": name}


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
    block_tokens: int | None = None
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
        if self.block_tokens is not None:
            raise refuse(self.block_tokens, "block_tokens", "a block size of a tier's own")
        if self.device is not None and self.kind in ("hbm", "host"):
            raise InputError("this memory belongs to the machine's profile", path="device", found=self.device)
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


class PoliciesSpec(Spec):
    """Policies by family, for every tier that does not name its own."""

    eviction: PolicySpec = PolicySpec(name="lru")
    admission: PolicySpec | None = None
    prefetch: PolicySpec | None = None
    offload: PolicySpec = PolicySpec(name="write_through")

    @model_validator(mode="before")
    @classmethod
    def _families(cls, value: Any) -> Any:
        if isinstance(value, str):
            raise refuse(
                value, None, "naming a system", ("a mapping by family such as {eviction: lru, offload: none}",)
            )
        if isinstance(value, list):
            raise refuse(value, None, "a list of policies", ("a mapping by family such as {eviction: lru}",))
        if isinstance(value, dict):
            for family in value:
                if family in LATER_FAMILIES:
                    raise refuse(value[family], family, "this policy family", tuple(FAMILIES))
        return value


class ScenarioSpec(Spec):
    """The whole scenario."""

    schema_: Literal["kvsim-scenario/1"] = Field(alias="schema")
    trace: TraceSpec
    model: str
    hardware: HardwareSpec
    engine: EngineSpec = EngineSpec()
    routing: Literal["round_robin", "least_loaded", "prefix_aware"] = "round_robin"
    tiers: tuple[TierSpec, ...] = (TierSpec(name="hbm"),)
    links: dict[str, LinkSpec] = {}
    policies: PoliciesSpec = PoliciesSpec()
    slo: dict[str, Seconds] = {}
    seed: Annotated[int, Field(ge=0, lt=2**63, strict=True)] = 0

    @model_validator(mode="after")
    def _consistent(self) -> ScenarioSpec:
        if self.routing != "round_robin":
            raise refuse(self.routing, "routing", "this routing", ("round_robin",))
        names = [tier.name for tier in self.tiers]
        if names[:1] != ["hbm"]:
            raise InputError("the first tier must be hbm", path="tiers", found=names)
        if len(set(names)) < len(names):
            raise InputError("two tiers have the same name", path="tiers", found=names)
        for above, tier in zip(self.tiers, self.tiers[1:], strict=False):
            offload = above.offload or self.policies.offload
            if not tier.inclusive and offload.name.startswith("write_through"):
                raise InputError(
                    "an exclusive tier takes what the tier above evicts",
                    path=f"tiers.{above.name}.offload",
                    found=offload.name,
                    allowed=("write_back", "none"),
                )
        if self.tiers[-1].offload is not None and len(self.tiers) > 1:
            last = self.tiers[-1]
            raise InputError(
                "there is no tier behind this one",
                path=f"tiers.{last.name}.offload",
                found=last.offload.name if last.offload else None,
            )
        allowed = [f"{metric}_{statistic}" for metric in SLO_METRICS for statistic in SLO_STATISTICS]
        for key, seconds in self.slo.items():
            if key not in allowed:
                shown = "ttft, tpot, itl, e2e or queue with _mean, _p50, _p90, _p95, _p99 or _max"
                raise InputError("unknown SLO", path="slo", found=key, allowed=shown, near=allowed)
            if not seconds > 0:
                raise InputError("", path=f"slo.{key}", found=seconds, allowed="a time > 0, such as '2 s'")
        return self

    def resolved(self, base_dir: Path) -> dict[str, Any]:
        """Every value spelled out for YAML: units as text, paths absolute."""
        data = self.model_dump(mode="json", by_alias=True, exclude_none=True)
        data["trace"] = self.trace.resolved(base_dir).model_dump(mode="json", exclude_none=True)
        data["model"] = resolved_path(self.model, base_dir)
        data["hardware"]["profile"] = resolved_path(self.hardware.profile, base_dir)
        families = ("eviction", "admission", "prefetch", "offload")
        data["policies"] = {
            family: policy.resolved(base_dir)
            for family in families
            if (policy := getattr(self.policies, family)) is not None
        }
        for tier, shown in zip(self.tiers, data["tiers"], strict=True):
            if tier.device_name is not None:
                shown["device"] = resolved_path(tier.device_name, base_dir)
            for family in families:
                policy = getattr(tier, family)
                if policy is not None:
                    shown[family] = policy.resolved(base_dir)
        return data


def resolved_path(name_or_path: str, base_dir: Path) -> str:
    """`name_or_path` made absolute if it looks like a path (has a slash or a file ending); else unchanged."""
    if "/" in name_or_path or re.search(r"\.(ya?ml|json)$", name_or_path):
        return str((base_dir / Path(name_or_path).expanduser()).resolve())
    return name_or_path
