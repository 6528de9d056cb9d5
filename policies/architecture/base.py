"""What a policy of the family `architecture` does: another model, whose cache is smaller."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import replace

from hw_profiles.attention import GQA
from hw_profiles.errors import InputError
from hw_profiles.geometry import LayerSpec
from hw_profiles.model_spec import ModelSpec


class Architecture(ABC):
    """A transform of the model, applied once before the run.

    What it promises: `apply` returns a ModelSpec and changes nothing; its answers follow from the model alone.
    """

    @abstractmethod
    def apply(self, model: ModelSpec) -> ModelSpec:
        """The transformed model. Raises InputError for a model that it is not defined for."""


def layers_of(model: ModelSpec) -> list[LayerSpec]:
    """The layers in order of depth."""
    return [model.specs[i] for i in model.pattern]


def with_layers(model: ModelSpec, layers: list[LayerSpec], name: str) -> ModelSpec:
    """The model with other layers, in order of depth, called `name` behind its own name."""
    kinds: dict[LayerSpec, int] = {}
    pattern = tuple(kinds.setdefault(layer, len(kinds)) for layer in layers)
    return replace(model, name=f"{model.name}+{name}", specs=tuple(kinds), pattern=pattern)


def heads_of(layer: LayerSpec, model: ModelSpec, what: str) -> GQA:
    """The attention of a layer with heads. Raises InputError for a latent, or a model that was transformed before."""
    if not isinstance(layer.attention, GQA):
        raise InputError(f"{what} is not defined for {model.name}, whose cache holds a latent", path="model")
    if not layer.stores or not layer.cadence.plain:
        raise InputError(f"{what} cannot follow another transform: {model.name} is transformed already")
    return layer.attention


def renamed(layer: LayerSpec, names: dict[str, tuple[str, ...]]) -> LayerSpec:
    """The layer with the formats of its matrices under other names: old name, new ones that take its format."""
    formats = tuple((new, form) for old, form in layer.formats for new in names.get(old, (old,)))
    return replace(layer, formats=formats)
