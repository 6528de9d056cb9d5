"""What a policy of the family `architecture` does: another model, whose cache is smaller."""

from __future__ import annotations

from typing import Protocol

from hw_profiles.model_spec import ModelSpec


class Architecture(Protocol):
    """A transform of the model, applied once before the run."""

    def apply(self, model: ModelSpec) -> ModelSpec:
        """The transformed model. Raises InputError for a model that it is not defined for."""
