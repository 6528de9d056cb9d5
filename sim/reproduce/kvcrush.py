"""KVCrush (ACML 2025): representatives of what is dropped, next to the tokens that matter.

SOURCE: 4x and less than 0.5 % of the latency from the abstract.
"""

from __future__ import annotations

from sim.reproduce.rows import Figure, Table
from sim.reproduce.setting import Setting

PROMPT, OUTPUT = 8000, 64
BUDGET = PROMPT // 4


def setting(policies: object) -> Setting:
    """Llama-3-8B."""
    return Setting("llama-3-8b", "a100-80", 4, PROMPT, OUTPUT, policies)


FULL, OURS = setting("full"), setting({"name": "kvcrush", "budget": BUDGET})
SNAPKV = setting({"name": "snapkv", "budget": BUDGET})
WHERE = f"Llama-3-8B, A100-80, {PROMPT} + {OUTPUT} tokens, {BUDGET} of the prompt kept"
TABLES = (
    Table(
        "kvcrush",
        "abstract, memory",
        "S",
        WHERE,
        (Figure("KV", 4.0, "x less", (FULL, OURS), lambda a, b: a.kv_per_sequence / b.kv_per_sequence),),
        "arithmetic",
        quick=True,
    ),
    Table(
        "kvcrush",
        "abstract, latency",
        "S",
        WHERE,
        (
            Figure(
                "less than 0.5 % more than SnapKV takes, and more than nothing",
                1,
                "holds",
                (OURS, SNAPKV),
                lambda a, b: float(1 < a.total_s / b.total_s < 1.005),
            ),
            Figure(
                "a budget above the prompt is full KV, to the bit",
                1,
                "holds",
                (FULL, setting({"name": "kvcrush", "budget": 10_000})),
                lambda a, b: float((a.step_ms, a.kv_bytes, a.ttft_ms) == (b.step_ms, b.kv_bytes, b.ttft_ms)),
            ),
        ),
        "ordering",
        quick=True,
    ),
)
