"""SnapStream on SambaNova's SN40L: DeepSeek-R1 671B, 16 chips, 128k tokens, rows of a fixed size.

SOURCE: 4x memory and 1832 tokens/s from the abstract, 4.3x decoding throughput from notes on the paper, which also say
that its throughputs are each at a method's own largest batch and times 2.4 for multi-token prediction (80 % accepted).
"""

from __future__ import annotations

from sim.reproduce.measure import Measured
from sim.reproduce.rows import Figure, Table
from sim.reproduce.setting import MOST, Setting

CONTEXT, OUTPUT = 131_072, 256
MTP = 2.4
OURS = {"name": "snapstream", "prompt_buffer": False}
"""Rows of 32k tokens, a quarter of the context. The KV of a prompt is in the chips' DDR."""


def setting(policies: object, batch: int = MOST) -> Setting:
    """Slots of 128k tokens, or rows."""
    return Setting(
        "deepseek-r1",
        "sn40l",
        batch,
        CONTEXT - OUTPUT,
        OUTPUT,
        policies,
        "static_graph",
        engine={"max_num_batched_tokens": 8192},
        hardware={"tp": 16, "gpus_per_node": 16},
    )


def small(policies: object, prompt: int = 16_000) -> Setting:
    """A model of one GPU."""
    return Setting("llama-3.1-8b", "h100-sxm", 4, prompt, OUTPUT, policies)


ROW = {"name": "snapstream", "selected": 4092, "ring": 4096}
FULL, ROWS = setting("full"), setting(OURS)


def _rate(full: Measured, ours: Measured) -> float:
    return ours.decode_per_s / full.decode_per_s


WHERE = "DeepSeek-R1, 16 SN40L, slots of 128k tokens, rows of 32k"
TABLES = (
    Table(
        "snapstream",
        "abstract, memory",
        "S",
        WHERE,
        (
            Figure(
                "memory of KV",
                4.0,
                "x less",
                (setting("full", 1), setting(OURS, 1)),
                lambda a, b: a.kv_per_sequence / b.kv_per_sequence,
            ),
        ),
        "arithmetic",
        quick=True,
    ),
    Table(
        "snapstream",
        "section 5",
        "S",
        WHERE,
        (
            Figure("decoding throughput at the largest batch, up to", 4.3, "x", (FULL, ROWS), _rate),
            Figure(
                "tokens/s, multi-token prediction taken out",
                1832 / MTP,
                "tok/s",
                (ROWS,),
                lambda m: m.decode_per_s,
                "not comparable",
                "its batch, and how latents are divided over the chips, are not in the notes: here every chip has a "
                "copy, as in tensor-parallel engines, and four rows fit",
            ),
            Figure(
                "tokens/s as published",
                1832.0,
                "tok/s",
                (ROWS,),
                lambda m: m.decode_per_s,
                "not comparable",
                "the paper counts 2.4 tokens per step of multi-token prediction, which is not simulated; see above",
            ),
        ),
    ),
    Table(
        "snapstream",
        "limits",
        "D",
        "Llama-3.1-8B, H100, 16000 + 256 tokens",
        (
            Figure(
                "a row above the context is full KV, to the bit",
                1,
                "holds",
                (small("full"), small({"name": "snapstream", "selected": 200_000, "prompt_buffer": False})),
                lambda a, b: float((a.step_ms, a.kv_bytes, a.ttft_ms) == (b.step_ms, b.kv_bytes, b.ttft_ms)),
            ),
            Figure(
                "a row takes the same memory and step at 16000 tokens as at 64000",
                1,
                "holds",
                (small(ROW), small(ROW, 64_000)),
                lambda a, b: float(a.kv_per_sequence == b.kv_per_sequence and abs(a.step_ms / b.step_ms - 1) < 1e-6),
            ),
        ),
        "ordering",
        quick=True,
    ),
)
