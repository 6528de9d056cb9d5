"""The model of the mini engine on the device: random weights of every layer's own, and the pools of pages.

The pool is block-major: one page holds keys and values of all layers and is one copy of
layers x 2 x page x kv_heads x head_dim numbers. Seen as pages of one layer and side, page p of layer l has its keys at
place p x 2 x layers + 2 x l and its values one place further; so one table serves all layers.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from calibration.kernels.kv_cache import Cache, Side
from calibration.mini_engine.layer import LayerShape, LayerWeights
from calibration.suite.lab import Lab
from hw_profiles.errors import InputError
from hw_profiles.models import ModelSpec


@dataclass(frozen=True)
class ModelShape:
    """Layers of one shape, and the output head."""

    layers: int
    layer: LayerShape
    vocabulary: int

    @classmethod
    def of(cls, model: ModelSpec, page: int) -> ModelShape:
        """The shape of a dense model without windows. Raises InputError for another."""
        spec = model.specs[0]
        plain = spec.moe is None and spec.window is None and model.attention in {"GQA", "MHA", "MQA"}
        if len(model.specs) > 1 or not plain:
            raise InputError("the mini engine runs dense models without MLA or windows", found=model.name)
        layer = LayerShape(model.hidden, model.heads, model.kv_heads, model.head_dim, model.intermediate, page)
        return cls(model.layers, layer, model.vocab)

    @property
    def page_numbers(self) -> int:
        """Numbers of a page: keys and values of all layers."""
        return self.layers * 2 * self.layer.page * self.layer.kv_heads * self.layer.head_dim

    @property
    def weight_bytes(self) -> int:
        """Bytes of all weights (bf16)."""
        return 2 * (self.layers * self.layer.weight_numbers + 2 * self.vocabulary * self.layer.hidden)


class DeviceModel:
    """Weights and page pools. `device_pages` on the device, `host_pages` in pinned memory."""

    def __init__(self, lab: Lab, shape: ModelShape, device_pages: int, host_pages: int) -> None:
        self.lab = lab
        self.shape = shape
        self.weights = [LayerWeights.random(lab, shape.layer) for _ in range(shape.layers)]
        self.embeddings = lab.random(shape.vocabulary, shape.layer.hidden)
        self.head = lab.random(shape.vocabulary, shape.layer.hidden).mul_(shape.layer.hidden**-0.5)
        # written from end to end: memory that nobody has touched yet costs its first user
        self.pool = torch.empty(device_pages, shape.page_numbers, dtype=lab.dtype, device=lab.device).zero_()
        self.host = torch.empty(host_pages, shape.page_numbers, dtype=lab.dtype, pin_memory=not lab.cpu).zero_()

    def cache(self, layer: int, table: torch.Tensor, lengths: torch.Tensor) -> Cache:
        """One layer's pages as attention reads them; `table` has places of keys (see above), int32 [batch, pages]."""
        shape = self.shape.layer
        sides = self.pool.view(-1, shape.page, shape.kv_heads, shape.head_dim)
        none = torch.zeros(1, dtype=torch.float16, device=self.lab.device)
        keys, values = (Side(sides[2 * layer + side :], none, none) for side in (0, 1))
        return Cache(shape.layout, keys, values, table, lengths)

    def places(self, pages: list[int]) -> list[int]:
        """Places of the keys of pages, in any layer's cache."""
        return [page * 2 * self.shape.layers for page in pages]
