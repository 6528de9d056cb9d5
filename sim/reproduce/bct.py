"""Predefined-capacity KV (Bounded-Cache Transformer, arXiv 2411.15785): constant memory, times that do not grow.

SOURCE: the abstract has no number; what it says is that memory is bounded and throughput kept.
"""

from __future__ import annotations

from sim.reproduce.rows import Figure, Table
from sim.reproduce.setting import MOST, Setting

SLOTS = {"name": "bct", "capacity": 2048}


def setting(policies: object, prompt: int, batch: int = 1) -> Setting:
    """A model with a KV head for every query head."""
    return Setting("longchat-7b-32k", "a100-80", batch, prompt, 64, policies)


WHERE = "LongChat-7B-32k, A100-80, 2048 slots that every step rewrites"
TABLES = (
    Table(
        "bct",
        "abstract",
        "S",
        WHERE,
        (
            Figure(
                "memory of KV is bounded: the same at 8k and 32k",
                1,
                "holds",
                (setting(SLOTS, 8000), setting(SLOTS, 32_000)),
                lambda a, b: float(a.kv_per_sequence == b.kv_per_sequence and a.kv_bytes == b.kv_bytes),
            ),
            Figure(
                "throughput is kept: no less than full KV at 32k, at the largest batch",
                1,
                "holds",
                tuple(setting(p, 32_000, MOST).but(output=512, at_most=64) for p in ("full", SLOTS)),
                lambda a, b: float(b.decode_per_s >= a.decode_per_s),
            ),
        ),
        "ordering",
        quick=True,
    ),
    Table(
        "bct",
        "limits",
        "D",
        WHERE,
        (
            Figure(
                "a step at 32k takes what one at 8k does",
                1,
                "holds",
                (setting(SLOTS, 8000), setting(SLOTS, 32_000)),
                lambda a, b: float(abs(a.step_ms / b.step_ms - 1) < 1e-6),
            ),
            Figure(
                "a prompt of 32k takes about four times one of 8k (within 10 %)",
                1,
                "holds",
                (setting(SLOTS, 8000), setting(SLOTS, 32_000)),
                lambda a, b: float(abs(b.ttft_ms / a.ttft_ms / 4 - 1) < 0.1),
            ),
            Figure(
                "slots for the whole context are full KV, to the bit",
                1,
                "holds",
                (setting("full", 8000), setting({"name": "bct", "capacity": 40_000}, 8000)),
                lambda a, b: float((a.step_ms, a.kv_bytes, a.ttft_ms) == (b.step_ms, b.kv_bytes, b.ttft_ms)),
            ),
        ),
        "ordering",
        quick=True,
    ),
)
