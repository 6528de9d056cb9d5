"""How long one engine step takes on one GPU, from the fitted kernel models of a hardware profile.

step = max(linear + attention, launches) + host time, where
  linear     every matrix product of every layer, the elementwise kernels between them, and the output head
  attention  decode attention over the cached context, plus prefill attention of each chunk
  launches   time to launch the kernels one by one; only steps with prefill tokens, since decode steps replay a graph

Decode attention is charged cold: between two uses of a line of KV every weight of the model passes through L2
(public tables that repeat one buffer are L2-warm, and must not be used for small contexts).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from hw_profiles.cost_models import prefill_flops
from hw_profiles.models import ModelSpec
from hw_profiles.profile import Profile

Floats = npt.NDArray[np.float64]

ELEMENTWISE_KERNELS = 5
"""Between the matrix products of a layer: two RMSNorms with residual, rotary, cache write, SiLU-and-multiply."""
KERNELS_PER_LAYER = 4 + 1 + ELEMENTWISE_KERNELS

_STEPS = np.arange(1 << 16, dtype=np.float64)
MAX_STRIDE = len(_STEPS)


class StepCost:
    """Kernel times of a model on a profile, in seconds; linear times are remembered by token count."""

    def __init__(self, model: ModelSpec, profile: Profile, host_time_s: float = 0.0) -> None:
        self._model = model
        self._profile = profile
        self.host_time_s = host_time_s
        self.layers = model.layers
        self.launch_floor_s = (model.layers * KERNELS_PER_LAYER + 1) * profile.launch.stream
        self._layer_kv_bytes = model.kv_bytes_per_token // model.layers
        self._decode = profile.decode
        self._prefill = profile.prefill
        self._layers_by_tokens: dict[int, float] = {}
        self._head_by_rows: dict[int, float] = {}
        self._validity = profile.validity

    def linear(self, tokens: int, rows: int) -> float:
        """Matrix products and elementwise kernels of a step of `tokens` tokens, `rows` of which are sampled."""
        layers = self._layers_by_tokens.get(tokens)
        if layers is None:
            layers = self._layers_by_tokens[tokens] = self._layer_time(tokens) * self._model.layers
        head = self._head_by_rows.get(rows)
        if head is None:
            n, k = self._model.head_gemm
            head = self._head_by_rows[rows] = self._gemm(rows, n, k) if rows else 0.0
        return layers + head

    def decode(self, seqs: int, context: int) -> float:
        """Decode attention of `seqs` sequences over `context` cached tokens in all.

        hw_profiles.cost_models.DecodeModel per layer, cold.
        """
        return self._model.layers * self._decode.seconds(seqs, self._layer_kv_bytes * context)

    def decode_stride(self, seqs: int, context: int, steps: int) -> Floats:
        """`decode` for `steps` consecutive steps in which every sequence grows by one token: float64[steps].

        Same operations in the same order as `decode`, so both give the same bits.
        """
        contexts = context + seqs * _STEPS[:steps]
        return self._model.layers * self._decode.seconds(np.array(float(seqs)), self._layer_kv_bytes * contexts)

    def prefill(self, tokens: int, prefix: int) -> float:
        """Attention of a chunk of `tokens` new tokens after `prefix` cached ones, causal.

        hw_profiles.cost_models.PrefillModel per layer.
        """
        flops = prefill_flops(tokens, prefix, self._model.heads, self._model.head_dim)
        return self._model.layers * self._prefill.seconds(tokens, flops)

    def extrapolated(self, seqs: int, context: int, chunks: Sequence[tuple[int, int]]) -> bool:
        """True when any part of a step lies outside the profile's measured box.

        seqs, context: decoding sequences and the tokens that they attend; chunks: (tokens, prefix) of each prefill.
        """
        box = self._validity
        if seqs and not (self._inside(box.batch, seqs) and self._inside(box.seq, context / seqs)):
            return True
        return any(not (self._inside(box.prefill, n) and self._inside(box.prefix, prefix)) for n, prefix in chunks)

    @staticmethod
    def _inside(box: tuple[float, float], value: float) -> bool:
        return box[0] <= value <= box[1]

    def _layer_time(self, tokens: int) -> float:
        model, width = self._model, self._model.dtype_bytes
        gemms = sum(self._gemm(tokens, n, k) for _name, n, k in model.layer_gemms())
        norms = 2 * 4 * model.hidden  # each reads input and residual, writes both
        rotary = 2 * (model.q_size + model.kv_size)
        cache_write = 2 * 2 * model.kv_size
        activation = 3 * model.intermediate
        moved = tokens * (norms + rotary + cache_write + activation) * width
        return gemms + ELEMENTWISE_KERNELS * self._profile.launch.graph + moved / self._profile.hbm_bandwidth

    def _gemm(self, m: int, n: int, k: int) -> float:
        """[m, k] x [k, n]: p-norm roofline over the bytes of both inputs and the output."""
        moved = (n * k + m * k + m * n) * self._model.dtype_bytes
        return self._profile.gemm.seconds(moved, 2.0 * m * n * k)
