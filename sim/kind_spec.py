"""Engines beside vLLM's: what `engine.kind` settles of `engine:`, and what cannot be asked of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from hw_profiles.errors import InputError

KindName = Literal["vllm", "sglang", "tensorrt_llm"]
SchedulePolicy = Literal["fcfs", "lpm"]
CapacityPolicy = Literal["guaranteed_no_evict", "max_utilization"]


@dataclass(frozen=True)
class EngineKind:
    """One engine.

    defaults  what of `engine:` is not given
    needs     what can be nothing else with it
    own       options that no other engine has
    """

    about: str
    source: str
    defaults: Mapping[str, Any] = field(default_factory=dict)
    needs: Mapping[str, Any] = field(default_factory=dict)
    own: tuple[str, ...] = ()


_CONTINUOUS = {"framework": "vllm_paged", "scheduling": "fcfs", "reserve_full_isl": False, "watermark": 0.0}
"""Frameworks, static batches, priorities, room for whole prompts: options of the scheduler that follows vLLM's."""

KINDS: Mapping[KindName, EngineKind] = {
    "vllm": EngineKind("vLLM v1's scheduler", "vllm-project/vllm: vllm/v1/core/sched/scheduler.py"),
    "sglang": EngineKind(
        "SGLang's scheduler: prompts first, a radix tree of tokens, retraction",
        "sgl-project/sglang: python/sglang/srt/managers/scheduler.py, schedule_policy.py, schedule_batch.py. Defaults: "
        "python/sglang/srt/server_args.py (chunked_prefill_size 8192 of GPUs of 60 to 160 GB, page_size 1, "
        "schedule_policy fcfs, enable_mixed_chunk false, schedule_conservativeness 1), max_running_requests 2048 at "
        "least (model_executor/model_runner.py)",
        defaults={
            "max_num_seqs": 2048,
            "max_num_batched_tokens": 8192,
            "block_tokens": 1,
            "schedule_policy": "fcfs",
            "mixed_chunk": False,
            "schedule_conservativeness": 1.0,
        },
        needs={**_CONTINUOUS, "gpu_memory_utilization": 1.0},
        own=("schedule_policy", "mixed_chunk", "schedule_conservativeness", "mem_fraction_static"),
    ),
    "tensorrt_llm": EngineKind(
        "TensorRT-LLM's in-flight batching under a capacity scheduler",
        "NVIDIA/TensorRT-LLM: cpp/tensorrt_llm/batch_manager/capacityScheduler.cpp, microBatchScheduler.cpp. Defaults: "
        "tensorrt_llm/llmapi/llm_args.py (max_batch_size 2048, max_num_tokens 8192, free_gpu_memory_fraction 0.9, "
        "tokens_per_block 32, enable_chunked_prefill false, GUARANTEED_NO_EVICT)",
        defaults={
            "max_num_seqs": 2048,
            "max_num_batched_tokens": 8192,
            "block_tokens": 32,
            "capacity_policy": "guaranteed_no_evict",
            "chunked_context": False,
            "free_gpu_memory_fraction": 0.9,
        },
        needs={**_CONTINUOUS, "gpu_memory_utilization": 1.0},
        own=("capacity_policy", "free_gpu_memory_fraction"),
    ),
}
"""By name; sim.engine has the schedulers."""

KERNELS: Mapping[KindName, str] = {"sglang": "-sglang", "tensorrt_llm": "-trtllm"}
"""Endings of the names of profiles that have an engine's kernels; those of vLLM's have none."""


class Settings(Protocol):
    """The parts of `engine:` that a kind has a say in."""

    kind: KindName
    chunked_context: bool


def with_kind(engine: Mapping[str, Any]) -> dict[str, Any]:
    """`engine:` as it was written, with the engine's own settings in the place of defaults."""
    found = KINDS.get(engine.get("kind", "vllm"))
    return dict(engine) if found is None else {**found.needs, **found.defaults, **engine}


def check_kind(engine: Settings) -> None:
    """Raise InputError for settings that the engine cannot have."""
    kind = KINDS[engine.kind]
    for key, value in kind.needs.items():
        if (found := getattr(engine, key)) != value:
            raise InputError(f"not with kind: {engine.kind}", path=key, found=found, allowed=str(value).lower())
    if not engine.chunked_context and "chunked_context" not in kind.defaults:
        raise InputError(f"{engine.kind} computes long prompts in chunks", path="chunked_context", found=False)
    for name, other in KINDS.items():
        for key in other.own:
            if name != engine.kind and (found := getattr(engine, key)) is not None:
                raise InputError(f"not with kind: {engine.kind}", path=key, found=found, allowed=f"kind: {name}")
