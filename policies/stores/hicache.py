"""SGLang HiCache: a radix tree over GPU memory, host memory and a shared store."""

from __future__ import annotations

from typing import Any

from hw_profiles.errors import InputError
from policies.options import choice, whole
from policies.system import Setup, TierPart

LAYOUTS = {"layer_first": "layer_kv", "page_first": "token_kv", "page_first_direct": "layer_kv"}
"""What of a page is contiguous on both sides of the GPU's link, whose own side is always layer by layer."""
DIRECT = ("layer_first", "page_first_direct")
WRITES = ("write_through", "write_through_selective", "write_back")


def hicache(
    *,
    dram: Any = None,
    remote: Any = None,
    page_size: int | None = None,
    write_policy: str = "write_through",
    prefetch_policy: str = "best_effort",
    prefetch_threshold: int = 256,
    prefetch_timeout_base: float | str = "1 s",
    prefetch_timeout_per_ki_token: float | str = "250 ms",
    io_backend: str = "kernel",
    mem_layout: str | None = None,
) -> Setup:
    """L1 in HBM, L2 in host memory, L3 in a store of the cluster; leaves go before their parents.

    A prefix in host memory is loaded layer by layer beside the prompt's computation. One in the store is brought to
    host memory while its request is queued, and what has not come from there is computed.

    dram             size of L2 per engine: `--hicache-size` per rank, or `--hicache-ratio` (2 by default, times the KV
                     memory of the GPU, which a run prints)
    remote           size of L3; none if not given
    page_size        tokens of a page in all levels; None: `engine.block_tokens`, or 64, as in HiCache's examples
                     (SGLang's own default is 1)
    write_policy     of L1: write_through, write_through_selective (at the second use), write_back; what has come to L2
                     goes on to L3 with each
    prefetch_policy  best_effort, wait_complete, timeout: what a request whose turn comes does about a prefetch that is
                     still under way
    prefetch_threshold   fewer tokens than that are not brought from the store
    prefetch_timeout_base, prefetch_timeout_per_ki_token   of prefetch_policy: timeout, which waits for the base and
                     that for every 1,024 tokens to be fetched
    io_backend       kernel (a copy kernel) or direct (copies one by one)
    mem_layout       layer_first, page_first or page_first_direct, which say how many pieces a page has on its way
                     between GPU and host (docs/tiers.md, "HiCache"); none: one

    Source: SGLang, docs/advanced_features/hicache_design.md, python/sglang/srt/server_args.py and mem_cache/
    hiradix_cache.py (a node is written to L3 when its write to L2 has ended).
    """
    said: dict[str, Any] = {} if page_size is None else {"block_tokens": whole("page_size", page_size, 1, 65536)}
    choice("write_policy", write_policy, WRITES)
    choice("prefetch_policy", prefetch_policy, ("best_effort", "wait_complete", "timeout"))
    method = {"kernel": "kernel", "direct": "loop"}[choice("io_backend", io_backend, ("kernel", "direct"))]
    queued: dict[str, Any] = {"name": "on_arrival", "into": "dram", "stop": prefetch_policy, "only": True}
    if prefetch_threshold:
        queued["threshold"] = whole("prefetch_threshold", prefetch_threshold, 0, 1_000_000_000)
    if prefetch_policy == "timeout":
        queued |= {"timeout": prefetch_timeout_base, "timeout_per_ki_token": prefetch_timeout_per_ki_token}
    if mem_layout is not None:
        choice("mem_layout", mem_layout, LAYOUTS)
        if mem_layout == "page_first" and io_backend == "direct":
            raise InputError("goes with the kernel only", path="mem_layout", found=mem_layout, allowed=DIRECT)
        said["kv_layout"] = LAYOUTS[mem_layout]
    return Setup(
        tiers=(
            TierPart("dram", dram, needed=True, settings={"leaf_only": True}),
            TierPart("remote", remote, defaults={"shared": "cluster"}, policies={"prefetch": queued}),
        ),
        engine={"kind": "sglang", "loading": {"mode": "layerwise"}, **said},
        engine_defaults={} if page_size else {"block_tokens": 64},
        hbm={} if write_policy == "write_through" else {"offload": {"name": write_policy}},
        links={"pcie_h2d": {"method": method}, "pcie_d2h": {"method": method}},
        policies={"offload": {"name": "write_through"}},
    )
