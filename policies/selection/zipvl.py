"""ZipVL: as many tokens as hold a share of the attention, for the prompt's attention and for the cache."""

from __future__ import annotations

from dataclasses import replace

from hw_profiles.lines import CONTEXT, Line, through
from policies.kv_format.stored import quantised
from policies.options import choice, number, whole
from policies.retention.budget import gather, last_queries
from policies.selection.base import Selector
from policies.sequence.plan import LayerPlan, LayerView, Work
from policies.sequence.shapes import needs_all_tokens, needs_heads

SCALE_BITS = 32
"""Of a token's values: an fp16 minimum and an fp16 step over all heads, as in ZipCache."""
STEP = 2**0.25
"""Between two prompt lengths at which the work among important tokens is computed; straight lines between them."""
SOURCE = "ZipVL (arXiv 2410.08584), section 3"


class ZipVL(Selector):
    """A layer's important tokens are the fewest that hold `mass` of the attention; only these attend in the prompt.

    How many that are, k(P), comes from the importance data (`keys_for`). Per layer the queries of `probes` tokens are
    scored against all keys first; then attention runs among the k important tokens, k^2 / 2 pairs instead of P^2 / 2.
    Products with weights are as ever, which bounds what a prompt can gain. Then, by `others`:
      drop    the other tokens of the prompt leave the cache (the paper's second version)
      pack    they stay in `low` bits and the important ones in `high` bits (the first version)
    What is generated stays, and is attended, as it comes (packed with `pack`).

    mass         of the attention that important tokens hold; 1: all tokens, and nothing changes
    probes       queries that are scored: half of them the newest, half at random; fixed numbers recalled
    others       drop or pack
    high, low    bits of important and other tokens, with `pack`
    full_layers  layers at the input side that are left alone

    Source: Y. He et al., "ZipVL" (arXiv 2410.08584), section 3, both versions, from notes on it: dynamic ratio by a
    threshold, attention by a fused kernel over gathered tokens. Its threshold (0.975) and probes (64 and 64) are
    recalled.
    """

    assumptions = ("zipvl: a threshold of 0.975 and 128 probes are recalled; all layers have the data's attention",)

    def __init__(
        self,
        *,
        mass: float = 0.975,
        probes: int = 128,
        others: str = "drop",
        high: int = 4,
        low: int = 2,
        full_layers: int = 0,
    ) -> None:
        self.mass = number("mass", mass, 0, 1, above=True)
        self.probes = whole("probes", probes, 1, 1 << 20)
        self.packs = choice("others", others, ("drop", "pack")) == "pack"
        self.high = whole("high", high, 1, 8)
        self.low = whole("low", low, 1, high)
        self.full_layers = whole("full_layers", full_layers, 0, 10_000)

    def applies(self, layer: LayerView) -> bool:
        """Not where all tokens are wanted, nor in windows, nor in the first layers."""
        return self.mass < 1 and layer.window is None and layer.index >= self.full_layers

    def attended(self, layer: LayerView) -> Line:
        """Important tokens of the prompt, and what follows."""
        return CONTEXT if self.packs else self._important(layer).at_prompt() + CONTEXT - Line(prompt=1.0)

    def plan(self, layer: LayerView, before: LayerPlan) -> LayerPlan:
        """The layer's plan."""
        if not self.applies(layer):
            return before
        needs_heads("zipvl", layer)
        needs_all_tokens("zipvl", layer, before)
        plan = self._packed(layer, before) if self.packs else self._dropped(layer, before)
        important = self._important(layer)
        points, n = [(0, 0.0)], 256.0
        while points[-1][0] < layer.max_context:
            at = min(round(n), layer.max_context)
            points.append((at, important.at(at, at) ** 2 / 2))
            n *= STEP
        attend = Work(
            "attention among important tokens",
            important * (2 * layer.token_bytes),  # gathered
            through(points) * (4.0 * layer.heads * layer.head_dim),
            launches=4,
            source=SOURCE,
        )
        probing = last_queries(layer, self.probes, SOURCE)
        further = before.prefill_flops - 1.0  # of scores that another policy wants written
        return replace(plan, prefill_flops=further, after_prompt=(probing, attend, *plan.after_prompt))

    def _dropped(self, layer: LayerView, before: LayerPlan) -> LayerPlan:
        kept = self.attended(layer)
        plan = replace(before, kept=kept, attended=kept)
        return replace(plan, after_prompt=(*plan.after_prompt, gather(layer, plan, 2, SOURCE)))

    def _packed(self, layer: LayerView, before: LayerPlan) -> LayerPlan:
        plain = 8 * layer.element_bytes
        key = self.low / plain
        value = (self.low + SCALE_BITS / (layer.kv_heads * layer.head_dim)) / plain
        form = quantised(layer, before, "zipvl", key=key, value=value)
        more = self._important(layer).at_prompt() * ((self.high - self.low) / plain * layer.token_bytes)
        read = Work("the further bits of important tokens", more, launches=0, source=SOURCE)
        pack = Work("pack the prompt", CONTEXT * (layer.token_bytes * (1 + key)), launches=4, source=SOURCE)
        return replace(before.plus(works=(read,), extra=more), form=form, after_prompt=(*before.after_prompt, pack))

    def _important(self, layer: LayerView) -> Line:
        """k, by context."""
        return layer.importance.keys_for(self.mass)
