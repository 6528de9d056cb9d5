"""The scenario schema kvsim-scenario/1 as frozen pydantic models.

The schema is the whole input contract. What a later version will bring is part of it already and is refused with that
reason, so a file written for a later version never runs as something else.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from hw_profiles.errors import InputError
from hw_profiles.units import Rate, Seconds
from policies.tables import WITHIN
from sim.cost.experts import Placement, PlacementName
from sim.cost.parallel import Parallel
from sim.disaggregation_spec import DisaggregationSpec, check_disaggregation, with_pools
from sim.engine_spec import EngineSpec
from sim.fleet.spec import FleetSpec
from sim.framework_spec import shares_nothing
from sim.policies_spec import PoliciesSpec, names_of
from sim.spec_base import Count, PolicySpec, Spec, resolved_path
from sim.system_spec import with_systems
from sim.tier_spec import LinkSpec, TierSpec, check_ways
from traces.spec import TraceSpec

SCHEMA = "kvsim-scenario/1"
MOST_REPLICAS = 4096

SLO_METRICS = ("ttft", "tpot", "itl", "e2e", "queue")
SLO_STATISTICS = ("mean", "p50", "p90", "p95", "p99", "max")


class HardwareSpec(Spec):
    """Which machine, and how many: `replicas` engines of `tp` x `pp` GPUs each, `gpus_per_node` GPUs to a host.

    tp               tensor-parallel ranks of each pipeline stage, all on one node
    pp               pipeline stages
    expert_parallel  ranks hold whole experts instead of a part of each
    expert_placement contiguous: in order of their numbers. balanced: by their popularity (sim.cost.experts)
    redundant_experts  places of each layer for copies of popular experts, over all ranks (balanced)
    interconnect     bytes/s that a GPU sends to others of its node, in place of the profile's all-reduce
    """

    profile: str
    replicas: Annotated[int, Field(ge=1, le=MOST_REPLICAS, strict=True)] = 1
    tp: Count = 1
    pp: Count = 1
    gpus_per_node: Count = 8
    expert_parallel: Annotated[bool, Field(strict=True)] = False
    interconnect: Annotated[Rate, Field(gt=0)] | None = None
    expert_placement: PlacementName = "contiguous"
    redundant_experts: Annotated[int, Field(ge=0, le=4096, strict=True)] = 0

    @property
    def parallel(self) -> Parallel:
        """How the GPUs of a replica share the model."""
        placement = Placement(self.expert_placement, self.redundant_experts)
        return Parallel(self.tp, self.pp, self.expert_parallel, self.gpus_per_node, self.interconnect, placement)

    @model_validator(mode="after")
    def _consistent(self) -> HardwareSpec:
        self.parallel.check()
        if self.expert_placement != "contiguous" and not self.expert_parallel:
            problem = "every rank has a part of each expert"
            raise InputError(
                problem, path="expert_placement", found=self.expert_placement, allowed="it with expert_parallel: true"
            )
        if self.redundant_experts and self.expert_placement != "balanced":
            raise InputError(
                "nobody asks for copies",
                path="redundant_experts",
                found=self.redundant_experts,
                allowed="0, or expert_placement: balanced",
            )
        return self


class WarmStartSpec(Spec):
    """What the run begins with.

    path    what the tiers hold: a file that `kvsim run --save-cache-state` wrote; or a snapshot of `--save-snapshot-at`
            (snapshot.json), from which the run goes on (sim.snapshot)
    tiers   of a cache state, the tiers that are filled; all if not given
    """

    path: str
    tiers: tuple[str, ...] | None = None

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        return {"path": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _whole(self) -> WarmStartSpec:
        if self.tiers is not None and self.path.endswith(".json"):
            raise InputError("a snapshot is of everything", path="tiers", found=list(self.tiers))
        return self


class ScenarioSpec(Spec):
    """The whole scenario."""

    schema_: Literal["kvsim-scenario/1"] = Field(alias="schema")
    trace: TraceSpec
    model: str
    hardware: HardwareSpec
    engine: EngineSpec = EngineSpec()
    routing: PolicySpec = PolicySpec(name="round_robin")
    admission_control: PolicySpec | None = None
    disaggregation: DisaggregationSpec | None = None
    tiers: tuple[TierSpec, ...] = (TierSpec(name="hbm"),)
    links: dict[str, LinkSpec] = Field(default_factory=dict)
    policies: PoliciesSpec = PoliciesSpec()
    importance: PolicySpec | None = None
    warm_start: WarmStartSpec | None = None
    fleet: FleetSpec | None = None
    slo: dict[str, Seconds] = Field(default_factory=dict)
    seed: Annotated[int, Field(ge=0, lt=2**63, strict=True)] = 0

    @model_validator(mode="before")
    @classmethod
    def _systems(cls, value: Any) -> Any:
        """What systems set up: the engine, tiers and links they work with, in the place of defaults; the replicas of
        two pools."""
        if not isinstance(value, dict):
            return value
        value = with_pools(value)
        return with_systems(value) if "policies" in value else value

    @model_validator(mode="after")
    def _within(self) -> ScenarioSpec:
        """What happens within a sequence leaves nothing that others could share, and has the host link for itself."""
        families = self.policies.within
        if not families:
            return self
        path = f"policies.{families[0]}"
        name = names_of(getattr(self.policies, families[0]))[0]
        if ":" not in name and name not in WITHIN[families[0]]:
            return self  # that there is no such policy is told when it is looked up
        if families == ("sequence_prefetch",) and name == "l2":
            return self  # KV stays where it is
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
        check_disaggregation(self)
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
        if self.policies.scheduling is not None:
            self._check_scheduling()
        if self.tiers[-1].offload is not None and len(self.tiers) > 1:
            last = self.tiers[-1]
            raise InputError(
                "there is no tier behind this one",
                path=f"tiers.{last.name}.offload",
                found=last.offload.name if last.offload else None,
            )
        if self.fleet is not None and self.fleet.on and self.disaggregation is not None:
            problem = "pools of prefill and decode replicas have a fixed number of them in this version"
            raise InputError(problem, path="fleet", allowed="it without `disaggregation`")
        if self.fleet is not None and self.fleet.models:
            self._several_models(self.fleet)
        elif self.fleet is not None:
            self.fleet.bounds(self.hardware.replicas)
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

    def _check_scheduling(self) -> None:
        """A scheduling policy takes the place of vLLM's order by arrival, and of nothing else."""
        for key, needed in (("kind", "vllm"), ("scheduling", "fcfs")):
            if (found := getattr(self.engine, key)) != needed:
                problem = "policies.scheduling says whom to admit, and so does this"
                raise InputError(problem, path=f"engine.{key}", found=found, allowed=needed)

    def _several_models(self, fleet: FleetSpec) -> None:
        """InputError for what goes with one model alone."""
        first = fleet.models[0].name
        if self.model != first:
            raise InputError("the first of fleet.models", path="model", found=self.model, allowed=first)
        if self.hardware.tp * self.hardware.pp > 1:
            problem = "hardware.replicas counts single GPUs; each of fleet.models has a tp of its own"
            raise InputError(problem, path="hardware.tp", found=self.hardware.tp, allowed="1")
        for served in fleet.models:
            if served.tp > min(self.hardware.replicas, self.hardware.gpus_per_node):
                problem = "an instance does not fit a node"
                raise InputError(problem, path="fleet.models", found=f"{served.name}, tp {served.tp}")
        if any(tier.capacity != 0 for tier in self.tiers[1:]):
            raise InputError("several models have HBM alone in this version", path="tiers", allowed=("hbm",))
        if self.tiers[0].capacity is not None or self.engine.num_gpu_blocks is not None:
            raise InputError("several models share HBM as it is", path="tiers.hbm.capacity")
        if self.policies.within or self.policies.architecture is not None:
            raise InputError("not with several models in this version", path="policies")
        if self.policies.reuse:
            raise InputError("not with several models in this version", path="policies.reuse")
        for key in ("warm_start", "admission_control"):
            if getattr(self, key) is not None:
                raise InputError("not with several models in this version", path=key)

    def resolved(self, base_dir: Path) -> dict[str, Any]:
        """Every value spelled out for YAML: units as text, paths absolute."""
        data = self.model_dump(mode="json", by_alias=True, exclude_none=True)
        data["trace"] = self.trace.resolved(base_dir).model_dump(mode="json", exclude_none=True)
        data["model"] = resolved_path(self.model, base_dir)
        data["hardware"]["profile"] = resolved_path(self.hardware.profile, base_dir)
        speculation = self.engine.speculation
        if speculation is not None and speculation.model is not None:
            data["engine"]["speculation"]["model"] = resolved_path(speculation.model, base_dir)
        data["routing"] = self.routing.resolved(base_dir)
        if self.fleet is not None:
            data["fleet"]["scaling"] = self.fleet.scaling.resolved(base_dir)
            if self.fleet.prewarm is not None:
                data["fleet"]["prewarm"] = self.fleet.prewarm.resolved(base_dir)
            for served, shown in zip(self.fleet.models, data["fleet"]["models"], strict=True):
                shown["name"] = resolved_path(served.name, base_dir)
        if self.admission_control is not None:
            data["admission_control"] = self.admission_control.resolved(base_dir)
        if self.disaggregation is not None:
            data["disaggregation"] = self.disaggregation.resolved(base_dir)
        if self.warm_start is not None:
            data["warm_start"]["path"] = str((base_dir / Path(self.warm_start.path).expanduser()).resolve())
        families = ("eviction", "admission", "prefetch", "offload")
        data["policies"] = {
            family: [p.resolved(base_dir) for p in policy] if isinstance(policy, tuple) else policy.resolved(base_dir)
            for family in (*families, "scheduling", "reuse", *WITHIN)
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
