"""Asking for KV before the attention kernel reads it: prefetch into L2."""

from __future__ import annotations

from dataclasses import replace

from policies.options import nbytes, number, switch
from policies.sequence.plan import LayerPlan, LayerView, SequencePolicy


class L2(SequencePolicy):
    """Decode attention requests KV blocks into L2 ahead of their use: hides latency, moves no bytes more.

    The cost model is `sim.cost.l2_prefetch`: more bytes in flight bring a kernel that does not saturate HBM nearer to
    it, and a look-ahead beyond what L2 holds is evicted before its use and read twice. Nothing is gained where the
    kernel saturates HBM already. The look-ahead of a kernel is warps x blocks ahead x block bytes: one block of 16
    tokens of 128 elements ahead is 4 KiB per warp; 2048 warps (78 SMs, 26 each) make the default.

    lookahead  bytes of KV per layer in flight; the same as `engine.l2_prefetch`
    prefetch   false: none (what a kernel alone takes)
    baseline   share of the HBM's rate that the attention kernel reads at without it: 0.471 for the XFormers kernels of
               the paper (Llama-2-7B, batch 64, 4 k tokens); None: as the profile's kernel, which leaves little to gain

    Source: arXiv 2504.06319 (asynchronous KV cache prefetching into L2; H20, XFormers kernels of vLLM 0.7.1).
    """

    def __init__(self, *, lookahead: int | str = 8 << 20, prefetch: bool = True, baseline: float | None = None) -> None:
        self.lookahead = nbytes("lookahead", lookahead) * switch("prefetch", prefetch)
        self.baseline = None if baseline is None else number("baseline", baseline, 0.0, 1.0, above=True)

    def plan(self, layer: LayerView, before: LayerPlan) -> LayerPlan:
        """The layer's plan."""
        return replace(before, l2_lookahead=self.lookahead, attention_share=self.baseline)
