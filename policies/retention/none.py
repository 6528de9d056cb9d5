"""Every token is kept."""

from __future__ import annotations

from policies.sequence.plan import LayerPlan, LayerView, SequencePolicy


class NoRetention(SequencePolicy):
    """Keeps the KV of every token."""

    def plan(self, layer: LayerView, before: LayerPlan) -> LayerPlan:
        """What it was."""
        return before
