"""KVCrush: part of the budget for the best tokens, part for representatives of the others."""

from __future__ import annotations

from dataclasses import replace

from hw_profiles.lines import CONTEXT, Line
from policies.options import number, whole
from policies.retention.budget import applies
from policies.retention.snapkv import SnapKV
from policies.sequence.plan import LayerPlan, LayerView, SequencePolicy, Work

SOURCE = "KVCrush (arXiv 2503.00022), section 3"


class KVCrush(SequencePolicy):
    """SnapKV's budget, of which the share `important` goes to the best tokens and the rest to representatives.

    A token is described by a bit per head: whether that head votes for it. When a prompt is complete, the tokens that
    were not chosen are put into buckets by how many bits they differ from an anchor's, and one of each bucket is kept.
    Per token of the prompt and layer: a bit per KV head written and read, and as many compared; nothing in decoding.
    Bytes are those of SnapKV with the same budget.

    budget     tokens of the prompt kept, of both kinds
    important  share of them that votes choose
    window     last queries of the prompt, which vote and are kept

    Source: G. Jha et al., "KVCrush", ACML 2025 (arXiv 2503.00022), section 3, from notes on it; how the budget is
    divided from the authors' implementation, openvinotoolkit/openvino.genai (768 tokens by SnapKV and 8 blocks of 32 of
    representatives; also 960 and 2). What representatives stand for is not in any importance data: coverage is that of
    the important.
    """

    assumptions = ("kvcrush: what representatives stand for is not counted in the coverage",)

    def __init__(self, *, budget: int = 2048, important: float = 0.75, window: int = 32) -> None:
        self._snapkv = SnapKV(budget=budget, window=window)
        self._budget = budget
        self._important = number("important", important, 0, 1)
        self._window = whole("window", window, 1, 1 << 20)

    def plan(self, layer: LayerView, before: LayerPlan) -> LayerPlan:
        """SnapKV's plan, and the choice of representatives."""
        plan = self._snapkv.plan(layer, before)
        if plan is before:
            return before
        bits = 2 * layer.kv_heads / 8
        buckets = Work(
            "bits of tokens, buckets by distance",
            CONTEXT * (layer.kv_heads * 2.0 + bits),  # votes read, bits written and read
            CONTEXT * float(2 * layer.kv_heads),
            launches=4,
            source=SOURCE,
        )
        vote, gathered = plan.after_prompt[-2:]
        return replace(plan, after_prompt=(*plan.after_prompt[:-2], vote, buckets, gathered))

    def coverage(self, layer: LayerView, context: float, prompt: float) -> float:
        """Share of the attention mass that as many tokens as are chosen by votes, and the answer, hold at best."""
        if not applies(layer, self._budget):
            return 1.0
        chosen = max(self._window, round(self._budget * self._important))
        kept = Line(slope=1.0, prompt=-1.0, prompt_caps=((chosen, 1.0),)).at(context, prompt)
        return layer.importance.coverage(min(kept, context), context)
