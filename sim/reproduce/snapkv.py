"""SnapKV (NeurIPS 2024): the prompt's KV chosen once by the votes of its last queries.

SOURCE: 3.6x generation speed and 8.2x memory at 16k tokens from the abstract, recalled.
"""

from __future__ import annotations

from sim.reproduce.rows import Figure, Table
from sim.reproduce.setting import Setting

SNAP = {"name": "snapkv", "budget": 1024}


def setting(policies: object, batch: int = 2, prompt: int = 16_000) -> Setting:
    """LongChat-7B-32k with Hugging Face's cache."""
    return Setting("longchat-7b-32k", "a100-80", batch, prompt, 128, policies, "hf_concat")


WHERE = "LongChat-7B-32k, A100-80, HF cache, batch 2, 16k tokens, 1024 of them kept"
TABLES = (
    Table(
        "snapkv",
        "abstract",
        "M",
        WHERE,
        (
            Figure("generation speed", 3.6, "x", (setting("full"), setting(SNAP)), lambda a, b: a.step_ms / b.step_ms),
            Figure(
                "memory efficiency",
                8.2,
                "x",
                (setting("full"), setting(SNAP)),
                lambda a, b: a.kv_per_sequence / b.kv_per_sequence,
                "not comparable",
                "how far a prompt could grow on one GPU; here: KV of a sequence",
            ),
        ),
    ),
    Table(
        "snapkv",
        "limits",
        "D",
        WHERE,
        (
            Figure(
                "a budget above the prompt is full KV, to the bit",
                1,
                "holds",
                (setting("full"), setting({"name": "snapkv", "budget": 20_000})),
                lambda a, b: float(a.step_ms == b.step_ms),
            ),
        ),
        "ordering",
        quick=True,
    ),
)
