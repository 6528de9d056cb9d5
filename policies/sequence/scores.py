"""What attention costs beside the fused kernel when a policy needs its scores written to memory."""

from __future__ import annotations

from policies.sequence.plan import LayerView

PASSES = 4
"""Times that a score crosses HBM in standard attention: S written, S read and P written by softmax, P read. SOURCE:
T. Dao et al., "FlashAttention" (arXiv 2205.14135), algorithm 0."""
SUM_PASSES = 1
"""P read once more, for sums over queries."""
ACTIVATION_BYTES = 2
"""Activations and scores are 16-bit, whatever the cache is."""
SQUARE = 2.0
"""Standard attention computes all S x S scores of a prompt, twice the causal pairs."""


def row_bytes(layer: LayerView) -> float:
    """HBM bytes per key for the scores of one query, of all query heads."""
    return PASSES * ACTIVATION_BYTES * layer.heads


def prompt_pair_bytes(layer: LayerView, rows: float = 1.0) -> float:
    """HBM bytes per causal pair of a prompt if the share `rows` of its queries have their scores written and summed."""
    return SQUARE * rows * (PASSES + SUM_PASSES) * ACTIVATION_BYTES * layer.heads


def prompt_flops(rows: float = 1.0) -> float:
    """FLOP of a prompt's attention as a share of the causal one.

    All rows: every product is over the whole square. A share of them: the fused kernel runs as ever, and Q K^T (half of
    attention's FLOP) once more for these rows over all keys.
    """
    return SQUARE if rows >= 1 else 1.0 + SQUARE * rows / 2
