"""QuaRot (NeurIPS 2024; spcl/QuaRot): one transformer block on an RTX 3090.

SOURCE: the paper, read: prefill speed-ups at 2048 tokens (table 16), memory of 50 decode steps after 2048 tokens at
batch 16 (e2e/benchmark_layer.py: weights, cache and activations of one layer).
"""

from __future__ import annotations

from sim.reproduce.measure import Measured
from sim.reproduce.rows import Figure, Table
from sim.reproduce.setting import Setting

PROMPT, STEPS = 2048, 50


def setting(model: str, batch: int, *, quarot: bool, output: int = 1) -> Setting:
    """One block; weights, activations and KV in 4 bits with `quarot`."""
    policies: object = "quarot" if quarot else "full"
    return Setting(model, "rtx-3090", batch, PROMPT, output, policies)


def pair(model: str, batch: int, output: int = 1) -> tuple[Setting, Setting]:
    """Without and with."""
    return setting(model, batch, quarot=False, output=output), setting(model, batch, quarot=True, output=output)


def _prefill(full: Measured, ours: Measured) -> float:
    return full.ttft_ms / ours.ttft_ms


def _memory(full: Measured, ours: Measured) -> float:
    return full.block_bytes / ours.block_bytes


SEVEN, SEVENTY = "llama-2-7b-block", "llama-2-70b-block"
PREFILL_7B = ((1, 1.97), (4, 2.06), (16, 2.11), (32, 2.14), (64, 2.16))
PREFILL_70B = ((1, 3.16), (4, 3.27), (16, 3.32), (32, 3.33))
"""(batch, speed-up): table 16."""
WHERE = f"one block, RTX 3090, {PROMPT} tokens"
TABLES = (
    Table(
        "quarot",
        "prefill",
        "R",
        WHERE,
        (
            *(Figure(f"Llama-2-7B, batch {b}", x, "x", pair(SEVEN, b), _prefill) for b, x in PREFILL_7B),
            *(Figure(f"Llama-2-70B, batch {b}", x, "x", pair(SEVENTY, b), _prefill) for b, x in PREFILL_70B),
        ),
        "calibrated",
        fitted="the rate of 4-bit products, from the paper's table 14 of single linear layers",
        note="the paper's blocks are transformers' own: norms in fp32, rotary embedding, activation and residuals as "
        "kernels of their own move some 600 KB per token of Llama-2-7B in both (counted in modeling_llama.py 4.36), "
        "which this engine fuses; at 840 GB/s that is 47 ms of 32 prompts, and with it batch 32 comes to 2.2",
    ),
    Table(
        "quarot",
        "memory of decoding",
        "R",
        f"{WHERE} + {STEPS} steps, batch 16: weights and KV",
        (
            Figure("Llama-2-7B", 3.75, "x less", pair(SEVEN, 16, STEPS), _memory),
            Figure("Llama-2-70B", 3.89, "x less", pair(SEVENTY, 16, STEPS), _memory),
        ),
        "arithmetic",
        quick=True,
    ),
)
