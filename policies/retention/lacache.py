"""LaCache: each layer keeps other parts of the past, by a fixed ladder, and thins them out as the cache fills."""

from __future__ import annotations

import math
from dataclasses import replace

from hw_profiles.errors import InputError
from policies.options import choice, whole
from policies.retention.budget import applies, gather, keeping
from policies.sequence.plan import LayerPlan, LayerView, SequencePolicy, Work

SOURCE = "GATECH-EIC/LaCache, ppl/lacache/kv_cache.py"


class LaCache(SequencePolicy):
    """A fixed budget of tokens per layer, kept by a pattern of places alone: no scores, so fused attention throughout.

    When the budget is full, a ladder of a few neighbouring tokens is thinned: of `before` = 1 + ceil((L - span) / (span
    - overlap)) tokens each layer keeps `after` = ceil(span / (span - overlap)), and layers of other rungs keep other
    ones (2 and 1 in 32 layers). One ladder after the other makes room for what is generated, and from the end it starts
    over at the beginning, so that the past thins out geometrically while the cache stays as full as its budget. The
    attention kernel sets positions anew. A prompt is attended in full, and thinned when it is complete.

    budget   tokens per layer, sinks included (4 of them)
    span     neighbouring layers that keep the same token
    overlap  layers that two rungs share
    drop     in_place: a new token is written over a dropped one, as paged caches can. copy: as the published code,
             every ladder that is thinned copies the cache

    Source: D. Shi et al., "LaCache", ICML 2025 (arXiv 2507.14204), section 3; repository GATECH-EIC/LaCache
    (ppl/run.py: span 16, overlap 0). What attention it covers is not in any importance data, as the tokens are not
    chosen by it; `history` says how far back a layer sees.
    """

    def __init__(self, *, budget: int = 2048, span: int = 16, overlap: int = 0, drop: str = "in_place") -> None:
        self._budget = whole("budget", budget, 2, 1 << 30)
        self._span = whole("span", span, 1, 1 << 16)
        self._overlap = whole("overlap", overlap, 0, 1 << 16)
        if overlap >= span:
            raise ValueError(f"overlap: found {overlap}, expected less than the span, {span}")
        self._copies = choice("drop", drop, ("in_place", "copy")) == "copy"

    def plan(self, layer: LayerView, before: LayerPlan) -> LayerPlan:
        """The layer's plan, with its budget of tokens."""
        if not applies(layer, self._budget):
            return before
        tokens, kept = self._ladder(layer)
        plan = keeping(before, before.kept.capped(self._budget), before.attended.capped(self._budget))
        works = plan.works
        if self._copies:
            copied = plan.form.of(plan.kept) * (2.0 * layer.token_bytes / (tokens - kept))
            works = (*works, Work("copy without the dropped", copied, launches=2, source=SOURCE))
        return replace(plan, works=works, after_prompt=(*plan.after_prompt, gather(layer, plan, 2, SOURCE)))

    def history(self, layer: LayerView) -> int:
        """Tokens back to the oldest one that a layer still has.

        A pass over the cache makes room for the share 1 - after / before of it, and leaves after / before of what is
        older: so many generations of as many tokens each, down to the last token of the oldest.
        """
        if not applies(layer, self._budget):
            return layer.longest_sequence
        tokens, kept = self._ladder(layer)
        keep = kept / tokens
        fresh = self._budget * (1.0 - keep)
        return round(fresh * (1 + math.floor(math.log(max(fresh, 1.0)) / -math.log(keep))))

    def _ladder(self, layer: LayerView) -> tuple[int, int]:
        """(tokens of a ladder, tokens that a layer keeps of them)."""
        step = self._span - self._overlap
        tokens = 1 + max(0, math.ceil((layer.layers - self._span) / step))
        kept = min(math.ceil(self._span / step), tokens)
        if kept == tokens:
            layers = layer.layers
            raise InputError(
                f"a ladder of this span and overlap keeps every token in all {layers} layers",
                path="span", found=self._span, allowed=f"less, of {layers} layers",
            )  # fmt: skip
        return tokens, kept
