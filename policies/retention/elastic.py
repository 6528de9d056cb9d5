"""Elastic Cache: dropped tokens are merged into the nearest kept ones; decoding drops at a fixed place."""

from __future__ import annotations

from dataclasses import replace

from hw_profiles.lines import CONTEXT, NOTHING
from policies.options import choice, number, seconds
from policies.retention.budget import applies, coverage, keeping
from policies.sequence.plan import FULL, LayerPlan, LayerView, SequencePolicy, Work
from policies.sequence.scores import prompt_flops, prompt_pair_bytes

CALLS_PER_TOKEN = 3
"""Small kernels that sum the scores of a prompt, called from a Python loop over its tokens, for all layers together."""
CALLS_PER_DROPPED = 4
"""Small kernels that find the nearest anchor, called from a Python loop over dropped tokens, per layer and sequence."""
SOURCE = "liuzuyan/ElasticCache, kv_cache.py"


class ElasticCache(SequencePolicy):
    """Keeps the share `budget` of all tokens seen: a prompt's others are merged into the nearest kept token.

    When a prompt is complete, tokens are ranked by their attention summed over queries (so scores are written and
    attention runs without a fused kernel), the best ones are anchors, and every other token is averaged into the
    nearest anchor, which a Python loop over the dropped tokens finds. Decoding drops one token at a fixed place
    whenever the share is exceeded, without scores, by copying the cache without it.

    budget   share of the tokens seen that stay
    drop     copy: as the published code, the cache is copied without the dropped token. in_place: the new token is
             written over it
    call     host time of one call of a small kernel from the Python loops; "0 s" for kernels of a serving engine. The
             default is assumed

    Source: Z. Liu et al., "Efficient inference of vision instruction-following models with Elastic Cache", ECCV 2024
    (arXiv 2407.18121), section 3; repository liuzuyan/ElasticCache (its `ratio` is 1 - budget; start_size, protect_size
    and distance say which tokens stay, not how many).
    """

    def __init__(self, *, budget: float = 0.2, drop: str = "copy", call: float | str = "10 us") -> None:
        self._budget = number("budget", budget, 0, 1, above=True)
        self._copies = choice("drop", drop, ("copy", "in_place")) == "copy"
        self._call_s = seconds("call", call)
        self.assumptions = (
            f"elastic: {self._call_s * 1e6:g} us per kernel called from its Python loops over tokens",
            "elastic: a prompt's scores are written and read, but the memory that they take is not counted",
        )

    def plan(self, layer: LayerView, before: LayerPlan) -> LayerPlan:
        """The layer's plan, with `budget` of its tokens."""
        budget, dropped = self._budget, 1.0 - self._budget
        if not dropped or not applies(layer):
            return before
        plan = keeping(before, before.kept * budget, before.attended * budget)
        calls = CALLS_PER_TOKEN / layer.layers + CALLS_PER_DROPPED * dropped
        rank = Work(
            "rank, find the nearest anchors", NOTHING, launches=2, host_seconds=CONTEXT * (calls * self._call_s),
            source=SOURCE,
        )  # fmt: skip
        merged = plan.form.of(before.kept.at_prompt()) + plan.form.of(plan.kept.at_prompt())
        merge = Work("merge into anchors", merged * layer.token_bytes, launches=6, source=SOURCE)
        works = plan.works
        if self._copies:
            copied = plan.form.of(plan.kept) * (2.0 * layer.token_bytes * dropped)
            works = (*works, Work("copy without the dropped", copied, launches=2, source=SOURCE))
        return replace(
            plan,
            works=works,
            after_prompt=(*plan.after_prompt, rank, merge),
            pair_bytes=max(plan.pair_bytes, prompt_pair_bytes(layer)),
            prefill_flops=max(plan.prefill_flops, prompt_flops()),
        )

    def coverage(self, layer: LayerView, context: float, prompt: float) -> float:
        """Share of the attention mass that as many tokens hold at best; what is merged into them is not counted."""
        return coverage(layer, FULL.kept * self._budget, context, prompt) if applies(layer) else 1.0
