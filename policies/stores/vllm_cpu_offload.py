"""vLLM's own offloading to host memory: the OffloadingConnector."""

from __future__ import annotations

from typing import Any

from policies.options import choice, whole
from policies.system import Setup, TierPart


def vllm_cpu_offload(
    *, dram: Any = None, block_size: int | None = None, eviction: str = "lru", store_threshold: int = 0
) -> Setup:
    """Full GPU blocks go to host memory as they fill, and come back before their request is scheduled.

    Both ways are asynchronous copies beside the steps: a request whose prefix is on its way waits while others run.
    What is decoded is stored too.

    dram             size of the memory per engine (vLLM wants `cpu_bytes_to_use`, and has no default either)
    block_size       tokens of a block there, a multiple of the engine's; None: those of the engine
    eviction         lru or arc
    store_threshold  2: a block is stored when it is wanted for the second time; 0 or 1: at once

    Source: vLLM, vllm/v1/kv_offload/cpu.py and spec.py (cpu_bytes_to_use, block_size, eviction_policy lru or arc,
    store_threshold 0); its post of 2026-01-08 on the connector. What differs: vLLM counts lookups of a block for
    store_threshold, here one that was hit in HBM or refused before is let in (`second_hit`).
    """
    choice("eviction", eviction, ("lru", "arc"))
    whole("store_threshold", store_threshold, 0, 2)
    own: dict[str, Any] = {"eviction": {"name": eviction}}
    if block_size is not None:
        own["block_tokens"] = whole("block_size", block_size, 1, 1 << 20)
    if store_threshold == 2:
        own["admission"] = {"name": "second_hit"}
    return Setup(
        tiers=(TierPart("dram", dram, needed=True, settings=own),),
        engine={"kind": "vllm", "loading": {"mode": "blocking"}},
        policies={"offload": {"name": "write_through"}},
    )
