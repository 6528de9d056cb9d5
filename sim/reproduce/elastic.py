"""Elastic Cache (ECCV 2024; liuzuyan/ElasticCache): speed at a KV budget of 0.2 with Hugging Face's cache.

SOURCE: up to 77.9 % from the abstract; LLaVA-1.5-13B, batch 8, 1024 + 512 tokens from notes on the paper. Larger
batches are shown and not judged.
"""

from __future__ import annotations

from sim.reproduce.measure import Measured
from sim.reproduce.rows import Figure, Table
from sim.reproduce.setting import Setting

OUTPUT = 512


def setting(policies: object, batch: int = 8, prompt: int = 1024) -> Setting:
    """LLaVA-1.5-13B (its language model), with Hugging Face's cache."""
    return Setting("llava-1.5-13b", "a100-80", batch, prompt, OUTPUT, policies, "hf_concat")


BATCH, MORE = 8, (16, 22)
"""The paper's, and larger ones: full KV fits 22."""
GAIN = 1.779


def pair(batch: int) -> tuple[Setting, Setting]:
    """Full KV, and a fifth of it."""
    return setting("full", batch), setting({"name": "elastic", "budget": 0.2}, batch)


def _gain(full: Measured, ours: Measured) -> float:
    return full.step_ms / ours.step_ms


FULL, OURS = pair(MORE[-1])
WHERE = f"LLaVA-1.5-13B, A100-80, HF cache, batch {BATCH} unless named, 1024 + {OUTPUT} tokens, a budget of 0.2"
TABLES = (
    Table(
        "elastic",
        "abstract",
        "S",
        WHERE,
        (
            Figure(f"decoding speed, up to (batch {BATCH})", GAIN, "x", pair(BATCH), _gain),
            *(
                Figure(
                    f"decoding speed, batch {batch}",
                    GAIN,
                    "x",
                    pair(batch),
                    _gain,
                    "not comparable",
                    "a larger batch than the paper's",
                )
                for batch in MORE
            ),
        ),
        note="at the paper's batch the launches of eager kernels from Python (25 us each, assumed) take longer than "
        "the bytes of either cache, and evictions launch more; the gain grows with the batch",
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
