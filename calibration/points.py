"""Measured points of one kernel: what a fit sees, what is held out, and what a model says of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from calibration.fitting import Array, Mask
from hw_profiles.cost_models import AllReduceModel, DecodeModel, GemmModel
from hw_profiles.kernel_groups import BASE_KV_HEADS
from hw_profiles.prefill_cost import BASE_HEADS, PrefillModel

KernelModel = GemmModel | DecodeModel | PrefillModel | AllReduceModel


@dataclass(frozen=True)
class Points:
    """Points of a kernel group (`name` as below `kernels:` in a profile).

    shape: the coordinates by name, float64[points]: gemm and moe `m, n, k, bytes, flops`; decode
    `batch, kv_heads, seq, bytes`; prefill `tokens, heads, kv_heads, context, flops`; allreduce `bytes`.
    fitted: the points that a fit may see. splits: masks of held-out points by the name of the split.
    family: which kernels; what: a line on the rows; table: the file they are from, relative to what was imported.
    """

    name: str
    shape: Mapping[str, Array]
    seconds: Array
    fitted: Mask
    splits: Mapping[str, Mask]
    family: str
    what: str
    table: str
    own: bool = True
    """False where another engine's table stands in."""
    floor: tuple[float, float, float] | None = None
    """Decode: (median, 5 %, 95 %) of the shortest times, which warm rows may set as well; s."""
    l2_bytes: float = 0.0
    """Decode: below twice that, KV is in L2 when it is read again. Prefill: 0 if L2 is not told apart."""
    split_tiles: int = 0
    """Prefill: tiles up to which contexts are split, 0 if the kernel never does."""
    prefix: tuple[int, int] = (0, 0)
    """Prefill: cached tokens before a chunk, least and most."""

    def __len__(self) -> int:
        return len(self.seconds)

    def take(self, mask: Mask) -> Points:
        """Some of the points."""
        return replace(
            self,
            shape={name: values[mask] for name, values in self.shape.items()},
            seconds=self.seconds[mask],
            fitted=self.fitted[mask],
            splits={name: inside[mask] for name, inside in self.splits.items()},
        )

    @property
    def cold(self) -> Mask:
        """Decode: the points whose KV exceeds L2; all points of other kernels."""
        return self.shape["bytes"] >= 2 * self.l2_bytes if self.kind == "decode" else np.ones(len(self), dtype=bool)

    @property
    def kind(self) -> str:
        """gemm, moe, decode, prefill or allreduce."""
        return self.name.removeprefix("mla_").split("_")[0]

    def predict(self, model: KernelModel) -> Array:
        """Seconds by a model for `BASE_KV_HEADS` KV heads or `BASE_HEADS` query heads, where these count."""
        shape = self.shape
        if isinstance(model, GemmModel):
            return model.seconds(shape["bytes"], shape["flops"], (shape["m"], shape["n"], shape["k"]))
        if isinstance(model, DecodeModel):
            return _decode(model, shape)
        if isinstance(model, PrefillModel):
            return _prefill(model, shape)
        return model.seconds(shape["bytes"])


def prefill_splits(heads: Array, fitted: Mask) -> dict[str, Mask]:
    """Held-out prefill rows: those with `BASE_HEADS` query heads, of which most models are, and the others."""
    base = heads == BASE_HEADS
    return {f"{BASE_HEADS} heads": ~fitted & base, "other heads": ~fitted & ~base}


def _decode(model: DecodeModel, shape: Mapping[str, Array]) -> Array:
    """Points of several counts of KV heads, each by the model for that many; `model` is for `BASE_KV_HEADS`."""
    total = np.zeros_like(shape["bytes"])
    for kv_heads in np.unique(shape["kv_heads"]):
        rows, share = shape["kv_heads"] == kv_heads, float(kv_heads) / BASE_KV_HEADS
        scaled = replace(model, per_seq=model.per_seq * share, share=share)
        total[rows] = scaled.seconds(shape["batch"][rows], shape["bytes"][rows])
    return total


def _prefill(model: PrefillModel, shape: Mapping[str, Array]) -> Array:
    """Points of several head counts, each by the model for that many; `model` is for `BASE_HEADS`."""
    total = np.zeros_like(shape["tokens"])
    for heads, kv_heads in np.unique(np.stack([shape["heads"], shape["kv_heads"]], axis=1), axis=0):
        rows = (shape["heads"] == heads) & (shape["kv_heads"] == kv_heads)
        share = float(heads) / BASE_HEADS
        memory = replace(model.memory, per_split=model.memory.per_split * share)
        scaled = replace(
            model, heads=int(heads), kv_heads=int(kv_heads), per_token=model.per_token * share, memory=memory
        )
        total[rows] = scaled.seconds(shape["tokens"][rows], shape["flops"][rows])
    return total
