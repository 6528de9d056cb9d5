"""How long one engine step takes on one GPU, from the fitted kernel models of a hardware profile.

step = max(linear + attention, launches) + host time, where
  linear     every matrix product of every layer, the elementwise kernels between them, and the output head
  attention  decode attention over the cached context, plus prefill attention of each chunk
  launches   time to launch the kernels one by one; only steps with prefill tokens, since decode steps replay a graph

Decode attention is charged cold: between two uses of a line of KV every weight of the model passes through L2
(public tables that repeat one buffer are L2-warm, and must not be used for small contexts). The one exception is KV
that was prefetched into L2 (`sim.cost.l2_prefetch`), so the size of L2 matters only with a prefetch.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from hw_profiles.cost_models import prefill_flops
from hw_profiles.l2 import l2_model
from hw_profiles.models import ModelSpec
from hw_profiles.profile import Profile
from sim.cost.bound import Bound, gemm_bound
from sim.cost.interference import InterferenceModel
from sim.cost.l2_prefetch import L2Prefetch, Window

Floats = npt.NDArray[np.float64]

ELEMENTWISE_KERNELS = 5
"""Between the matrix products of a layer: two RMSNorms with residual, rotary, cache write, SiLU-and-multiply."""
KERNELS_PER_LAYER = 4 + 1 + ELEMENTWISE_KERNELS

_STEPS = np.arange(1 << 16, dtype=np.float64)
MAX_STRIDE = len(_STEPS)


class StepCost:
    """Kernel times of a model on a profile, in seconds; linear times are remembered by token count.

    host_time_s         added to every step
    l2_prefetch_bytes   KV bytes per layer that are prefetched into L2; 0: none. Raises InputError if the profile does
                        not say how its L2 behaves.
    """

    def __init__(
        self, model: ModelSpec, profile: Profile, host_time_s: float = 0.0, l2_prefetch_bytes: int = 0
    ) -> None:
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
        self._bound_by_tokens: dict[int, Bound] = {}
        self._head_bound_by_rows: dict[int, Bound] = {0: Bound(0.0, 0.0)}
        self._window_by_tokens: dict[int, Window] = {}
        self._validity = profile.validity
        self._prefetch: L2Prefetch | None = None
        if l2_prefetch_bytes:
            latency = profile.si("tiers.hbm.latency")
            self._prefetch = L2Prefetch(l2_prefetch_bytes, l2_model(profile), profile.decode, latency)
        self.interference = InterferenceModel.of(profile)
        """What copies cost kernels; None if the profile does not say."""

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

    def decode(self, seqs: int, context: int, tokens: int | None = None) -> float:
        """Decode attention of `seqs` sequences over `context` cached tokens in all, in a step of `tokens` tokens.

        hw_profiles.cost_models.DecodeModel per layer, cold, or with a prefetch into L2 sim.cost.l2_prefetch.
        `tokens` (by default `seqs`) counts there: it sets how long the kernels take that cover the prefetch.
        """
        if self._prefetch is not None:
            return float(self.decode_stride(seqs, context, 1, tokens)[0])
        return self._model.layers * self._decode.seconds(seqs, self._layer_kv_bytes * context)

    def decode_stride(self, seqs: int, context: int, steps: int, tokens: int | None = None) -> Floats:
        """`decode` for `steps` consecutive steps in which every sequence grows by one token: float64[steps].

        Same operations in the same order as `decode`, so both give the same bits.
        """
        nbytes = self._layer_kv_bytes * (context + seqs * _STEPS[:steps])
        if self._prefetch is not None:
            window = self._window(seqs if tokens is None else tokens)
            return self._model.layers * self._prefetch.seconds(seqs, nbytes, window)
        return self._model.layers * self._decode.seconds(np.array(float(seqs)), nbytes)

    def prefill(self, tokens: int, prefix: int) -> float:
        """Attention of a chunk of `tokens` new tokens after `prefix` cached ones, causal.

        hw_profiles.cost_models.PrefillModel per layer.
        """
        flops = prefill_flops(tokens, prefix, self._model.heads, self._model.head_dim)
        return self._model.layers * self._prefill.seconds(tokens, flops)

    def bound(self, tokens: int, rows: int, seqs: int, context: int, chunks: Sequence[tuple[int, int]]) -> Bound:
        """How much of a step's kernel time waits for HBM, and how much for arithmetic.

        tokens, rows as in `linear`; seqs, context as in `decode`; chunks: (tokens, prefix) of each prefill. Matrix
        products split by `gemm_bound`; elementwise kernels and what decode attention reads are HBM time, the work of
        prefill attention is compute time.
        """
        layers = self._model.layers
        if tokens not in self._bound_by_tokens:
            self._bound_by_tokens[tokens] = self._layer_bound(tokens)
        if rows not in self._head_bound_by_rows:
            work = self._gemm_work(rows, *self._model.head_gemm)
            self._head_bound_by_rows[rows] = gemm_bound(self._profile.gemm, *work)
        layer, head = self._bound_by_tokens[tokens], self._head_bound_by_rows[rows]
        hbm, compute = layers * layer.hbm_s + head.hbm_s, layers * layer.compute_s + head.compute_s
        if seqs:
            attention = self.decode(seqs, context, tokens) / layers
            if attention > self._decode.floor:
                hbm += layers * max(0.0, attention - self._decode.t0 - self._decode.per_seq * seqs)
        for n, prefix in chunks:
            compute += self.prefill(n, prefix) - layers * self._prefill.t0
        return Bound(hbm, compute)

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
        gemms = sum(self._gemm(tokens, n, k) for _name, n, k in self._model.layer_gemms())
        elementwise = self._elementwise_bytes(tokens) / self._profile.hbm_bandwidth
        return gemms + ELEMENTWISE_KERNELS * self._profile.launch.graph + elementwise

    def _layer_bound(self, tokens: int) -> Bound:
        gemms = [
            gemm_bound(self._profile.gemm, *self._gemm_work(tokens, n, k)) for _name, n, k in self._model.layer_gemms()
        ]
        elementwise = self._elementwise_bytes(tokens) / self._profile.hbm_bandwidth
        return Bound(sum(b.hbm_s for b in gemms) + elementwise, sum(b.compute_s for b in gemms))

    def _window(self, tokens: int) -> Window:
        """The linear kernels of a layer, during which the KV of the next attention can be prefetched."""
        if tokens not in self._window_by_tokens:
            work = [self._gemm_work(tokens, n, k) for _name, n, k in self._model.layer_gemms()]
            moved = sum(nbytes for nbytes, _ in work) + self._elementwise_bytes(tokens)
            self._window_by_tokens[tokens] = Window(self._layer_time(tokens), moved)
        return self._window_by_tokens[tokens]

    def _elementwise_bytes(self, tokens: int) -> int:
        model = self._model
        norms = 2 * 4 * model.hidden  # each reads input and residual, writes both
        rotary = 2 * (model.q_size + model.kv_size)
        cache_write = 2 * 2 * model.kv_size
        activation = 3 * model.intermediate
        return tokens * (norms + rotary + cache_write + activation) * model.dtype_bytes

    def _gemm(self, m: int, n: int, k: int) -> float:
        """[m, k] x [k, n]: p-norm roofline over the bytes of both inputs and the output."""
        return self._profile.gemm.seconds(*self._gemm_work(m, n, k))

    def _gemm_work(self, m: int, n: int, k: int) -> tuple[int, float]:
        return (n * k + m * k + m * n) * self._model.dtype_bytes, 2.0 * m * n * k
