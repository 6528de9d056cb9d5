"""Which systems have published figures here, and where: an explicit table, in the order in which they are shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hw_profiles.errors import InputError
from policies.systems import SYSTEMS as IMPLEMENTED
from sim.reproduce import (
    arkvale,
    bct,
    block_transformer,
    budgets,
    cached_attention,
    cachemir,
    characterization,
    cla,
    corm,
    cross_layer,
    elastic,
    flexgen,
    fp8,
    h2o,
    hicache,
    infinigen,
    instcache,
    int4,
    kcache,
    kivi,
    kvcomp,
    kvcrush,
    l2_prefetch,
    lacache,
    lckv,
    less,
    lmcache,
    mc_sf,
    metadata_index,
    mla,
    mooncake,
    placement,
    pqcache,
    quarot,
    quest,
    scissorhands,
    snapkv,
    snapstream,
    static_batching,
    streaming_llm,
    think,
    vllm_offload,
    warmserve,
    watermark,
    zipcache,
    zipvl,
)
from sim.reproduce.rows import Table

SYSTEMS: Mapping[str, tuple[Table, ...]] = {
    "arkvale": arkvale.TABLES,
    "infinigen": infinigen.TABLES,
    "pqcache": pqcache.TABLES,
    "kcache": kcache.TABLES,
    "quest": quest.TABLES,
    "zipvl": zipvl.TABLES,
    "l2_prefetch": l2_prefetch.TABLES,
    "flexgen": flexgen.TABLES,
    "h2o": h2o.TABLES,
    "streaming_llm": streaming_llm.TABLES,
    "snapkv": snapkv.TABLES,
    "less": less.TABLES,
    "elastic": elastic.TABLES,
    "scissorhands": scissorhands.TABLES,
    "corm": corm.TABLES,
    "snapstream": snapstream.TABLES,
    "bct": bct.TABLES,
    "lacache": lacache.TABLES,
    "kvcrush": kvcrush.TABLES,
    "xkv": budgets.XKV,
    "zigzagkv": budgets.ZIGZAGKV,
    "baklava": budgets.BAKLAVA,
    "audiokv": budgets.AUDIOKV,
    "kivi": kivi.TABLES,
    "quarot": quarot.TABLES,
    "zipcache": zipcache.TABLES,
    "think": think.TABLES,
    "kvcomp": kvcomp.TABLES,
    "cachemir": cachemir.TABLES,
    "fp8": fp8.TABLES,
    "int4": int4.TABLES,
    "cla": cla.TABLES,
    "lckv": lckv.TABLES,
    "cross_layer": cross_layer.TABLES,
    "block_transformer": block_transformer.TABLES,
    "mla": mla.TABLES,
    "lmcache": lmcache.TABLES,
    "vllm_cpu_offload": vllm_offload.TABLES,
    "hicache": hicache.TABLES,
    "mooncake": mooncake.TABLES,
    "warmserve": warmserve.TABLES,
    "cached_attention": cached_attention.TABLES,
    "static_batching": static_batching.TABLES,
    "vllm_watermark": watermark.TABLES,
    "instcache": instcache.TABLES,
    "metadata_index": metadata_index.TABLES,
    "placement": placement.TABLES,
    "mc_sf": mc_sf.TABLES,
    "characterization": characterization.TABLES,
}


def without_figures() -> list[str]:
    """Systems that a scenario can name and that have no published figures here, in the order of `policies.systems`."""
    return [name for name in IMPLEMENTED if name not in SYSTEMS]


def tables_of(names: Sequence[str], *, quick: bool = False) -> list[Table]:
    """Tables of the systems named, of all if none is; with `quick` those of the short subset. Raises InputError."""
    for name in names:
        if name in without_figures():
            raise InputError("the system can be simulated, but there are no published figures of it here", found=name)
        if name not in SYSTEMS:
            raise InputError("no published figures of this system", found=name, allowed=SYSTEMS, near=SYSTEMS)
    chosen = [table for name, tables in SYSTEMS.items() if not names or name in names for table in tables]
    return [table for table in chosen if table.quick or not quick]
