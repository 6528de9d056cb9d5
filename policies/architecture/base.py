"""What a policy of the family `architecture` does: another model, whose cache is smaller."""

from __future__ import annotations

from abc import ABC, abstractmethod

from hw_profiles.model_spec import ModelSpec


class Architecture(ABC):
    """A transform of the model, applied once before the run."""

    @abstractmethod
    def apply(self, model: ModelSpec) -> ModelSpec:
        """The transformed model. Raises InputError for a model that it is not defined for."""
