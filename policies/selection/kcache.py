"""Keys in HBM, values in host memory: KCache."""

from __future__ import annotations

from dataclasses import replace

from hw_profiles.lines import Line, constant, upto
from policies.options import choice, rate, whole
from policies.selection.base import Selector
from policies.sequence.plan import LayerPlan, LayerView, Move, Work
from policies.sequence.shapes import GATHER_RATE, context_of, longest, needs_all_tokens, needs_heads

SOURCE = "KCache (arXiv 2404.18057)"
SCORE_PASSES = 4
"""Scores are written, read and written by the softmax, and read by the top-N: 4 passes in the format of the cache."""


class KCache(Selector):
    """Exact scores from the keys in HBM, then the values of the N best tokens of each head from host memory.

    Per sequence and layer:
      HBM     keys: half of KV, so about twice the batch
      host    values; those of a prompt go there layer by layer, those of a new token at each step (asynchronous)
      step    scores over all keys (reads half of KV), softmax, top-N; then the N value rows of each KV head come over
              the link, which cannot start before the scores are known: 8.4 / 16.8 / 33.6 MB per sequence and step for
              N = 32 / 64 / 128 and 32 heads of 128 in 32 layers
    With groups of query heads per KV head, the group selects together.

    selected     N, tokens per head; 32 to 128 in the paper (its own value is not confirmed)
    full_layers  layers at the input side that keep their values in HBM
    via          zero_copy: the attention kernel reads rows of head_dim elements (256 bytes) over the link itself;
                 gather: host threads collect them first
    rate         bytes/s of that at most; None: the link's own rate for zero copy, the host's for a gather

    Source: KCache (arXiv 2404.18057), section 3.
    """

    assumptions = (
        "kcache: rows of 256 bytes come over the link at its full rate unless `rate` says otherwise",
        "kcache: scores read the keys at the rate of a copy in HBM, which attention itself may not reach",
    )

    def __init__(
        self, *, selected: int = 128, full_layers: int = 0, via: str = "zero_copy", rate: float | str | None = None
    ) -> None:
        self.selected = whole("selected", selected, 1, 10**9)
        self.full_layers = whole("full_layers", full_layers, 0, 10_000)
        self.gathers = choice("via", via, ("zero_copy", "gather")) == "gather"
        self.rate = GATHER_RATE if rate is None and self.gathers else _rate(rate)

    def applies(self, layer: LayerView) -> bool:
        """Not in the first layers."""
        return layer.index >= self.full_layers

    def attended(self, layer: LayerView) -> Line:
        """Tokens whose values are read; all keys are."""
        return upto(min(self.selected, longest(layer)))

    def plan(self, layer: LayerView, before: LayerPlan) -> LayerPlan:
        """The layer's plan."""
        if not self.applies(layer):
            return before
        needs_heads("kcache", layer)
        needs_all_tokens("kcache", layer, before)
        tokens = context_of(layer)
        half = layer.token_bytes / 2
        values = half * before.form.value
        rows = self.attended(layer)
        keys = replace(before.form, value=0.0, value_full=0, beside=before.form.beside / 2)
        scores = Work(
            "scores",
            keys.read(tokens) * layer.token_bytes + tokens * (SCORE_PASSES * layer.heads * layer.element_bytes),
            tokens * (2 * layer.heads * layer.head_dim),
            launches=3,
            source=SOURCE,
        )
        fetch = Move(
            "h2d",
            rows * values,
            constant(1) if self.gathers else rows * layer.kv_heads,
            "critical",
            "gather" if self.gathers else "zero_copy",
            self.rate,
            source=SOURCE,
        )
        store = Move("d2h", constant(values), constant(1), "async", source=SOURCE)
        return replace(
            before.plus(works=(scores,), moves=(fetch, store)),
            # the keys' form without values; attention then reads N value rows, as many bytes as N keys
            form=keys,
            attended=rows,
            host=tokens * values,
            # values of two layers are in HBM while they are computed and stored
            kept_in_prefill=tokens * (1 + 2 / layer.layers),
            prompt_moves=(*before.prompt_moves, Move("d2h", tokens * values, Line(), "async", source=SOURCE)),
        )


def _rate(value: float | str | None) -> float | None:
    return None if value is None else rate("rate", value)
