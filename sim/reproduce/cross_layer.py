"""A systematic study of cross-layer KV sharing (NAACL 2025, arXiv 2410.14442): nine configurations.

SOURCE: the three partitions and three positions of the target layer, and what each costs, from notes on the paper;
no table of speeds was read.
"""

from __future__ import annotations

from sim.reproduce.measure import Measured
from sim.reproduce.rows import Figure, Table
from sim.reproduce.setting import MOST, Setting

PARTITIONS, POSITIONS = ("pizza", "sandwich", "lasagna"), ("bottom", "top", "middle")
NINE = tuple((partition, position) for partition in PARTITIONS for position in POSITIONS)


def setting(config: tuple[str, str] | None, batch: int, prompt: int = 5, output: int = 2043) -> Setting:
    """TinyLlama-1.1B with half of its 22 layers' caches."""
    policies: object = "full"
    if config is not None:
        policies = {"name": "cross_layer", "partition": config[0], "position": config[1], "kv_layers": 11}
    return Setting("tinyllama-1.1b", "rtx-3090", batch, prompt, output, policies, "hf_concat")


def _bytes(*runs: Measured) -> float:
    return float(sum(run.kv_per_sequence == runs[0].kv_per_sequence for run in runs))


WHERE = "TinyLlama-1.1B, RTX 3090, HF cache, 11 of 22 layers with a cache of their own"
SMALL = tuple(setting(config, 16) for config in NINE)
MOSTLY = (setting(None, MOST), *(setting(config, MOST) for config in NINE))
PROMPTS = tuple(setting(config, 16, 2000, 16) for config in NINE)
TABLES = (
    Table(
        "cross_layer",
        "bytes",
        "D",
        WHERE,
        (
            Figure("configurations with the same KV bytes", 9, "of 9", SMALL, _bytes, "ordering"),
            Figure(
                "KV over the full model's",
                0.5,
                "of full",
                (setting(None, 16), SMALL[0]),
                lambda full, ours: ours.kv_per_sequence / full.kv_per_sequence,
            ),
        ),
        "arithmetic",
        quick=True,
    ),
    Table(
        "cross_layer",
        "orders",
        "S",
        WHERE,
        (
            Figure(
                "configurations with higher throughput than the full model at the largest batch",
                9,
                "of 9",
                MOSTLY,
                lambda full, *ours: float(sum(run.tokens_per_s > full.tokens_per_s for run in ours)),
            ),
            Figure(
                "top and middle pay for it at the prompt: pairs with a longer TTFT than bottom",
                6,
                "pairs",
                PROMPTS,
                lambda *runs: float(
                    sum(runs[3 * p + t].ttft_ms > runs[3 * p].ttft_ms for p in range(3) for t in (1, 2))
                ),
            ),
        ),
        "ordering",
    ),
)
