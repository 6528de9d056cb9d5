"""Elastic Cache (ECCV 2024; liuzuyan/ElasticCache): speed at a KV budget of 0.2 with Hugging Face's cache.

SOURCE: up to 77.9 % from the abstract; LLaVA-1.5-13B, batch 8, 1024 + 512 tokens from notes on the paper.
"""

from __future__ import annotations

from sim.reproduce.rows import Figure, Table
from sim.reproduce.setting import Setting

OUTPUT = 512


def setting(policies: object, batch: int = 8, prompt: int = 1024) -> Setting:
    """LLaVA-1.5-13B (its language model), with Hugging Face's cache."""
    return Setting("llava-1.5-13b", "a100-80", batch, prompt, OUTPUT, policies, "hf_concat")


BATCHES = (8, 16, 22)
SWEEP = tuple(setting(p, batch) for batch in BATCHES for p in ("full", {"name": "elastic", "budget": 0.2}))
FULL, OURS = SWEEP[-2:]
WHERE = f"LLaVA-1.5-13B, A100-80, HF cache, batches of 8 to 22 (all that full KV fits), 1024 + {OUTPUT} tokens, 0.2"
TABLES = (
    Table(
        "elastic",
        "abstract",
        "S",
        WHERE,
        (
            Figure(
                "decoding speed, up to",
                1.779,
                "x",
                SWEEP,
                lambda *runs: max(a.step_ms / b.step_ms for a, b in zip(runs[::2], runs[1::2], strict=True)),
            ),
        ),
        note="the batch of the abstract's figure is not in the notes; at 8 eager launches bound both",
        quick=True,
    ),
    Table(
        "elastic",
        "orders",
        "R",
        WHERE,
        (
            Figure(
                "merging costs at the prompt: TTFT is longer",
                1,
                "holds",
                (FULL, OURS),
                lambda full, ours: float(ours.ttft_ms > full.ttft_ms),
            ),
            Figure(
                "smaller budgets are faster (batch 22)",
                2,
                "pairs",
                (OURS, setting({"name": "elastic", "budget": 0.5}, 22), FULL),
                lambda a, b, c: float((a.step_ms < b.step_ms) + (b.step_ms < c.step_ms)),
            ),
        ),
        "ordering",
        quick=True,
    ),
)
