"""KIVI (ICML 2024; jy-yuan/KIVI): memory, batch and throughput of Llama-2-7B on an A100-80GB with Hugging Face's cache.

SOURCE: headlines from the abstract; lengths, batch of the memory script and parameters from the repository, read.
"""

from __future__ import annotations

from sim.reproduce.measure import Measured
from sim.reproduce.rows import Figure, Table
from sim.reproduce.setting import MOST, Setting

PROMPT, OUTPUT, BATCH = 160, 338, 96
RESIDUALS = (32, 128)


def kivi(residual: int, bits: int = 2) -> dict[str, object]:
    """2 bits in groups of 32, the newest `residual` tokens in fp16."""
    return {"name": "kivi", "bits": bits, "group": 32, "residual": residual}


def setting(policies: object, batch: int) -> Setting:
    """Llama-2-7B with Hugging Face's cache."""
    return Setting("llama-2-7b", "a100-80", batch, PROMPT, OUTPUT, policies, "hf_concat")


FULL, FULL_96 = setting("full", MOST), setting("full", BATCH)
OURS = {residual: setting(kivi(residual), MOST) for residual in RESIDUALS}


def _rates(full: Measured, *ours: Measured) -> list[float]:
    return [run.tokens_per_s / full.tokens_per_s for run in ours]


WHERE = f"Llama-2-7B, A100-80, HF cache, {PROMPT} + {OUTPUT} tokens, 2 bits, groups of 32"
TABLES = (
    Table(
        "kivi",
        "abstract",
        "S",
        WHERE,
        (
            Figure(
                f"peak memory, batch {BATCH}",
                2.6,
                "x less",
                (FULL_96, setting(kivi(128), BATCH)),
                lambda full, ours: full.peak_bytes / ours.peak_bytes,
            ),
            Figure(
                "batch, up to", 4.0, "x", (FULL, *OURS.values()), lambda full, *r: max(o.batch for o in r) / full.batch
            ),
            Figure(
                "throughput at the largest batch, most", 3.47, "x", (FULL, *OURS.values()), lambda *r: max(_rates(*r))
            ),
            Figure(
                "throughput at the largest batch, least", 2.35, "x", (FULL, *OURS.values()), lambda *r: min(_rates(*r))
            ),
        ),
        note="most and least are over residual windows of 32 and 128 tokens",
        quick=True,
    ),
    Table(
        "kivi",
        "orders",
        "D",
        WHERE,
        (
            Figure(
                "no gain at batch 1",
                1,
                "holds",
                (setting("full", 1), setting(kivi(128), 1)),
                lambda full, ours: float(ours.tokens_per_s < 1.1 * full.tokens_per_s),
            ),
            Figure(
                "2 bits take less memory than 4, and 4 less than 16",
                2,
                "pairs",
                (setting(kivi(32), BATCH), setting(kivi(32, 4), BATCH), FULL_96),
                lambda a, b, c: float((a.peak_bytes < b.peak_bytes) + (b.peak_bytes < c.peak_bytes)),
            ),
        ),
        "ordering",
        quick=True,
    ),
)
