"""Whole decode steps out of kernel tables: sums of measured kernels, to hold sums of predicted ones against.

A step of a model on a rank is, per layer, its matrix products for as many rows as there are sequences, and decode
attention over their context. Taken are the steps for which tables have every kernel at exactly its shape, with KV cold
in L2. What lies between (norms, launches, collectives) is in no table and in neither sum.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from calibration.fitting import Array, Mask
from calibration.points import Points
from hw_profiles.attention import GQA
from hw_profiles.cost_models import DecodeModel, GemmModel
from hw_profiles.kernel_groups import BASE_KV_HEADS, decode_key
from hw_profiles.models import list_models, load_model

TENSOR_PARALLEL = (1, 2, 4, 8)


@dataclass(frozen=True)
class Steps:
    """Steps of one model on one rank: `shapes` (n, k) of a layer, decode kernel group, KV heads; one row per step."""

    model: str
    ranks: int
    layers: int
    shapes: tuple[tuple[int, int], ...]
    group: str
    kv_heads: int
    batch: Array
    nbytes: Array
    seconds: Array
    heldout: Mask

    def predict(self, gemm: GemmModel, decode: DecodeModel, weights: Mapping[tuple[int, int], Array]) -> Array:
        """Seconds of every step; `decode` for `BASE_KV_HEADS` heads, weights: bytes of the products by (n, k)."""
        total = decode.seconds(self.batch * (self.kv_heads / BASE_KV_HEADS), self.nbytes)
        for n, k in self.shapes:
            m, ns, ks = self.batch, np.full_like(self.batch, n), np.full_like(self.batch, k)
            total = total + gemm.seconds(weights[n, k], 2 * m * n * k, (m, ns, ks))
        return self.layers * total


def decode_steps(points: Iterable[Points]) -> list[Steps]:
    """Every model and tensor-parallel degree that the tables have all kernels of, bf16."""
    groups = {each.name: each for each in points}
    gemm = groups["gemm_bf16"]
    m, n, k = (gemm.shape[name] for name in "mnk")
    measured = {(int(a), int(b), int(c)): float(s) for a, b, c, s in zip(m, n, k, gemm.seconds, strict=True)}
    shapes = {(b, c) for _, b, c in measured}
    found, seen = [], set()
    for name in list_models():
        spec = load_model(name)
        for ranks in TENSOR_PARALLEL:
            (count, layer), *others = spec.layer_kinds(ranks) if spec.heads % ranks == 0 else [(0, spec.specs[0])]
            if not count or others or layer.moe or not isinstance(layer.attention, GQA) or layer.attention.window:
                continue
            needed = tuple((each.n, each.k) for each in layer.gemms)
            group = next((g for g in groups if _fits(g, layer.attention)), None)
            key = (needed, group, layer.attention.kv_heads)
            if group is None or not shapes.issuperset(needed) or key in seen:
                continue
            seen.add(key)
            steps = _steps(name, ranks, count, needed, groups[group], layer.attention.kv_heads, measured)
            if len(steps.batch):
                found.append(steps)
    return found


def _fits(name: str, attention: GQA) -> bool:
    return decode_key(name) == ("bf16", attention.heads // attention.kv_heads, attention.head_dim)


def _steps(
    model: str,
    ranks: int,
    layers: int,
    shapes: tuple[tuple[int, int], ...],
    attention: Points,
    kv_heads: int,
    measured: Mapping[tuple[int, int, int], float],
) -> Steps:
    batch = attention.shape["batch"]
    complete = np.array([all((int(b), *shape) in measured for shape in shapes) for b in batch], dtype=bool)
    rows = attention.take(complete & attention.cold & (attention.shape["kv_heads"] == kv_heads))
    batch = rows.shape["batch"]
    products = np.array([sum(measured[int(b), *shape] for shape in shapes) for b in batch], dtype=np.float64)
    seconds = layers * (products + rows.seconds)
    return Steps(
        model, ranks, layers, shapes, attention.name, kv_heads, batch, rows.shape["bytes"], seconds, ~rows.fitted
    )
