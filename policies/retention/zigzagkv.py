"""ZigZagKV: cache sizes per layer, by how many tokens a layer's attention needs."""

from __future__ import annotations

from collections.abc import Callable

from hw_profiles.lines import CONTEXT
from policies.retention.budgets import DividedBudget
from policies.sequence.plan import LayerView, Work
from policies.sequence.scores import ACTIVATION_BYTES

MASS = 0.9
"""Of the attention, that a layer's count of tokens holds. SOURCE: as below, section 4 (its minimum budget)."""


class ZigZagKV(DividedBudget):
    """A total of KV divided over the layers by their uncertainty: the fewest tokens that hold 0.9 of the attention.

    The total decides bytes and time, whatever the uncertainty, unless rows are padded (`storage`). Counts come from
    recorded importance data where it has as many layers as the model, or from `weights`; the data that ships is alike
    in all layers, and so are their parts then. Every layer has at least its window. When a prompt is complete, the
    votes of its last queries are sorted and summed for the count.

    budget        mean tokens of the prompt per layer and head
    window        last queries of the prompt, which vote and are kept
    weights       tokens that a layer needs (two numbers: of the first and the last layer, straight in between), in
                  place of what the importance data say
    head_weights  the same over a layer's KV heads
    storage       ragged, heads or layers: to what uneven parts are padded

    Source: M. Zhong et al., "ZigZagKV", COLING 2025 (arXiv 2412.09036), section 4, from notes on it.
    """

    title = "zigzagkv"
    source = "ZigZagKV (arXiv 2412.09036), section 4"
    assumptions = ("zigzagkv: layers need what recorded data or `weights` say, all alike without them",)

    def worth(self, layer: LayerView) -> tuple[float, ...] | None:
        """Tokens that hold MASS of each layer's attention, where that is known."""
        layer_keys: Callable[[float], list[float]] | None = getattr(layer.importance, "layer_keys", None)
        if self._weights is not None or layer_keys is None:
            return self._weights
        found = layer_keys(MASS)
        return tuple(found) if len(found) == layer.layers else None

    def scoring(self, layer: LayerView) -> tuple[Work, ...]:
        """The votes of all heads sorted, and their sums."""
        votes = CONTEXT * (4.0 * ACTIVATION_BYTES * layer.heads)
        return (Work("tokens that hold 0.9", votes, launches=3, source=self.source),)
