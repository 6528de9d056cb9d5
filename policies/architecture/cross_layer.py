"""Nine ways in which layers can share keys and values: where the groups are, and which layer of a group makes them."""

from __future__ import annotations

from hw_profiles.model_spec import ModelSpec
from policies.architecture.base import Architecture
from policies.architecture.sharing import PASSES, in_groups, shared
from policies.options import choice, whole

PARTITIONS = ("pizza", "sandwich", "lasagna")
POSITIONS = ("bottom", "top", "middle")


class CrossLayerSharing(Architecture):
    """Any of {pizza, sandwich, lasagna} x {bottom, top, middle} with the KV of `kv_layers` layers.

    pizza: the lowest kv_layers - 1 layers have their own, the others are one group. sandwich: those with their own are
    half below the group, half above. lasagna: kv_layers groups as even as can be. The group's bottom, top or middle
    layer makes the keys and values. With top and middle, prompts take `passes` passes through the layers of the cycle.
    CLA is lasagna-bottom, LCKV sandwich-top; YOCO's cross-decoder pizza-bottom.
    SOURCE: Wu, Wu and Tu, A Systematic Study of Cross-Layer KV Sharing (arXiv 2410.14442) section 2, table 1.
    kv_layers by default: half of the model's.
    """

    def __init__(
        self,
        partition: str = "lasagna",
        position: str = "bottom",
        kv_layers: int | None = None,
        passes: int = PASSES,
    ) -> None:
        self.partition = choice("partition", partition, PARTITIONS)
        self.position = choice("position", position, POSITIONS)
        self.kv_layers = None if kv_layers is None else whole("kv_layers", kv_layers, 1, 1 << 16)
        self.passes = whole("passes", passes, 1, 1000)

    def apply(self, model: ModelSpec) -> ModelSpec:
        """As Architecture.apply. As many kv_layers as the model has, or more, leave it as it is."""
        kept = min(model.layers, self.kv_layers or -(-model.layers // 2))
        sources = list(range(model.layers))
        for group in self._groups(model.layers, kept):
            place = {"bottom": 0, "top": len(group) - 1, "middle": len(group) // 2}[self.position]
            for i in group:
                sources[i] = group[place]
        return shared(model, sources, f"{self.partition}-{self.position}-{kept}", self.passes)

    def _groups(self, layers: int, kept: int) -> list[range]:
        """Layers that share, each group in order."""
        if self.partition == "lasagna":
            return in_groups(layers, kept)
        above = (kept - 1) // 2 if self.partition == "sandwich" else 0
        return [range(kept - 1 - above, layers - above)]
