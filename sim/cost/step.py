"""How long one engine step takes on one GPU, from the fitted kernel models of a hardware profile.

step = max(linear + attention, launches) + host time, where
  linear     every matrix product of every layer, the elementwise kernels between them, and the output head
  attention  decode attention over the cached context, plus prefill attention of each chunk
  launches   time to launch the kernels one by one; only steps with prefill tokens, since decode steps replay a graph

Layers of one kind (`ModelSpec.layer_kinds`) are computed once (`sim.cost.layer`).

Decode attention is charged cold: between two uses of a line of KV every weight of the model passes through L2
(public tables that repeat one buffer are L2-warm, and must not be used for small contexts). The one exception is KV
that was prefetched into L2 (`sim.cost.l2_prefetch`), so the size of L2 matters only with a prefetch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from hw_profiles.l2 import l2_model
from hw_profiles.models import ModelSpec
from hw_profiles.profile import Profile
from sim.cost.bound import Bound, gemm_bound
from sim.cost.interference import InterferenceModel
from sim.cost.kernels import Kernels
from sim.cost.l2_prefetch import L2Prefetch, Window
from sim.cost.layer import Floats, LayerCost, Product

_STEPS = np.arange(1 << 16, dtype=np.float64)
MAX_STRIDE = len(_STEPS)


class Attended(NamedTuple):
    """Cached tokens that the decoding sequences attend in layers of one window, inside it.

    tokens: over all sequences, in the next step; growing: sequences that attend one more in every step after that.
    """

    tokens: int
    growing: int


class StepCost:
    """Kernel times of a model on a profile, in seconds; linear times are remembered by token count.

    host_time_s         added to every step
    l2_prefetch_bytes   KV bytes per layer that are prefetched into L2; 0: none. Raises InputError if the profile does
                        not say how its L2 behaves
    expert_skew         Zipf exponent of the popularity of experts, 0: uniform (`sim.cost.experts`)

    `windows` lists the sliding windows of the model's layers; methods that charge decode attention take one `Attended`
    for each, in this order, beside the tokens of layers that attend everything.
    """

    def __init__(
        self,
        model: ModelSpec,
        profile: Profile,
        host_time_s: float = 0.0,
        l2_prefetch_bytes: int = 0,
        *,
        expert_skew: float = 0.0,
    ) -> None:
        kernels = Kernels(profile)
        self._profile = profile
        self._kinds = [LayerCost(count, layer, kernels, expert_skew) for count, layer in model.layer_kinds()]
        self._head = Product.of(model.head_gemm_at(1), model.specs[0], kernels)
        self.windows = tuple(sorted({kind.window for kind in self._kinds if kind.window is not None}))
        self._places = [None if k.window is None else self.windows.index(k.window) for k in self._kinds]
        self.host_time_s = host_time_s
        self.layers = model.layers
        self.launch_floor_s = (sum(k.count * k.kernels for k in self._kinds) + 1) * profile.launch.stream
        self._layers_by_tokens: dict[int, float] = {}
        self._head_by_rows: dict[int, float] = {0: 0.0}
        self._bound_by_tokens: dict[int, Bound] = {}
        self._head_bound_by_rows: dict[int, Bound] = {0: Bound(0.0, 0.0)}
        self._windows_by_tokens: dict[int, list[Window]] = {}
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
            layers = self._layers_by_tokens[tokens] = sum(kind.linear(tokens) * kind.count for kind in self._kinds)
        head = self._head_by_rows.get(rows)
        if head is None:
            head = self._head_by_rows[rows] = self._head.model.seconds(*self._head.work(rows))
        return layers + head

    def decode(self, seqs: int, context: int, tokens: int | None = None, windowed: Sequence[Attended] = ()) -> float:
        """Decode attention of `seqs` sequences over `context` cached tokens in all, in a step of `tokens` tokens.

        hw_profiles.cost_models.DecodeModel per layer, cold, or with a prefetch into L2 sim.cost.l2_prefetch.
        `tokens` (by default `seqs`) counts there: it sets how long the kernels take that cover the prefetch.
        """
        if self._prefetch is not None:
            return float(self.decode_stride(seqs, context, 1, tokens, windowed)[0])
        seconds = 0.0
        for kind, place in zip(self._kinds, self._places, strict=True):
            seconds += kind.count * kind.decode(seqs, context if place is None else windowed[place].tokens)
        return seconds

    def decode_stride(
        self, seqs: int, context: int, steps: int, tokens: int | None = None, windowed: Sequence[Attended] = ()
    ) -> Floats:
        """`decode` for `steps` consecutive steps in which every sequence grows by one token: float64[steps].

        Same operations in the same order as `decode`, so both give the same bits.
        """
        seconds: Floats | float = 0.0
        for i, (kind, place) in enumerate(zip(self._kinds, self._places, strict=True)):
            now, growing = (context, seqs) if place is None else windowed[place]
            attended = now + growing * _STEPS[:steps]
            if self._prefetch is None:
                layer = kind.decode_steps(seqs, attended)
            else:
                window = self._linear_windows(seqs if tokens is None else tokens)[i]
                layer = self._prefetch.seconds(seqs, kind.decode_bytes * attended, window)
            seconds = seconds + kind.count * layer
        assert isinstance(seconds, np.ndarray)
        return seconds

    def prefill(self, tokens: int, prefix: int) -> float:
        """Attention of a chunk of `tokens` new tokens after `prefix` cached ones, causal.

        hw_profiles.cost_models.PrefillModel per layer.
        """
        return sum(kind.count * kind.prefill(tokens, prefix) for kind in self._kinds)

    def bound(
        self,
        tokens: int,
        rows: int,
        seqs: int,
        context: int,
        chunks: Sequence[tuple[int, int]],
        windowed: Sequence[Attended] = (),
    ) -> Bound:
        """How much of a step's kernel time waits for HBM, and how much for arithmetic.

        tokens, rows as in `linear`; seqs, context, windowed as in `decode`; chunks: (tokens, prefix) of each prefill.
        Matrix products split by `gemm_bound`; elementwise kernels and what decode attention reads are HBM time, the
        work of prefill attention is compute time.
        """
        parts = [self._linear_bound(tokens), self._head_bound(rows)]
        for i, (kind, place) in enumerate(zip(self._kinds, self._places, strict=True)):
            if seqs:
                attended = context if place is None else windowed[place].tokens
                if self._prefetch is None:
                    seconds = kind.decode(seqs, attended)
                else:
                    window, nbytes = self._linear_windows(tokens)[i], np.array([kind.decode_bytes * float(attended)])
                    seconds = float(self._prefetch.seconds(seqs, nbytes, window)[0])
                parts.append(kind.decode_bound(seqs, seconds).times(kind.count))
            parts += [kind.prefill_bound(n, prefix).times(kind.count) for n, prefix in chunks]
        return Bound(sum(part.hbm_s for part in parts), sum(part.compute_s for part in parts))

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

    def _linear_bound(self, tokens: int) -> Bound:
        if tokens not in self._bound_by_tokens:
            bounds = [kind.linear_bound(tokens).times(kind.count) for kind in self._kinds]
            self._bound_by_tokens[tokens] = Bound(sum(b.hbm_s for b in bounds), sum(b.compute_s for b in bounds))
        return self._bound_by_tokens[tokens]

    def _head_bound(self, rows: int) -> Bound:
        if rows not in self._head_bound_by_rows:
            self._head_bound_by_rows[rows] = gemm_bound(self._head.model, *self._head.work(rows))
        return self._head_bound_by_rows[rows]

    def _linear_windows(self, tokens: int) -> list[Window]:
        """By kind: the linear kernels of a layer, during which the KV of the next attention can be prefetched."""
        if tokens not in self._windows_by_tokens:
            windows = [Window(kind.linear(tokens), kind.linear_bytes(tokens)) for kind in self._kinds]
            self._windows_by_tokens[tokens] = windows
        return self._windows_by_tokens[tokens]
