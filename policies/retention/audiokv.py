"""AudioKV: cache sizes per head by how a head follows speech, and scores smoothed along time."""

from __future__ import annotations

import math

from hw_profiles.lines import through
from policies.retention.budgets import DividedBudget
from policies.sequence.plan import LayerView, Work

FFT = 5.0
"""FLOP of a transform of n values: 5 n log2 n (the usual count; Van Loan, 1992)."""


class AudioKV(DividedBudget):
    """A total of KV divided over heads: window, and a part in proportion to how the head's attention follows the audio.

    The parts come of a probe once per model (aligned words); without `weights` and `head_weights` all heads are alike.
    When a prompt is complete, each head's votes are smoothed by a low-pass filter (a transform, a cut, a transform
    back; n log n) and mixed with themselves before the best tokens are chosen.

    budget        mean tokens of the prompt per layer and head
    window        last queries of the prompt, which vote and are kept
    weights       importance per layer (two numbers: of the first and the last, straight in between)
    head_weights  the same over a layer's KV heads
    storage       ragged, heads or layers: to what uneven parts are padded

    Source: "AudioKV" (arXiv 2604.06694), from notes on it: b = w + r + B S / sum S. That its compression ratio of 40 %
    is the share that stays (60 % less memory) is an interpretation.
    """

    title = "audiokv"
    source = "AudioKV (arXiv 2604.06694)"
    assumptions = ("audiokv: heads follow audio as `weights` and `head_weights` say, all alike without them",)

    def scoring(self, layer: LayerView) -> tuple[Work, ...]:
        """Two transforms of every KV head's votes, fp32, read and written by each."""
        points, n = [(0, 0.0)], 256
        while points[-1][0] < layer.max_context:
            at = min(n, layer.max_context)
            points.append((at, 2 * FFT * at * math.log2(at)))
            n *= 2
        nbytes, flops = through([(0, 0.0), (1, 16.0)], 16.0), through(points)
        work = Work("smooth votes", nbytes * layer.kv_heads, flops * layer.kv_heads, launches=4, source=self.source)
        return (work,)
