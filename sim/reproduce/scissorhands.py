"""Scissorhands (NeurIPS 2023): a fifth of the cache, and a fifth of a 4-bit one.

SOURCE: 5x and 20x from the abstract; OPT-6.7B is the smallest of its models. The paper has no times.
"""

from __future__ import annotations

from sim.reproduce.measure import Measured
from sim.reproduce.rows import Figure, Table
from sim.reproduce.setting import MOST, Setting

PROMPT, OUTPUT = 1024, 1024
BUDGET = (PROMPT + OUTPUT) // 5
OURS = {"name": "scissorhands", "budget": BUDGET}
PACKED = {"retention": {"name": "scissorhands", "budget": BUDGET}, "kv_format": ["int4"]}


def setting(policies: object, batch: int) -> Setting:
    """OPT-6.7B with Hugging Face's cache."""
    return Setting("opt-6.7b", "a100-80", batch, PROMPT, OUTPUT, policies, "hf_concat")


def _memory(full: Measured, ours: Measured) -> float:
    return full.kv_per_sequence / ours.kv_per_sequence


WHERE = f"OPT-6.7B, A100-80, HF cache, {PROMPT} + {OUTPUT} tokens, {BUDGET} of them kept"
TABLES = (
    Table(
        "scissorhands",
        "abstract",
        "S",
        WHERE,
        (
            Figure("memory of KV", 5.0, "x less", (setting("full", 4), setting(OURS, 4)), _memory),
            Figure(
                "memory of KV in 4 bits",
                20.0,
                "x less",
                (setting("full", 4), setting(PACKED, 4)),
                _memory,
                note="scales of groups of 64 and counts per token are included here",
            ),
            Figure(
                "pivotal tokens that stay pivotal",
                0.95,
                "of them",
                (setting(OURS, 4),),
                lambda m: float("nan"),
                "not comparable",
                "a property of attention over whole answers that no importance data here has",
            ),
        ),
        "arithmetic",
        quick=True,
    ),
    Table(
        "scissorhands",
        "limits",
        "D",
        WHERE,
        (
            Figure(
                "a budget above the context is full KV, to the bit",
                1,
                "holds",
                (setting("full", 4), setting({"name": "scissorhands", "budget": PROMPT + OUTPUT}, 4)),
                lambda a, b: float((a.step_ms, a.kv_bytes, a.ttft_ms) == (b.step_ms, b.kv_bytes, b.ttft_ms)),
            ),
            Figure(
                "at the largest batch it is faster than full KV",
                1,
                "holds",
                (setting("full", MOST), setting(OURS, MOST)),
                lambda a, b: float(b.batch > a.batch and b.tokens_per_s > a.tokens_per_s),
            ),
        ),
        "ordering",
        quick=True,
    ),
)
