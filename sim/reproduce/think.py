"""ThinK (ICLR 2025; SalesforceAIResearch/ThinK): channels of the keys pruned, alone and with KIVI.

SOURCE: headlines from the abstract; 160 + 338 tokens, window and groups of 32 from the repository, read.
"""

from __future__ import annotations

from sim.reproduce import kivi
from sim.reproduce.rows import Figure, Table
from sim.reproduce.setting import MOST

THINK = {"name": "think", "ratio": 0.4}
FULL, FULL_96 = kivi.FULL, kivi.FULL_96
BOTH = [THINK, kivi.kivi(32)]
WHERE = "Llama-2-7B, A100-80, HF cache, 160 + 338 tokens; 40 % of key channels, with KIVI of 2 bits"
TABLES = (
    Table(
        "think",
        "abstract, KV saved",
        "S",
        "40 % of the key channels pruned",
        (
            Figure(
                "KV",
                0.20,
                "saved",
                (FULL_96, kivi.setting(THINK, kivi.BATCH)),
                lambda full, ours: 1 - ours.kv_per_sequence / full.kv_per_sequence,
            ),
        ),
        "arithmetic",
        quick=True,
    ),
    Table(
        "think",
        "abstract, with KIVI",
        "S",
        WHERE,
        (
            Figure(
                "peak memory",
                2.8,
                "x less",
                (FULL_96, kivi.setting(BOTH, kivi.BATCH)),
                lambda full, ours: full.peak_bytes / ours.peak_bytes,
            ),
            Figure("batch", 5.0, "x", (FULL, kivi.setting(BOTH, MOST)), lambda full, ours: ours.batch / full.batch),
        ),
        quick=True,
    ),
    Table(
        "think",
        "orders",
        "D",
        WHERE,
        (
            Figure(
                "both together take less than KIVI alone",
                1,
                "holds",
                (kivi.OURS[32], kivi.setting(BOTH, MOST)),
                lambda one, both: float(both.batch > one.batch),
            ),
        ),
        "ordering",
        quick=True,
    ),
)
