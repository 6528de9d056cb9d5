"""The model as its config says it is."""

from __future__ import annotations

from hw_profiles.model_spec import ModelSpec
from policies.architecture.base import Architecture


class AsItIs(Architecture):
    """Leaves the model as it is: the baseline."""

    def apply(self, model: ModelSpec) -> ModelSpec:
        """As Architecture.apply."""
        return model
