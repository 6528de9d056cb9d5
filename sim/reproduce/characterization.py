"""Comparative characterization of KV-cache management (arXiv 2604.05012): where full, paged KV stops being best.

SOURCE: the finding, from notes on the paper: vLLM has the highest throughput and the lowest latency while KV fits the
GPU; eviction (H2O) and offload (InfiniGen) win only under memory pressure. Its settings were not read.
"""

from __future__ import annotations

from sim.reproduce.measure import Measured
from sim.reproduce.rows import Figure, Table
from sim.reproduce.setting import Setting

H2O = {"name": "h2o", "heavy": 0.1, "recent": 0.1}
INFINIGEN = {"name": "infinigen"}
FITS, PRESSED = 8, 96
"""Sequences at once: their KV takes a third of what is free, and four times of it."""


def setting(policies: object, batch: int, framework: str = "vllm_paged") -> Setting:
    """Llama-2-13B on an A100-80, all requests at once."""
    return Setting("llama-2-13b", "a100-80", batch, 4000, 256, policies, framework)


def best(full: Measured, *others: Measured) -> float:
    """How many of the others full KV is ahead of."""
    return float(sum(full.tokens_per_s > other.tokens_per_s for other in others))


WHERE = "Llama-2-13B, A100-80, 4000 + 256 tokens"
TABLES = (
    Table(
        "characterization",
        "crossover",
        "S",
        WHERE,
        (
            Figure(
                f"while KV fits (batch {FITS}), paged full KV is ahead of InfiniGen, and of H2O with HF's cache",
                2,
                "pairs",
                (setting("full", FITS), setting(INFINIGEN, FITS), setting(H2O, FITS, "hf_concat")),
                best,
            ),
            Figure(
                f"under pressure (batch {PRESSED}), H2O is ahead of full KV",
                1,
                "pairs",
                (setting(H2O, PRESSED), setting("full", PRESSED)),
                best,
            ),
            Figure(
                f"while KV fits, InfiniGen's first tokens come no sooner; under pressure (batch {PRESSED}) they do",
                2,
                "holds",
                (
                    setting("full", FITS),
                    setting(INFINIGEN, FITS),
                    setting("full", PRESSED),
                    setting(INFINIGEN, PRESSED),
                ),
                lambda a, b, c, d: float((b.ttft_ms >= a.ttft_ms) + (d.ttft_ms < c.ttft_ms)),
            ),
        ),
        "ordering",
        quick=True,
    ),
)
