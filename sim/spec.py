"""The scenario schema kvsim-scenario/1 as frozen pydantic models.

The schema is the whole input contract. What a later version will bring is part of it already and is refused with that
reason, so a file written for a later version never runs as something else.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from hw_profiles.errors import InputError
from hw_profiles.formats import KV_FORMATS, WEIGHT_FORMATS
from hw_profiles.units import Bytes, Rate, Seconds
from policies.systems import expand
from policies.tables import FAMILIES, LATER_FAMILIES, SEQUENCE_OFFLOAD, SEQUENCE_PREFETCH, WITHIN
from sim.cost.framework import FrameworkName
from sim.cost.parallel import Parallel
from sim.cost.step import EAGER_LAUNCH_S
from sim.engine.queue import Scheduling
from sim.framework_spec import check_framework, shares_nothing, with_framework
from sim.spec_base import Count, PolicySpec, Spec, refuse, resolved_path
from sim.tier_spec import LinkSpec, TierSpec, check_ways
from traces.spec import TraceSpec

SCHEMA = "kvsim-scenario/1"
MOST_REPLICAS = 4096
MOST_ROWS = 65_536

SLO_METRICS = ("ttft", "tpot", "itl", "e2e", "queue")
SLO_STATISTICS = ("mean", "p50", "p90", "p95", "p99", "max")


class HardwareSpec(Spec):
    """Which machine, and how many: `replicas` engines of `tp` x `pp` GPUs each, `gpus_per_node` GPUs to a host.

    tp               tensor-parallel ranks of each pipeline stage, all on one node
    pp               pipeline stages
    expert_parallel  ranks hold whole experts instead of a part of each
    interconnect     bytes/s that a GPU sends to others of its node, in place of the profile's all-reduce
    """

    profile: str
    replicas: Annotated[int, Field(ge=1, le=MOST_REPLICAS, strict=True)] = 1
    tp: Count = 1
    pp: Count = 1
    gpus_per_node: Count = 8
    expert_parallel: Annotated[bool, Field(strict=True)] = False
    interconnect: Annotated[Rate, Field(gt=0)] | None = None

    @property
    def parallel(self) -> Parallel:
        """How the GPUs of a replica share the model."""
        return Parallel(self.tp, self.pp, self.expert_parallel, self.gpus_per_node, self.interconnect)

    @model_validator(mode="after")
    def _consistent(self) -> HardwareSpec:
        self.parallel.check()
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

    framework        how the engine holds KV, batches, launches and waits (sim.cost.framework); it settles what of the
                     rest is not given
    scheduling       fcfs: by arrival. priority: by the requests' priority, lower ones first, then by arrival. static:
                     a batch is formed when nothing runs, and ends with the last of its sequences
    num_gpu_blocks   KV blocks of HBM; derived from memory when not given
    prefix_caching   false: requests share nothing, and no KV outlives its request
    host_time        time per step that the GPU waits for the host; 0 s assumes asynchronous scheduling hides it
    loading          how cached prefixes are loaded
    kv_layout        what is contiguous in memory and so one copy: a block of all layers, of one layer, or of the keys
                     or values of one layer
    l2_prefetch      KV per layer that is prefetched into L2 ahead of decode attention (sim.cost.l2_prefetch); 0: none
    weights_dtype    number format of the layers' matrices (hw_profiles.formats); None: the checkpoint's
    kv_dtype         number format of the cache; None: the checkpoint's
    hybrid_kv_cache  sliding layers keep no more than their window, where the model has others too
    graphs           decode steps replay CUDA graphs; false: kernels are launched one by one (vLLM's enforce_eager)
    graph_batch_sizes  decode batches that graphs are captured of, ascending; others are padded to the next, kernels of
                     larger ones launched one by one. None: vLLM's (sim.cost.graphs)
    eager_launch     host time per kernel without graphs: of any step if there are none, of decode steps above the
                     largest if there are
    slot_tokens      with slots (framework: static_graph): tokens of each; None: those of the longest request
    host_kv_memory   bytes of host memory per replica for KV that policies within a sequence keep there; None: no limit
    expert_skew      Zipf exponent of the popularity of experts (sim.cost.experts); 0: all alike
    """

    framework: FrameworkName = "vllm_paged"
    kind: Literal["vllm", "sglang", "tensorrt_llm"] = "vllm"
    max_num_seqs: Count = 256
    max_num_batched_tokens: Count = 8192
    scheduling: Scheduling = "fcfs"
    block_tokens: Annotated[int, Field(ge=1, le=65536, strict=True)] = 16
    gpu_memory_utilization: Annotated[float, Field(gt=0, le=1, strict=True)] = 0.9
    num_gpu_blocks: Count | None = None
    prefix_caching: Annotated[bool, Field(strict=True)] = True
    host_time: Seconds = 0.0
    loading: LoadingSpec = LoadingSpec()
    kv_layout: Literal["block", "layer", "layer_kv"] = "block"
    l2_prefetch: Bytes = 0
    weights_dtype: str | None = None
    kv_dtype: str | None = None
    hybrid_kv_cache: Annotated[bool, Field(strict=True)] = True
    graphs: Annotated[bool, Field(strict=True)] = True
    graph_batch_sizes: tuple[Count, ...] | None = None
    eager_launch: Seconds = EAGER_LAUNCH_S
    slot_tokens: Count | None = None
    host_kv_memory: Annotated[Bytes, Field(gt=0)] | None = None
    expert_skew: Annotated[float, Field(ge=0, le=10, allow_inf_nan=False)] = 0.0

    @model_validator(mode="before")
    @classmethod
    def _settled(cls, value: Any) -> Any:
        return with_framework(value) if isinstance(value, dict) else value

    @model_validator(mode="after")
    def _available(self) -> EngineSpec:
        check_framework(self)
        if self.kind != "vllm":
            raise refuse(self.kind, "kind", "this engine", ("vllm",))
        for key, formats in (("weights_dtype", WEIGHT_FORMATS), ("kv_dtype", KV_FORMATS)):
            name = getattr(self, key)
            if name is not None and name not in formats:
                raise InputError("unknown number format", path=key, found=name, allowed=formats, near=formats)
        sizes = self.graph_batch_sizes
        if sizes is not None and (not sizes or list(sizes) != sorted(set(sizes)) or sizes[-1] > MOST_ROWS):
            allowed = f"whole numbers from 1 to {MOST_ROWS} that ascend, such as [1, 2, 4, 8]"
            raise InputError("", path="graph_batch_sizes", found=list(sizes), allowed=allowed)
        if self.max_num_batched_tokens < self.max_num_seqs:
            raise InputError(
                "must not be less than max_num_seqs, since each running sequence takes a token of every step",
                path="max_num_batched_tokens",
                found=self.max_num_batched_tokens,
                allowed=f"a whole number >= {self.max_num_seqs}",
            )
        return self


def _several(value: Any) -> Any:
    return value if isinstance(value, list | tuple) else [value]


def _names(chosen: PolicySpec | tuple[PolicySpec, ...] | None) -> list[str]:
    """Names of policies that do something."""
    policies = chosen if isinstance(chosen, tuple) else () if chosen is None else (chosen,)
    return [policy.name for policy in policies if policy.name != "none"]


class PoliciesSpec(Spec):
    """Policies by family, for every tier that does not name its own; those within a sequence (`policies.sequence`).

    An offload or prefetch policy of what happens within a sequence goes by `sequence_offload`, `sequence_prefetch` once
    the scenario is resolved. kv_format: one policy or several, applied in this order.
    """

    eviction: PolicySpec = PolicySpec(name="lru")
    admission: PolicySpec | None = None
    prefetch: PolicySpec | None = None
    offload: PolicySpec = PolicySpec(name="write_through")
    architecture: PolicySpec | None = None
    kv_format: Annotated[tuple[PolicySpec, ...], BeforeValidator(_several)] = ()
    retention: PolicySpec | None = None
    selection: PolicySpec | None = None
    sequence_offload: PolicySpec | None = None
    sequence_prefetch: PolicySpec | None = None

    @property
    def within(self) -> tuple[str, ...]:
        """Families that have a policy of what happens within a sequence."""
        return tuple(family for family in WITHIN if family != "architecture" and _names(getattr(self, family)))

    @model_validator(mode="before")
    @classmethod
    def _families(cls, value: Any) -> Any:
        if isinstance(value, str | list) or (isinstance(value, dict) and {"name", "system"} & value.keys()):
            value, _ = expand(value)
        if isinstance(value, dict):
            value = dict(value)
            for family, table in (("offload", SEQUENCE_OFFLOAD), ("prefetch", SEQUENCE_PREFETCH)):
                named = value.get(family)
                if (named.get("name") if isinstance(named, dict) else named) in table:
                    value[f"sequence_{family}"] = value.pop(family)
            if "routing" in value:
                text = "a router is named beside `policies`, as `routing: least_loaded`"
                raise InputError(text, path="routing", found=value["routing"])
            for family in value:
                if family in LATER_FAMILIES:
                    raise refuse(value[family], family, "this policy family", tuple(FAMILIES))
        return value


class WarmStartSpec(Spec):
    """What the tiers hold at the start: a file that `kvsim run --save-cache-state` wrote, of all or some `tiers`."""

    path: str
    tiers: tuple[str, ...] | None = None

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        return {"path": value} if isinstance(value, str) else value


class ScenarioSpec(Spec):
    """The whole scenario."""

    schema_: Literal["kvsim-scenario/1"] = Field(alias="schema")
    trace: TraceSpec
    model: str
    hardware: HardwareSpec
    engine: EngineSpec = EngineSpec()
    routing: PolicySpec = PolicySpec(name="round_robin")
    tiers: tuple[TierSpec, ...] = (TierSpec(name="hbm"),)
    links: dict[str, LinkSpec] = Field(default_factory=dict)
    policies: PoliciesSpec = PoliciesSpec()
    importance: PolicySpec | None = None
    warm_start: WarmStartSpec | None = None
    slo: dict[str, Seconds] = Field(default_factory=dict)
    seed: Annotated[int, Field(ge=0, lt=2**63, strict=True)] = 0

    @model_validator(mode="before")
    @classmethod
    def _systems(cls, value: Any) -> Any:
        """What systems need of the engine, in the place of its defaults."""
        if not isinstance(value, dict) or "policies" not in value:
            return value
        try:
            policies, settings = expand(value["policies"])
        except InputError as error:
            raise error.at(path="policies") from None
        engine = value.get("engine")
        if settings and (engine is None or isinstance(engine, dict)):
            given = engine or {}
            for key, setting in settings.items():
                if given.get(key, setting) != setting:
                    problem = f"the system under `policies` needs {key}: {setting}"
                    raise InputError(problem, path=f"engine.{key}", found=given[key])
            value = {**value, "engine": {**settings, **given}}
        return {**value, "policies": policies}

    @model_validator(mode="after")
    def _within(self) -> ScenarioSpec:
        """What happens within a sequence leaves nothing that others could share, and has the host link for itself."""
        families = self.policies.within
        if not families:
            return self
        path = f"policies.{families[0]}"
        name = _names(getattr(self.policies, families[0]))[0]
        if ":" not in name and name not in WITHIN[families[0]]:
            return self  # that there is no such policy is told when it is looked up
        if self.engine.prefix_caching:
            problem = "a sequence that keeps its KV in another way leaves no blocks for other requests"
            raise InputError(problem, path=path, found=name, allowed="it together with `engine.prefix_caching: false`")
        if any(tier.capacity != 0 for tier in self.tiers[1:]):
            problem = "tiers behind HBM hold blocks of prefixes, and a sequence with a policy of its own has none"
            raise InputError(problem, path=path, found=name, allowed="it with the tier hbm alone")
        if self.hardware.pp > 1:
            raise InputError("not with pipeline stages in this version", path=path, found=name)
        return self

    @model_validator(mode="after")
    def _consistent(self) -> ScenarioSpec:
        names = [tier.name for tier in self.tiers]
        if names[:1] != ["hbm"]:
            raise InputError("the first tier must be hbm", path="tiers", found=names)
        if len(set(names)) < len(names):
            raise InputError("two tiers have the same name", path="tiers", found=names)
        check_ways(self.tiers)
        if (why := shares_nothing(self.engine)) and any(tier.capacity for tier in self.tiers[1:]):
            raise InputError(f"{why}: tiers behind it stay empty", path="tiers", found=names, allowed=("hbm",))
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
        for name in (self.warm_start.tiers if self.warm_start else None) or ():
            if name not in names:
                raise InputError("no such tier", path="warm_start.tiers", found=name, allowed=names, near=names)
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
        data["routing"] = self.routing.resolved(base_dir)
        if self.warm_start is not None:
            data["warm_start"]["path"] = str((base_dir / Path(self.warm_start.path).expanduser()).resolve())
        families = ("eviction", "admission", "prefetch", "offload")
        data["policies"] = {
            family: [p.resolved(base_dir) for p in policy] if isinstance(policy, tuple) else policy.resolved(base_dir)
            for family in (*families, *WITHIN)
            if (policy := getattr(self.policies, family))
        }
        if self.importance is not None:
            data["importance"] = self.importance.resolved(base_dir)
            if "path" in data["importance"]:
                file = Path(str(data["importance"]["path"])).expanduser()
                data["importance"]["path"] = str((base_dir / file).resolve())
        for tier, shown in zip(self.tiers, data["tiers"], strict=True):
            if tier.device_name is not None:
                shown["device"] = resolved_path(tier.device_name, base_dir)
            for family in families:
                policy = getattr(tier, family)
                if policy is not None:
                    shown[family] = policy.resolved(base_dir)
        return data
