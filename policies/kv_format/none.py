"""The engine's own format."""

from __future__ import annotations

from policies.sequence.plan import LayerPlan, LayerView, SequencePolicy


class NoFormat(SequencePolicy):
    """Keeps KV in the engine's own format (`engine.kv_dtype`)."""

    def plan(self, layer: LayerView, before: LayerPlan) -> LayerPlan:
        """What it was."""
        return before
