"""LESS (ICML 2024; hdong920/LESS): a sparse policy with a low-rank state for what it drops.

SOURCE: state of rank 8 and budgets of 2.5 + 2.5 % of 4096 positions from the repository, read; 1.3x latency and 1.7x
throughput recalled.
"""

from __future__ import annotations

from sim.reproduce.measure import Measured
from sim.reproduce.rows import Figure, Table
from sim.reproduce.setting import MOST, Setting

HEAVY = RECENT = 102
"""2.5 % of 4096 positions each."""
PROMPT, OUTPUT = 2048, 512


def setting(policies: object, batch: int) -> Setting:
    """Llama-2-7B with Hugging Face's cache."""
    return Setting("llama-2-7b", "a100-80", batch, PROMPT, OUTPUT, policies, "hf_concat")


LESS = {"name": "less", "heavy": 0.025, "recent": 0.025, "max_positions": 4096}
SPARSE = {"name": "h2o", "heavy": HEAVY, "recent": RECENT}


def _tokens(ours: Measured, sparse: Measured) -> float:
    """How much more a sequence holds than the sparse policy alone, in tokens."""
    return (ours.kv_per_sequence - sparse.kv_per_sequence) / ours.token_bytes


WHERE = f"Llama-2-7B, A100-80, HF cache, {PROMPT} + {OUTPUT} tokens, 5 % of 4096 tokens kept"
TABLES = (
    Table(
        "less",
        "state",
        "R",
        WHERE,
        (
            Figure(
                "tokens' worth of memory beyond the sparse policy",
                4.03,
                "tokens",
                (setting(LESS, 4), setting(SPARSE, 4)),
                _tokens,
            ),
        ),
        "arithmetic",
        quick=True,
    ),
    Table(
        "less",
        "section 4.4, over full KV",
        "M",
        WHERE,
        (
            Figure(
                "latency, up to", 1.3, "x", (setting("full", 8), setting(LESS, 8)), lambda a, b: a.total_s / b.total_s
            ),
            Figure(
                "throughput, up to",
                1.7,
                "x",
                (setting("full", MOST), setting(LESS, MOST)),
                lambda a, b: b.tokens_per_s / a.tokens_per_s,
            ),
        ),
    ),
    Table(
        "less",
        "orders",
        "D",
        WHERE,
        (
            Figure(
                "a step takes at most 10 % more than the sparse policy's",
                1,
                "holds",
                (setting(LESS, 4), setting(SPARSE, 4)),
                lambda ours, sparse: float(sparse.step_ms <= ours.step_ms <= 1.1 * sparse.step_ms),
            ),
        ),
        "ordering",
        quick=True,
    ),
)
