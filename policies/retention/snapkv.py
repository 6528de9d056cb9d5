"""SnapKV: the prompt's last queries vote, once, for what of it is kept."""

from __future__ import annotations

from dataclasses import replace

from hw_profiles.errors import InputError
from hw_profiles.lines import CONTEXT, Line
from policies.options import whole
from policies.retention.budget import applies, coverage, gather, keeping, last_queries
from policies.sequence.plan import FULL, LayerPlan, LayerView, SequencePolicy

SOURCE = "FasterDecoding/SnapKV, snapkv/monkeypatch/snapkv_utils.py"


class SnapKV(SequencePolicy):
    """Keeps `budget` tokens of the prompt per head, those that its last `window` queries attend, and all that follows.

    The window's tokens are part of the budget. A prompt runs with a fused kernel; when it is complete the scores of the
    window alone are computed over all keys and written, pooled and ranked, and what is kept is gathered. Decoding is as
    ever over what is kept: nothing is dropped, scored or moved.

    budget   tokens of the prompt kept
    window   last queries of the prompt, which vote and are kept

    Source: Y. Li et al., "SnapKV", NeurIPS 2024 (arXiv 2404.14469), section 4; repository FasterDecoding/SnapKV
    (max_capacity_prompt 2048, window_size 32; its pooling is one kernel whatever its width). The repository keeps a
    copy of keys and values for every query head; here a KV head keeps one set of tokens for its group.
    """

    def __init__(self, *, budget: int = 2048, window: int = 32) -> None:
        self._window = whole("window", window, 1, 1 << 20)
        self._budget = whole("budget", budget, 1, 1 << 30)
        if budget <= window:
            raise ValueError(f"budget: found {budget}, expected more than the window, {window}")

    def plan(self, layer: LayerView, before: LayerPlan) -> LayerPlan:
        """The layer's plan, with part of the prompt and all that follows."""
        if layer.latent:
            raise InputError("snapkv cannot be used with latent attention (MLA): it keeps other tokens for each head")
        if not applies(layer, self._budget):
            return before
        plan = keeping(before, self._kept(before.kept), self._kept(before.attended))
        vote = last_queries(layer, self._window, SOURCE)
        return replace(plan, after_prompt=(*plan.after_prompt, vote, gather(layer, plan, 4, SOURCE)))

    def coverage(self, layer: LayerView, context: float, prompt: float) -> float:
        """Share of the attention mass that as many tokens hold at best."""
        if not applies(layer, self._budget):
            return 1.0
        return coverage(layer, self._kept(FULL.kept), context, prompt)

    def _kept(self, line: Line) -> Line:
        if line != CONTEXT:
            raise InputError("snapkv keeps part of a whole prompt, and another policy has dropped some of it")
        return Line(slope=1.0, prompt=-1.0, prompt_caps=((self._budget, 1.0),))
