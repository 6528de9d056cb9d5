"""What a batch does to attention beyond the sum of its parts: prompts beside decoding, and sequences of unequal length.

A profile has either group only where measurements show it (`kernels.mixed_attn`, `kernels.decode_imbalance`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hw_profiles.residual import Residual

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class MixedModel:
    """Attention of a step with both prompts and decoding sequences, one launch, as a multiple of two of their own.

    factor: of the typical mixed step. residual: over prefill_per_decode (seconds of the two launches), batch (decoding
    sequences of `kernel_groups.BASE_KV_HEADS` KV heads), context (tokens each attends, on average).

    SOURCE of the effect: measured tables of vLLM's attention layer (LLMServingSim profiles of vLLM 0.19 on RTX 4090 and
    RTX PRO 6000): with prompts in the launch the kernel for queries of any length runs, without split KV and without
    one tile for all query heads of a KV head, and decoding takes up to 3 times as long; few short sequences, on the
    other hand, hide behind the prompts.
    """

    factor: float
    residual: Residual | None = None

    def ratio(self, prefill_s: float, decode_s: float, batch: float, context: float) -> float:
        """Seconds of the one launch per second of two; decode_s, batch and context > 0."""
        table = 1.0 if self.residual is None else self.residual.at(prefill_s / decode_s, batch, context)
        return self.factor * table


@dataclass(frozen=True)
class ImbalanceModel:
    """Decode attention in which one sequence is longer than the others, as a multiple of that over equal lengths.

    ((1 + (L / (share T))^s) / (1 + (1 / (share n))^s))^(1/s), L tokens of the longest of n sequences, T of all: one
    sequence draws at most `share` of the bandwidth, so the longest may outlast the others; s = sharpness smooths the
    maximum. 1 below `min_tiles` tiles (sequences x KV heads), where the kernel splits long sequences between SMs.

    SOURCE: own form; it fits the `skew.csv` tables of LLMServingSim's profiles (RTX 4090, RTX PRO 6000) within 1-2.5 %.
    The threshold is that of FlashAttention-2 (csrc/flash_attn/flash_api.cpp, num_splits_heuristic: one split from 0.8
    tiles per SM, for twice the SMs), which the same tables show on both machines.
    """

    share: float
    sharpness: float
    min_tiles: float

    def ratio(self, seqs: float, kv_heads: float, longest: Floats, total: Floats) -> Floats | float:
        """`seqs` sequences with `kv_heads` KV heads on a rank; longest, total: tokens of the longest, and of all, > 0.

        float64[n], or 1.0 for all.
        """
        if seqs * kv_heads < self.min_tiles:
            return 1.0
        s = self.sharpness
        uneven = 1.0 + (longest / (self.share * total)) ** s
        even = 1.0 + (1.0 / (self.share * seqs)) ** s
        return np.asarray((uneven / even) ** (1.0 / s))
