"""Systems across sequences: tiers behind HBM and what moves blocks between them, made by functions of options."""

from __future__ import annotations

from policies.stores.cached_attention import cached_attention
from policies.stores.hicache import hicache
from policies.stores.lmcache import lmcache
from policies.stores.mooncake import mooncake
from policies.stores.vllm_cpu_offload import vllm_cpu_offload
from policies.system import System

ACROSS: dict[str, System] = {
    "lmcache": System(
        "chunks of 256 tokens in host memory, on disks and in remote stores, loaded when the scheduler finds them",
        "LMCache (arXiv 2510.09665); LMCache/LMCache",
        setup=lmcache,
    ),
    "vllm_cpu_offload": System(
        "full blocks are copied to host memory beside the steps, and back before their request is scheduled",
        "vLLM, OffloadingConnector (vllm/v1/kv_offload)",
        setup=vllm_cpu_offload,
    ),
    "hicache": System(
        "a radix tree over HBM, host memory and a shared store, which is read ahead while requests queue",
        "SGLang, docs/advanced_features/hicache_design.md",
        setup=hicache,
    ),
    "mooncake": System(
        "the memory of all nodes as one pool that every engine reads over RDMA",
        "Qin et al., FAST 2025 (arXiv 2407.00079)",
        setup=mooncake,
    ),
    "cached_attention": System(
        "conversations in host memory and on disks, moved as the scheduler's queue says",
        "Gao et al., USENIX ATC 2024 (arXiv 2403.19708)",
        setup=cached_attention,
    ),
    "instcache": System(
        "answers to the likeliest instructions, made in advance, in host memory",
        "Zou et al. (arXiv 2411.13820)",
        {"reuse": ["instcache"]},
    ),
    "metadata_index": System(
        "an index of prefixes that every request asks before it is routed",
        "Zhu et al., IEEE CLOUD 2025 (arXiv 2505.21919)",
        {"reuse": ["metadata_index"]},
    ),
}
