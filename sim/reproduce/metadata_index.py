"""Metadata of prefix caches in Redis, Sherman and CHIME (arXiv 2505.21919, IEEE CLOUD 2025): orders alone.

SOURCE: abstract and notes: RDMA-based indexes search faster than Redis under Mooncake's traces, none is made for this
load, 86.8 % of the blocks of a request lie in sequence. That an index shows with small blocks and hides with large ones
and in batches is this project's own expectation (D). Latencies of the stores are estimates (policies.reuse).
"""

from __future__ import annotations

from typing import Any

from sim.reproduce.measure import Measured
from sim.reproduce.rows import Figure, Table
from sim.reproduce.setting import Setting

TRACE = {
    "generate": {
        "requests": 200,
        "rate": 2,
        "turns": 1,
        "system_prompts": 0,
        "first_tokens": {"mean": 7590, "sigma": 1.0},  # SOURCE: Mooncake (FAST 2025), mean prompt of its trace
        "output_tokens": {"mean": 182, "sigma": 0.8},
    }
}


def setting(**options: Any) -> Setting:
    """Prompts of Mooncake's mean length on one H100, with an index; without options: none."""
    policies = {"reuse": {"name": "metadata_index", **options}} if options else "full"
    engine = {"gpu_memory_utilization": 0.9}
    return Setting("llama-3.1-8b", "h100-sxm", 256, 7590, 182, policies, engine=engine, more={"trace": TRACE})


PLAIN = setting()
REDIS, SHERMAN, CHIME = (setting(backend=name) for name in ("redis", "sherman", "chime"))
LARGE, BATCH = setting(backend="redis", block_tokens=512), setting(backend="redis", by="batch")
POINTS, RANGE = setting(backend="sherman", by="batch"), setting(backend="sherman", by="range")
VISIBLE, HIDDEN = 0.05, 0.01
"""Shares of TTFT."""


def _lookup(m: Measured) -> float:
    return float(m.summary["metadata_index"]["lookup_mean_ms"])


def _share(plain: Measured, m: Measured) -> float:
    return _lookup(m) / float(plain.summary["ttft_ms"]["mean"])


TABLES = (
    Table(
        "metadata_index",
        "abstract",
        "S",
        "Llama-3.1-8B, H100, 200 prompts of 7,590 tokens in the mean, one entry for 16 tokens",
        (
            Figure(
                "CHIME searches faster than Redis",
                1,
                "holds",
                (REDIS, CHIME),
                lambda a, b: float(_lookup(b) < _lookup(a)),
            ),
            Figure(
                "Sherman searches faster than Redis",
                1,
                "holds",
                (REDIS, SHERMAN),
                lambda a, b: float(_lookup(b) < _lookup(a)),
            ),
        ),
        "ordering",
        note="follows from the latencies, which are estimates; their tails, which the paper finds varied, are left out",
        quick=True,
    ),
    Table(
        "metadata_index",
        "expectations",
        "D",
        "the same",
        (
            Figure(
                "small blocks, one by one: over 5 % of TTFT",
                1,
                "holds",
                (PLAIN, REDIS),
                lambda p, m: float(_share(p, m) > VISIBLE),
            ),
            Figure(
                "blocks of 512 tokens: under 1 %", 1, "holds", (PLAIN, LARGE), lambda p, m: float(_share(p, m) < HIDDEN)
            ),
            Figure(
                "small blocks in one message: under 1 %",
                1,
                "holds",
                (PLAIN, BATCH),
                lambda p, m: float(_share(p, m) < HIDDEN),
            ),
            Figure(
                "a range read is cheaper than as many points",
                1,
                "holds",
                (POINTS, RANGE),
                lambda a, b: float(_lookup(b) < _lookup(a)),
            ),
        ),
        "ordering",
        quick=True,
    ),
)
