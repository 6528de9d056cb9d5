"""What one layer of a kind costs on one rank: its matrix products, what lies between them, its attention."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from hw_profiles.cost_models import GemmModel
from hw_profiles.geometry import Gemm, LayerSpec
from sim.cost.bound import Bound, gemm_bound
from sim.cost.experts import ExpertLoad
from sim.cost.kernels import Kernels, input_bytes

Floats = npt.NDArray[np.float64]


class Product(NamedTuple):
    """A weight of a layer and what charges it; `expert`: a grouped product over the experts that a step touches."""

    model: GemmModel
    n: int
    k: int
    weight_bytes: int
    in_bytes: float
    out_bytes: int
    expert: bool

    @classmethod
    def of(cls, gemm: Gemm, layer: LayerSpec, kernels: Kernels) -> Product:
        """The product of one of the layer's matrices."""
        read = input_bytes(gemm.format, layer.base)
        model = kernels.gemm(gemm.format)
        return cls(model, gemm.n, gemm.k, gemm.weight_bytes, read, layer.act_bytes, gemm.expert)

    def work(self, rows: float, weights: float = 1) -> tuple[float, float]:
        """(bytes, FLOP) of `rows` rows: the weight (of `weights` experts) and input are read, the output written."""
        nbytes = weights * self.weight_bytes + rows * (self.k * self.in_bytes + self.n * self.out_bytes)
        return nbytes, 2.0 * rows * self.n * self.k


class LayerCost:
    """Kernel times of one layer, in seconds; `count` of the model's (or stage's) layers are alike."""

    def __init__(self, count: int, layer: LayerSpec, kernels: Kernels, expert_skew: float = 0.0) -> None:
        self.count = count
        self.window = layer.window
        self.kernels = layer.kernels
        self.decode_model = kernels.decode(layer)
        self._products = [Product.of(gemm, layer, kernels) for gemm in layer.gemms]
        self._load = ExpertLoad(layer.moe, expert_skew) if layer.moe else None
        self._elementwise_bytes = layer.elementwise_bytes
        self._between_s = len(layer.elementwise) * kernels.profile.launch.graph
        self._hbm = kernels.profile.hbm_bandwidth
        self._prefill = kernels.prefill(layer)
        self._prefill_flops = layer.attention.prefill_flops_per_pair
        named = zip(layer.gemms, self._products, strict=True)
        self._expand = next((product for gemm, product in named if gemm.name == "kv_b"), None)
        # reading and arithmetic overlap and both grow with the context, so one of them bounds contexts of any length
        arithmetic = kernels.decode_arithmetic_bytes(layer)
        self.decode_bytes = max(layer.kv_bytes_per_token, arithmetic)
        """Per attended token: what is read of the cache, or as many bytes as could be read during its arithmetic."""
        self._arithmetic = arithmetic > layer.kv_bytes_per_token

    # ---- linear

    def linear(self, tokens: int) -> float:
        """Matrix products and elementwise kernels for `tokens` tokens."""
        gemms = sum(product.model.seconds(*work) for product, work in self._work(tokens))
        return gemms + self._between_s + self._elementwise_bytes * tokens / self._hbm

    def linear_bytes(self, tokens: int) -> float:
        """Bytes that these kernels move over HBM."""
        return sum(nbytes for _, (nbytes, _) in self._work(tokens)) + self._elementwise_bytes * tokens

    def linear_bound(self, tokens: int) -> Bound:
        """What of their time waits for HBM, and what for arithmetic."""
        gemms = [gemm_bound(product.model, *work) for product, work in self._work(tokens)]
        elementwise = self._elementwise_bytes * tokens / self._hbm
        return Bound(sum(b.hbm_s for b in gemms) + elementwise, sum(b.compute_s for b in gemms))

    def _work(self, tokens: int) -> list[tuple[Product, tuple[float, float]]]:
        """Each product with its (bytes, FLOP); experts as one grouped product over those that are touched."""
        if self._load is None:
            return [(product, product.work(tokens)) for product in self._products]
        rows, touched = self._load.rows(tokens), self._load.touched(tokens)
        return [(p, p.work(rows, touched) if p.expert else p.work(tokens)) for p in self._products]

    # ---- attention

    def decode(self, seqs: int, attended: int) -> float:
        """Decode attention of `seqs` sequences that attend `attended` cached tokens in all (inside the window)."""
        return self.decode_model.seconds(seqs, self.decode_bytes * attended)

    def decode_steps(self, seqs: int, attended: Floats) -> Floats:
        """The same for each of the steps whose tokens `attended` has: float64[steps], the same bits."""
        return self.decode_model.seconds(np.array(float(seqs)), self.decode_bytes * attended)

    def decode_bound(self, seqs: int, seconds: float) -> Bound:
        """What of `seconds` of decode attention waits for HBM, and what for arithmetic."""
        model = self.decode_model
        if seconds <= model.floor:
            return Bound(0.0, 0.0)
        work = max(0.0, seconds - model.t0 - model.per_seq * seqs)
        return Bound(0.0, work) if self._arithmetic else Bound(work, 0.0)

    def prefill(self, tokens: int, prefix: int) -> float:
        """Attention of a chunk of `tokens` new tokens after `prefix` cached ones, causal, inside the window.

        MLA expands the latents of the prefix into heads first: one more product with a row per prefix token.
        """
        seconds = self._prefill.seconds(tokens, self._prefill_flops * pairs(tokens, prefix, self.window))
        if prefix and self._expand is not None:
            seconds += self._expand.model.seconds(*self._expand.work(prefix))
        return seconds

    def prefill_bound(self, tokens: int, prefix: int) -> Bound:
        """What of that time waits for HBM (nothing), and what for arithmetic."""
        return Bound(0.0, self.prefill(tokens, prefix) - self._prefill.t0)


def pairs(tokens: int, prefix: int, window: int | None = None) -> float:
    """Pairs of a new and a visible token for `tokens` new after `prefix` cached ones: S P + S^2 / 2, or less.

    With a window W the first W - P of the new ones see everything, the others W tokens each. Continuous, as in the
    FLOP that the profile's prefill rate is fitted to (hw_profiles.cost_models.prefill_flops).
    """
    if window is None:
        return tokens * prefix + tokens * tokens / 2
    growing = max(0, min(tokens, window - prefix))
    return growing * prefix + growing * growing / 2 + (tokens - growing) * window
