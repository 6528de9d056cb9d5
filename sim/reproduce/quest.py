"""Quest (ICML 2024; mit-han-lab/Quest): attention and end to end at 32k tokens with a budget of 2048.

SOURCE: the paper, read: 7.03x of self-attention, 1.74x end to end with FP16 weights, 2.23x with 4-bit weights
(LongChat-7B-32k, page 16; end to end on an RTX 6000 Ada, whose chip is the L40S').
"""

from __future__ import annotations

from sim.reproduce.measure import Measured
from sim.reproduce.rows import Figure, Table
from sim.reproduce.setting import Setting

PROMPT, OUTPUT = 32_000, 256
QUEST = {"name": "quest", "budget": 2048}
SPARSE = {**QUEST, "full_layers": 0}
"""A layer that selects: the first two read everything."""


def setting(policies: object, weights: str | None = None) -> Setting:
    """One sequence."""
    engine = {} if weights is None else {"weights_dtype": weights}
    return Setting("longchat-7b-32k", "l40s", 1, PROMPT, OUTPUT, policies, engine=engine)


def _attention(run: Measured) -> float:
    """ms of attention and of what Quest runs for it."""
    return run.step_ms - run.parts["linear"] - run.parts["launch"]


TABLES = (
    Table(
        "quest",
        "figs. 9 and 10",
        "R",
        f"LongChat-7B-32k, L40S (for RTX 6000 Ada), one sequence of {PROMPT} tokens, budget 2048, page 16",
        (
            Figure(
                "self-attention",
                7.03,
                "x",
                (setting("full"), setting(SPARSE)),
                lambda a, b: _attention(a) / _attention(b),
            ),
            Figure(
                "end to end, fp16", 1.74, "x", (setting("full"), setting(QUEST)), lambda a, b: a.step_ms / b.step_ms
            ),
            Figure(
                "end to end, 4-bit weights",
                2.23,
                "x",
                (setting("full", "int4"), setting(QUEST, "int4")),
                lambda a, b: a.step_ms / b.step_ms,
            ),
        ),
        note="products with 4-bit weights are faster here than the authors' kernels; a top-k as long as ArkVale's "
        "bounds what attention alone gains",
        quick=True,
    ),
    Table(
        "quest",
        "limits",
        "D",
        "the same model and machine",
        (
            Figure(
                "a budget above the context is full KV, to the bit",
                1,
                "holds",
                (setting("full"), setting({"name": "quest", "budget": 40_000})),
                lambda a, b: float(a.step_ms == b.step_ms),
            ),
        ),
        "ordering",
        quick=True,
    ),
)
