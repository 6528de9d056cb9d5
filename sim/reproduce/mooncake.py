"""Mooncake's pool (FAST 2025; arXiv 2407.00079): what a pool of the nodes' memory finds that a node alone does not.

SOURCE: FAST 2025, section 5.4 and its figure of hit rates by capacity (3M tokens, which is one node's terabyte for
LLaMA3-70B, reach less than half of the most that can be found; 50M reach nearly all; a global cache finds up to 2.36
times as much as local ones, and saves up to 48 % of the prefill), workload statistics of the conversation trace, from
notes on it; +59 to 498 % of requests within their SLO from the abstract; 75 % more requests on real load from the
abstract of the report.
"""

from __future__ import annotations

from sim.reproduce.cache_study import CacheStudy
from sim.reproduce.measure import Measured
from sim.reproduce.rows import Figure, Table
from sim.reproduce.setting import Setting

TRACE = "mooncake-conversation"
NODE, NODES = 3_000_000, 10
ALL, ONE = CacheStudy(TRACE), CacheStudy(TRACE, NODE)
POOL, LOCAL = CacheStudy(TRACE, NODE * NODES), CacheStudy(TRACE, NODE, NODES)

CLIENTS = {
    "clients": 240,
    "conversations": 1,
    "rounds": 5,
    "system_tokens": 512,
    "first_input_tokens": {"mean": 8000, "sigma": 0.8, "max": 32000},
    "input_tokens": {"mean": 1000, "sigma": 0.8, "max": 8000},
    "output_tokens": {"mean": 200, "sigma": 0.5, "max": 800},
    "think_time": "20 s",
    "ramp_up": "20 s",
    "block_tokens": 512,
}


def serving(policies: object) -> Setting:
    """Conversations over four engines that take requests in turn."""
    return Setting(
        "llama-3.1-8b",
        "h100-sxm",
        256,
        65_536,
        800,
        policies,
        engine={"prefix_caching": True, "gpu_memory_utilization": 0.9},
        hardware={"replicas": 4, "gpus_per_node": 1},
        more={"trace": {"clients": CLIENTS}},
    )


ALONE, WITH_POOL = serving("full"), serving({"name": "mooncake", "remote": "4 TiB"})


def _requests(m: Measured) -> float:
    return float(m.summary["throughput"]["requests_per_s"])


WHERE = "the conversation trace of 12,031 requests, LRU, nothing timed"
TABLES = (
    Table(
        "mooncake",
        "hits by capacity",
        "S",
        WHERE,
        (
            Figure("share of the prompt tokens that can be found", 0.40, "of tokens", (ALL,), lambda h: h.ratio),
            Figure(
                "50M tokens over all that can be found",
                1.0,
                "of the most",
                (CacheStudy(TRACE, 50_000_000), ALL),
                lambda some, most: some.ratio / most.ratio,
            ),
        ),
        note="nearly all is taken as 1",
        quick=True,
    ),
    Table(
        "mooncake",
        "orders",
        "D",
        WHERE,
        (
            Figure(
                "3M tokens, a node, find less than half of what can be found",
                1,
                "holds",
                (ONE, ALL),
                lambda some, most: float(some.ratio < 0.5 * most.ratio),
            ),
            Figure(
                f"a pool of {NODES} nodes finds more than {NODES} caches of their own",
                1,
                "holds",
                (POOL, LOCAL),
                lambda pool, local: float(pool.ratio > local.ratio),
            ),
        ),
        "ordering",
        quick=True,
    ),
    Table(
        "mooncake",
        "a global cache",
        "S",
        WHERE,
        (
            Figure(
                f"hits over those of local caches, up to ({NODES} nodes of 3M tokens, requests in turn)",
                2.36,
                "x",
                (POOL, LOCAL),
                lambda pool, local: pool.ratio / local.ratio,
            ),
        ),
        "not comparable",
        note="the most over three traces, of which one is here, and requests go there to where their prefix lies",
    ),
    Table(
        "mooncake",
        "abstracts",
        "S",
        "Llama-3.1-8B on four H100 behind a pool of 4 TiB; there LLaMA2-70B's shape on 16 nodes of 8 A800",
        (
            Figure(
                "more requests, real load",
                1.75,
                "x",
                (ALONE, WITH_POOL),
                lambda alone, pool: _requests(pool) / _requests(alone),
            ),
            Figure(
                "more requests within their SLO, up to",
                5.98,
                "x",
                (ALONE, WITH_POOL),
                lambda alone, pool: _requests(pool) / _requests(alone),
            ),
        ),
        "not comparable",
        note="there also prefill and decode on nodes of their own, and a baseline without them; here the pool alone, "
        "and requests/s of all requests, with no SLO",
    ),
)
