"""Multi-head latent attention (DeepSeek-V2, arXiv 2405.04434): bytes of the latent cache.

SOURCE: (512 + 64) x 2 x 61 bytes per token of DeepSeek-R1 by arithmetic; 93.3 % less KV than DeepSeek 67B, recalled.
"""

from __future__ import annotations

from sim.reproduce.rows import Figure, Table
from sim.reproduce.setting import Setting

R1 = Setting(
    "deepseek-r1", "h200", 4, 4096, 64, engine={"max_num_batched_tokens": 4096}, hardware={"tp": 8, "gpus_per_node": 8}
)
DEEPSEEK_67B = 2 * 8 * 128 * 95 * 2
"""Bytes per token of DeepSeek 67B: 95 layers, 8 KV heads of 128, bf16 (its config.json)."""
RANKS = 8
TABLES = (
    Table(
        "mla",
        "bytes per token",
        "D",
        "DeepSeek-R1, bf16 cache; a rank's whole latent",
        (Figure("DeepSeek-R1", 70_272.0, "bytes", (R1,), lambda m: m.token_bytes / RANKS),),
        "arithmetic",
        quick=True,
    ),
    Table(
        "mla",
        "abstract of DeepSeek-V2",
        "M",
        "DeepSeek-R1's latent (61 layers for V2's 60) against DeepSeek 67B",
        (Figure("KV saved", 0.933, "saved", (R1,), lambda m: 1 - m.token_bytes / RANKS / DEEPSEEK_67B),),
        "not comparable",
        note="the abstract counts V2's own layers and formats",
    ),
)
