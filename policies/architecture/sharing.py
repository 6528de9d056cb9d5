"""Layers that read the keys and values of another layer instead of having their own.

A layer without its own has no key and value projection, writes no cache and takes no memory for it. It reads as much as
before: the layers that share a bank read it one after the other, and at more than a few sequences it does not stay in
L2 between them.

Where a layer reads keys and values that a layer above it makes, those of a prompt are found by iteration: all layers
from the lowest that does so up to the highest that is read run over the prompt several times. A decoding token attends
those before it alone, whose keys and values are known, so decoding needs one pass. SOURCE: Wu and Tu, Layer-Condensed
KV Cache (arXiv 2405.10637) sections 2.2 and 2.3; whyNLP/LCKV models/utils.py, iteration_plan, and
models/modeling_lckv.py (layers that nobody reads have no k_proj and v_proj).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

from hw_profiles.cadence import Cadence
from hw_profiles.errors import InputError
from hw_profiles.geometry import LayerSpec
from hw_profiles.model_spec import ModelSpec
from policies.architecture.base import heads_of, layers_of, renamed, with_layers

PASSES = 9
"""Passes over a prompt: 7 forward and 2 backward ones of training. SOURCE: whyNLP/LCKV
models/configuration_lckv.py (forward_passes 7, backward_passes 2; both run when a prompt is encoded)."""


def shared(model: ModelSpec, sources: Sequence[int], name: str, passes: int = PASSES) -> ModelSpec:
    """The model in which layer i reads the keys and values of layer sources[i]; i itself: its own.

    Unchanged if every layer reads its own. Raises InputError where layers are not alike enough to share.
    """
    if all(source == i for i, source in enumerate(sources)):
        return model
    layers = layers_of(model)
    upward = [i for i, source in enumerate(sources) if source > i]
    again = range(upward[0], max(sources[i] for i in upward) + 1) if upward else range(0)
    made = []
    for i, source in enumerate(sources):
        layer = _reading(layers[i], layers[source], model, name) if source != i else layers[i]
        heads_of(layers[i], model, name)
        made.append(replace(layer, cadence=Cadence(passes=passes)) if i in again and passes > 1 else layer)
    return replace(with_layers(model, made, name), kv_sources=tuple(sources))


def _reading(layer: LayerSpec, source: LayerSpec, model: ModelSpec, name: str) -> LayerSpec:
    """The layer without keys and values of its own."""
    own, other = heads_of(layer, model, name), heads_of(source, model, name)
    alike = (own.kv_heads, own.head_dim) == (other.kv_heads, other.head_dim) and layer.kv == source.kv
    visible = other.window is None or (own.window is not None and own.window <= other.window)
    if not (alike and visible):
        reason = "differ in their heads" if not alike else "slide, and do not keep all that other layers attend"
        raise InputError(f"{name} is not defined for {model.name}: layers that are to share {reason}", path="model")
    return renamed(replace(layer, attention=replace(own, own_kv=False)), {"qkv": ("q",)})


def in_groups(layers: int, groups: int) -> list[range]:
    """`layers` consecutive layers in `groups` groups as even as can be, larger ones first."""
    size, larger = divmod(layers, groups)
    stops = [0]
    for i in range(groups):
        stops.append(stops[-1] + size + (i < larger))
    return [range(a, b) for a, b in pairwise(stops)]
