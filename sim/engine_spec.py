"""The `engine:` section of a scenario."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from hw_profiles.errors import InputError
from hw_profiles.formats import KV_FORMATS, WEIGHT_FORMATS
from hw_profiles.units import Bytes, Seconds
from sim.cost.framework import FrameworkName
from sim.cost.step import EAGER_LAUNCH_S
from sim.engine.queue import Scheduling
from sim.framework_spec import check_framework, with_framework
from sim.kind_spec import CapacityPolicy, KindName, SchedulePolicy, check_kind, with_kind
from sim.spec_base import Count, Spec
from sim.speculation_spec import SpeculationSpec, check_speculation, with_speculation

MOST_ROWS = 65_536


class LoadingSpec(Spec):
    """How a cached prefix comes to HBM when its request is scheduled.

    mode    blocking: the request waits for all of it while others run. layerwise: its prefill starts at once, each
            layer when its part has arrived, and the batch waits with it (vLLM's connectors: wait_for_layer_load).
            synchronous: the step that begins its prefill starts when all of it has arrived, and the batch waits with it
            (LMCache's default under vLLM: start_load_kv ahead of the forward pass)
    choose  always: everything that a tier has is loaded. by_cost: as much of the prefix as is faster than computing it
    least_tokens  a prefix of which tiers behind HBM have fewer tokens is not loaded (SGLang's load_back_threshold)
    """

    mode: Literal["blocking", "layerwise", "synchronous"] = "blocking"
    choose: Literal["always", "by_cost"] = "always"
    least_tokens: Annotated[int, Field(ge=0, le=10_000_000, strict=True)] = 0


class EngineSpec(Spec):
    """The serving engine; defaults are vLLM's, but for host_time, and those of another `kind` its own.

    kind             whose scheduler and memory (sim.kind_spec); it settles what of the rest is not given
    framework        how the engine holds KV, batches, launches and waits (sim.cost.framework); it settles what of the
                     rest is not given
    scheduling       fcfs: by arrival. priority: by the requests' priority, lower ones first, then by arrival. static:
                     a batch is formed when nothing runs, and ends with the last of its sequences
    num_gpu_blocks   KV blocks of HBM; derived from memory when not given
    prefix_caching   false: requests share nothing, and no KV outlives its request
    host_time        time per step that the GPU waits for the host; 0 s assumes asynchronous scheduling hides it
    loading          how cached prefixes are loaded
    offload_answers  blocks of answers are stored in tiers behind HBM as those of prompts are; false: prompts alone
                     (LMCache's save_decode_cache), though an answer stays in HBM until it is evicted
    kv_layout        what is contiguous in memory and so one copy: a block of all layers, of one layer, of the keys or
                     values of one layer, or those of one token there
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
    chunked_context  prompts that do not fit a step run in chunks; false: they run whole (tensorrt_llm)
    capacity_policy  of tensorrt_llm: whom the capacity scheduler admits (sim.engine.inflight)
    free_gpu_memory_fraction  of tensorrt_llm: share for KV of the memory that weights and activations leave
    reserve_full_isl  a request starts only if HBM has room for its whole prompt; false: for its first chunk
                     (scheduler_reserve_full_isl of vLLM: vllm/config/scheduler.py, true by default since pull 37307)
    watermark        share of the KV blocks kept free when a request starts beside others (vLLM: pull 44594, off by
                     default)
    schedule_policy, mixed_chunk, schedule_conservativeness  of sglang: sim.engine.prefill_first
    mem_fraction_static  of sglang: share of the GPU's memory for weights and KV; derived when not given
    speculation      drafted tokens that steps verify (sim.speculation_spec)
    """

    framework: FrameworkName = "vllm_paged"
    kind: KindName = "vllm"
    max_num_seqs: Count = 256
    max_num_batched_tokens: Count = 8192
    scheduling: Scheduling = "fcfs"
    block_tokens: Annotated[int, Field(ge=1, le=65536, strict=True)] = 16
    gpu_memory_utilization: Annotated[float, Field(gt=0, le=1, strict=True)] = 0.9
    num_gpu_blocks: Count | None = None
    prefix_caching: Annotated[bool, Field(strict=True)] = True
    host_time: Seconds = 0.0
    loading: LoadingSpec = LoadingSpec()
    offload_answers: Annotated[bool, Field(strict=True)] = True
    kv_layout: Literal["block", "layer", "layer_kv", "token_kv"] = "block"
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
    chunked_context: Annotated[bool, Field(strict=True)] = True
    capacity_policy: CapacityPolicy | None = None
    free_gpu_memory_fraction: Annotated[float, Field(gt=0, le=1, strict=True)] | None = None
    reserve_full_isl: Annotated[bool, Field(strict=True)] = True
    watermark: Annotated[float, Field(ge=0, lt=1, strict=True)] = 0.0
    schedule_policy: SchedulePolicy | None = None
    mixed_chunk: Annotated[bool, Field(strict=True)] | None = None
    schedule_conservativeness: Annotated[float, Field(gt=0, le=10)] | None = None
    mem_fraction_static: Annotated[float, Field(gt=0, le=1, strict=True)] | None = None
    speculation: SpeculationSpec | None = None

    @model_validator(mode="before")
    @classmethod
    def _settled(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        found = with_framework(with_kind(value))
        return found if "max_num_seqs" in value else with_speculation(found)

    @model_validator(mode="after")
    def _available(self) -> EngineSpec:
        check_kind(self)
        check_framework(self)
        check_speculation(self)
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
