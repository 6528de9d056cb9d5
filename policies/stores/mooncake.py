"""Mooncake's pool: the memory of all nodes as one store that every engine reads over RDMA."""

from __future__ import annotations

from typing import Any

from hw_profiles.units import parse_bytes
from policies.options import choice, whole
from policies.system import Setup, TierPart


def mooncake(
    *, remote: Any = None, dram: Any = None, block: int = 512, replicas: int = 1, eviction: str = "lru"
) -> Setup:
    """Blocks of 512 tokens in a pool of the cluster; prompts are stored and loaded layer by layer beside the steps.

    Bytes go between the GPU and the network card directly. With `dram`, or a tier of that name, they pass host memory,
    and each node keeps what it computed or loaded there too, so what many nodes ask for is replicated, and is read from
    there the next time.

    remote    size of the pool: what the nodes give to it, together
    dram      size of each node's own copies of hot blocks; none if not given
    block     tokens of a block of the pool
    replicas  copies of each block in the pool, which then holds so many times less
    eviction  of the pool and of the nodes' copies: lru or lfu

    Source: Qin et al., FAST 2025 (arXiv 2407.00079): blocks of 512 tokens (section 3 of the report), layer-wise loads
    and stores (5.2), replication of hot blocks where requests go (6.2), LRU; replicas: Mooncake Store's
    `replica_num`. What differs: the pool is one capacity behind each node's network card, so the share of it that lies
    in the node itself is read over the card too, and a block's source is never the bottleneck. The scheduler that
    places requests by where their prefix lies is `routing`, prefill and decode apart is `disaggregation`.
    """
    whole("block", block, 1, 1 << 20)
    whole("replicas", replicas, 1, 64)
    own = {"block_tokens": block, "eviction": {"name": choice("eviction", eviction, ("lru", "lfu"))}}
    capacity = remote
    if replicas > 1:
        if remote is None:
            raise ValueError(f"replicas: found {replicas}, expected 1 unless the option `remote` gives the pool's size")
        capacity = f"{parse_bytes(remote) // replicas} B"
    return Setup(
        tiers=(
            TierPart("dram", dram, settings=own, defaults={"shared": "node"}),
            TierPart(
                "remote",
                capacity,
                needed=True,
                settings={**own, "shared": "cluster"},
                defaults={"device": "rdma-400g"},
                alone={"direct": True},
            ),
        ),
        engine={"loading": {"mode": "layerwise"}},
        policies={"offload": {"name": "write_through"}},
    )
