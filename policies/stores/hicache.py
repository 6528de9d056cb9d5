"""SGLang HiCache: a radix tree over GPU memory, host memory and a shared store."""

from __future__ import annotations

from typing import Any

from policies.options import choice, whole
from policies.system import Setup, TierPart

WRITES = ("write_through", "write_through_selective", "write_back")


def hicache(
    *,
    dram: Any = None,
    remote: Any = None,
    page_size: int = 64,
    write_policy: str = "write_through",
    prefetch_policy: str = "best_effort",
    io_backend: str = "kernel",
) -> Setup:
    """L1 in HBM, L2 in host memory, L3 in a store of the cluster; leaves go before their parents.

    A prefix in host memory is loaded layer by layer beside the prompt's computation. One in the store is brought to
    host memory while its request is queued.

    dram             size of L2 per engine: `--hicache-size` per rank, or `--hicache-ratio` (2 by default, times the KV
                     memory of the GPU, which a run prints)
    remote           size of L3; none if not given
    page_size        tokens of a page in all levels (SGLang's own default is 1; 64 in HiCache's examples)
    write_policy     write_through, write_through_selective (at the second use), write_back
    prefetch_policy  best_effort, wait_complete, timeout: what a request whose turn comes does about a prefetch that is
                     still under way
    io_backend       kernel (a copy kernel) or direct (one copy per page)

    Source: SGLang, docs/advanced_features/hicache_design.md and python/sglang/srt/server_args.py. What differs: see
    `on_arrival`, which brings pages from L3 here, for its threshold and time-out.
    """
    whole("page_size", page_size, 1, 65536)
    choice("write_policy", write_policy, WRITES)
    choice("prefetch_policy", prefetch_policy, ("best_effort", "wait_complete", "timeout"))
    method = {"kernel": "kernel", "direct": "loop"}[choice("io_backend", io_backend, ("kernel", "direct"))]
    queued = {"name": "on_arrival", "into": "dram", "stop": prefetch_policy}
    return Setup(
        tiers=(
            TierPart("dram", dram, needed=True, settings={"leaf_only": True}),
            TierPart("remote", remote, defaults={"shared": "cluster"}, policies={"prefetch": queued}),
        ),
        engine={"kind": "sglang", "loading": {"mode": "layerwise"}},
        engine_defaults={"block_tokens": page_size},
        links={"pcie_h2d": {"method": method}, "pcie_d2h": {"method": method}},
        policies={"offload": {"name": write_policy}},
    )
