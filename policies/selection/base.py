"""What policies that read a part of the KV have in common."""

from __future__ import annotations

from abc import abstractmethod

from hw_profiles.lines import Line
from policies.sequence.plan import LayerView, SequencePolicy
from policies.sequence.shapes import context_of


class Selector(SequencePolicy):
    """A policy of the family `selection`."""

    @abstractmethod
    def attended(self, layer: LayerView) -> Line:
        """Tokens that a decode step reads of a layer that the policy applies to."""

    def applies(self, layer: LayerView) -> bool:
        """Whether the policy selects in this layer; it leaves others as they are."""
        return True

    def coverage(self, layer: LayerView, context: float, prompt: float) -> float:
        """Share of the attention mass that as many tokens hold at best: what is selected is what matters most."""
        if not self.applies(layer):
            return 1.0
        seen = context_of(layer).at(context, prompt)
        return layer.importance.coverage(min(self.attended(layer).at(context, prompt), seen), seen)
