"""The field's ways to make the KV cache smaller, faster or shared, as a tree with the policies that are here.

The branches are those on which the reviews agree: arXiv 2407.18003 (by stage: training, deployment, after training),
2412.19442 (token, model, system level), 2508.06297 and 2603.20397.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

Leaves = Mapping[str, tuple[str, ...]]

TREE: Mapping[str, Leaves] = MappingProxyType(
    {
        "training: architecture": {
            "fewer KV heads": ("gqa", "mqa"),
            "latent": ("mla",),
            "shared between layers": ("cla", "lckv", "cross_layer", "yoco"),
            "blocks of tokens": ("block_transformer",),
            "bounded state": ("bct",),
        },
        "after training: tokens": {
            "static eviction": ("streaming_llm", "lacache"),
            "dynamic eviction": ("h2o", "snapkv", "scissorhands"),
            "eviction without a budget": ("corm",),
            "static rows": ("snapstream",),
            "merging": ("elastic",),
            "representatives": ("kvcrush",),
            "low-rank state": ("less",),
            "budgets by layer or head": ("xkv", "zigzagkv", "baklava", "audiokv"),
        },
        "after training: bytes": {
            "quantisation of KV": ("fp8", "int8", "int4", "kivi", "zipcache"),
            "quantisation of everything": ("quarot",),
            "pruned channels": ("think",),
            "entropy coding": ("kvcomp",),
            "encryption": ("cachemir",),
        },
        "deployment: within a sequence": {
            "offload": ("flexgen", "host_kv", "uvm"),
            "selection with offload": ("arkvale", "infinigen", "pqcache", "kcache"),
            "selection in HBM": ("quest", "zipvl"),
            "placement, both memories read at once": ("placement",),
            "prefetch into L2": ("l2_prefetch",),
        },
        "deployment: across sequences": {
            "paged blocks, everything kept": ("full",),
            "prefix reuse": ("eviction", "admission"),
            "tiers behind HBM": ("offload", "prefetch"),
            "stores in tiers": ("lmcache", "vllm_cpu_offload", "hicache", "mooncake", "cached_attention"),
            "scheduling": ("fcfs", "priority", "static", "scheduling"),
            "routing": ("routing",),
            "admission control": ("admission_control",),
            "response cache": ("instcache", "reuse"),
            "index of prefixes": ("metadata_index",),
            "autoscaling": ("fleet",),
            "prewarming": ("warmserve", "serverless_llm"),
            "sharing GPUs": ("gpu_sharing",),
        },
    }
)
"""Branch -> leaf -> systems, families of policies, or values of `engine.scheduling`; empty: not in this version."""
