"""LMCache: chunks of KV in host memory, on disks and in remote stores, below vLLM."""

from __future__ import annotations

from typing import Any

from policies.options import choice, switch, whole
from policies.system import Setup, TierPart

EVICTION = ("lru", "lfu", "fifo", "arc", "s3fifo")


def lmcache(
    *,
    dram: Any = None,
    ssd: Any = None,
    remote: Any = None,
    chunk: int = 256,
    layerwise: bool = False,
    asynchronous: bool = False,
    answers: bool = False,
    eviction: str = "lru",
) -> Setup:
    """Prompts in chunks of 256 tokens, stored as they are computed; a request takes the longest run of whole chunks.

    Looked up when the scheduler first looks at a request. By default the step that begins its prompt waits until all of
    it has been loaded, and everything else in the batch with it.

    dram, ssd, remote   sizes of the stores: host memory of the engine, a disk behind it, a store shared by the cluster.
                  Host memory is needed (LMCache's default, 5 GB, is a few long prompts; say how much there is)
    chunk         tokens that are stored and found as a whole; what is left of a prompt is not stored
    layerwise     load layer by layer beside the prompt's computation
    asynchronous  load while others run, and begin the prompt when all of it is there
    answers       store what is decoded too
    eviction      of host memory and disk: lru, lfu, fifo, arc, s3fifo

    Source: LMCache (arXiv 2510.09665), its lmcache/v1/config.py (chunk_size 256, use_layerwise, enable_async_loading
    and save_decode_cache false, save_unfull_chunk false, cache_policy LRU). What differs: its disk is written as host
    memory is; evictions from host memory are by block of the trace where that is longer than a chunk. Reuse that is not
    of a prefix (CacheBlend) and transfers between engines are not part of this system.
    """
    whole("chunk", chunk, 1, 1 << 20)
    choice("eviction", eviction, EVICTION)
    switch("answers", answers)
    if switch("layerwise", layerwise) and switch("asynchronous", asynchronous):
        raise ValueError("asynchronous: found True, expected false with layerwise: true")
    mode = "layerwise" if layerwise else "blocking" if asynchronous else "synchronous"
    blocks = {"block_tokens": chunk, "eviction": {"name": eviction}}
    return Setup(
        tiers=(
            TierPart("dram", dram, needed=True, settings=blocks),
            TierPart("ssd", ssd, settings=blocks),
            TierPart("remote", remote, settings={"block_tokens": chunk}, defaults={"shared": "cluster"}),
        ),
        engine={"loading": {"mode": mode}, "offload_answers": answers},
        policies={"offload": {"name": "write_through", "hits": True}},
    )
