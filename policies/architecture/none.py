"""The model as its config says it is."""

from __future__ import annotations

from hw_profiles.model_spec import ModelSpec


class AsItIs:
    """Leaves the model as it is: the baseline."""

    def apply(self, model: ModelSpec) -> ModelSpec:
        """As Architecture.apply."""
        return model
