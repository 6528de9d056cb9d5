"""LaCache: each layer keeps other parts of the past, by a fixed ladder, and thins them out as the cache fills."""

from __future__ import annotations

import math
from dataclasses import replace

from hw_profiles.lines import constant
from policies.options import number, whole
from policies.retention.budget import applies, gather, keeping
from policies.sequence.plan import LayerPlan, LayerView, SequencePolicy, Work
from policies.sequence.shapes import above, whole_share

SOURCE = "LaCache (arXiv 2507.14204), section 3"


class LaCache(SequencePolicy):
    """A fixed budget of tokens per layer, kept by a pattern of places alone: no scores, so fused attention throughout.

    When the budget is full it is compacted: of what is there the share `keep` stays, other tokens in each layer (the
    rungs of a ladder), and the ladder is laid over what is left again and again, so that the past thins out
    geometrically. Between two compactions attention reads the mean, budget (1 + keep) / 2; memory has room for the
    budget. Positions are set anew by the attention kernel. A prompt is attended in full, and compacted when complete.
    As layers keep different tokens, the past of which some layer keeps KV (`span`) is longer than the budget.

    budget  tokens per layer
    keep    share that a compaction leaves

    Source: D. Shi et al., "LaCache", ICML 2025 (arXiv 2507.14204), section 3; repository GATECH-EIC/LaCache. From
    notes on it: how many rungs a ladder has is not in them, and half left by a compaction is assumed. What attention it
    covers is not in any importance data, as the tokens are not chosen by it.
    """

    assumptions = ("lacache: half of the cache left by a compaction is assumed",)

    def __init__(self, *, budget: int = 2048, keep: float = 0.5) -> None:
        self._budget = whole("budget", budget, 2, 1 << 30)
        self._keep = number("keep", keep, 0.01, 0.99)

    def plan(self, layer: LayerView, before: LayerPlan) -> LayerPlan:
        """The layer's plan: the mean between two compactions, and room for the budget."""
        if not applies(layer, self._budget):
            return before
        dropped = 1.0 - self._keep
        mean = self._budget - round(self._budget * dropped / 2)
        plan = keeping(before, before.kept.capped(mean), before.attended.capped(mean))
        stored = layer.token_bytes * whole_share(before)
        room = before.kept.capped(self._budget) - plan.kept
        compacted = above(
            constant(2 * self._keep / dropped * stored), self._budget, max(1, round(self._budget * dropped))
        )
        return replace(
            plan,
            extra=plan.extra + room * stored,
            works=(*plan.works, Work("compact, a mean per step", compacted, launches=0, source=SOURCE)),
            after_prompt=(*plan.after_prompt, gather(layer, plan, 2, SOURCE)),
        )

    def span(self, layer: LayerView) -> int:
        """Tokens of the past of which at least one layer keeps KV.

        Each compaction makes room for budget (1 - keep) tokens, and leaves each of the older ones in the share `keep`
        of the layers that had it: after j of them in keep^j of all layers, and in at least one of L up to
        j = log L / log 1/keep.
        """
        if not applies(layer, self._budget):
            return layer.max_context
        generations = 1 + math.floor(math.log(layer.layers) / -math.log(self._keep) + 1e-9)
        return round(generations * self._budget * (1.0 - self._keep))
