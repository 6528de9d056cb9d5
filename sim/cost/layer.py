"""What one layer of a kind costs on one rank: its matrix products, what lies between them, its attention."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from hw_profiles.attention import MLA
from hw_profiles.cost_models import GemmModel
from hw_profiles.curve import Curve
from hw_profiles.decode_curve import DecodeCurve
from hw_profiles.geometry import Gemm, LayerSpec
from hw_profiles.kernel_groups import BASE_KV_HEADS
from sim.cost.bound import NOTHING, Bound, gemm_bound
from sim.cost.experts import CONTIGUOUS, ExpertLoad, Placement
from sim.cost.kernels import LATENT_RATE, Kernels

Floats = npt.NDArray[np.float64]
Chunk = tuple[int, int]
"""New tokens of a prompt that run in one step, and the cached tokens before them."""

FUSED = ("activation", "combine")
"""Elementwise kernels that a measured kernel of fused experts has inside (the cache write: measured attention)."""


MOST_REMEMBERED = 1 << 14
"""Prefill times that are kept: prompts of a trace are often alike."""


class Work(NamedTuple):
    """One kernel call: its model, bytes, FLOP, and the shape (m, n, k) that a residual table is asked for, if any.

    by_rows: that table at this n and k, if it is known.
    """

    model: GemmModel
    nbytes: float
    flops: float
    shape: tuple[float, float, float] | None
    by_rows: Curve | None = None

    @property
    def seconds(self) -> float:
        """Time."""
        return self.model.seconds(self.nbytes, self.flops, self.shape, self.by_rows)

    @property
    def bound(self) -> Bound:
        """What of the time waits for HBM, and what for arithmetic."""
        bound = gemm_bound(self.model, self.nbytes, self.flops)
        table = self.model.residual
        if table is None or self.shape is None:
            return bound
        ratio = self.model.ratio(*self.shape) if self.by_rows is None else self.by_rows.at(self.shape[0])
        return bound.times(float(ratio))


class Product(NamedTuple):
    """A weight of a layer and what charges it; `expert`: a grouped product over the experts that a step touches."""

    model: GemmModel
    n: int
    k: int
    weight_bytes: int
    in_bytes: float
    out_bytes: int
    expert: bool
    by_rows: Curve | None

    @classmethod
    def of(cls, gemm: Gemm, layer: LayerSpec, kernels: Kernels) -> Product:
        """The product of one of the layer's matrices."""
        read = kernels.input_bytes(gemm.format, layer.base)
        model, n, k = kernels.gemm(gemm.format), gemm.n, gemm.k
        return cls(model, n, k, gemm.weight_bytes, read, layer.act_bytes, gemm.expert, model.rows_at(n, k))

    def work(self, rows: float) -> Work:
        """[rows, k] x [k, n]: weight and input are read, the output written."""
        nbytes = self.weight_bytes + rows * (self.k * self.in_bytes + self.n * self.out_bytes)
        return Work(self.model, nbytes, 2.0 * rows * self.n * self.k, (rows, self.n, self.k), self.by_rows)

    def grouped(self, rows: float, experts: float) -> Work:
        """`rows` rows in all by `experts` different weights."""
        nbytes = experts * self.weight_bytes + rows * (self.k * self.in_bytes + self.n * self.out_bytes)
        return Work(self.model, nbytes, 2.0 * rows * self.n * self.k, None)


class LayerCost:
    """Kernel times of one layer, in seconds; `count` of the model's (or stage's) layers are alike."""

    def __init__(
        self,
        count: int,
        layer: LayerSpec,
        kernels: Kernels,
        expert_skew: float = 0.0,
        placement: Placement = CONTIGUOUS,
    ) -> None:
        self.count = count
        self.cadence = layer.cadence
        self._period, self._passes = layer.cadence.period, layer.cadence.passes
        self._skips_prompt = layer.cadence.skips_prompt
        self.decodes: float = count if layer.cadence.period == 1 else count / layer.cadence.period
        """Layers that run in a decode step, on average."""
        self.window = layer.window
        self.kernels = layer.kernels
        self._products = [Product.of(gemm, layer, kernels) for gemm in layer.gemms]
        self._hbm = kernels.profile.hbm_bandwidth
        self._load = ExpertLoad(layer.moe, expert_skew, placement) if layer.moe else None
        first = next((gemm for gemm in layer.gemms if gemm.expert), None)
        self._experts = kernels.experts(first.format) if first else None
        self._prefill = kernels.prefill(layer)
        inside: tuple[str, ...] = FUSED if self._experts is not None else ()
        if self._prefill.writes_cache:
            inside = (*inside, "cache_write")
        between = [part for part in layer.elementwise if part[0] not in inside]
        if self._experts is not None and layer.moe and layer.moe.shared:
            between.append(("activation", 3 * layer.moe.shared * layer.act_bytes))
        self._between_bytes = sum(nbytes for _, nbytes in between)
        self._between_s = len(between) * kernels.profile.launch.graph

        self._prefill_flops = layer.attention.prefill_flops_per_pair
        named = zip(layer.gemms, self._products, strict=True)
        self._expand = next((product for gemm, product in named if gemm.name == "kv_b"), None)
        self.decode_bytes = float(layer.entry_bytes)
        """Per attended token: what is read of the cache, or as many bytes as could be read during its arithmetic."""
        self.arithmetic = False
        """True if decode attention is bound by its arithmetic (MLA): fewer bytes per token are not attended sooner."""
        if isinstance(layer.attention, MLA):
            latent = kernels.latent(layer)
            self.decode_model, self.decode_bytes = latent.model, latent.token_bytes
            self.arithmetic = latent.arithmetic
        else:
            self.decode_model = kernels.decode(layer)
        if layer.cadence.period > 1:
            self.decode_bytes /= layer.cadence.period
        self._decode_by_seqs: dict[float, DecodeCurve] = {}
        self._prefill_by_work: dict[tuple[int, float], float] = {}
        rate = self._prefill.flops * (LATENT_RATE if isinstance(layer.attention, MLA) else 1.0)
        self._pair_s = layer.attention.decode_flops_per_pair / rate
        """Arithmetic of one more row over a token that is attended."""
        self._kv_heads = 1 if isinstance(layer.attention, MLA) else layer.attention.kv_heads
        self._mixed = kernels.mixed(layer)
        self._imbalance = kernels.imbalance(layer)

    # ---- linear

    def linear(self, tokens: int) -> float:
        """Matrix products and elementwise kernels for `tokens` tokens."""
        products = sum(work.seconds for work in self._work(tokens))
        return products + self._between_s + self._between_bytes * tokens / self._hbm

    def linear_bytes(self, tokens: int) -> float:
        """Bytes that these kernels move over HBM."""
        return sum(work.nbytes for work in self._work(tokens)) + self._between_bytes * tokens

    def linear_bound(self, tokens: int) -> Bound:
        """What of their time waits for HBM, and what for arithmetic."""
        bounds = [work.bound for work in self._work(tokens)]
        between = self._between_bytes * tokens / self._hbm
        return Bound(sum(b.hbm_s for b in bounds) + between, sum(b.compute_s for b in bounds))

    def _work(self, tokens: int) -> list[Work]:
        """Every product of the layer; the experts that the tokens touch as grouped or fused ones."""
        if self._load is None:
            return [product.work(tokens) for product in self._products]
        rows, touched = self._load.rows(tokens), self._load.touched(tokens)
        if self._experts is None:
            return [p.grouped(rows, touched) if p.expert else p.work(tokens) for p in self._products]
        parts = [p.grouped(rows, touched) for p in self._products if p.expert]
        nbytes, flops = sum(part.nbytes for part in parts), sum(part.flops for part in parts)
        shape = (rows / touched, touched, flops / (6 * rows))  # rows per expert, experts, hidden x width
        plain = [p.work(tokens) for p in self._products if not p.expert]
        return [*plain, Work(self._experts, nbytes, flops, shape)]

    # ---- attention

    @property
    def asks_longest(self) -> bool:
        """True if the longest of the decoding sequences matters."""
        return self._imbalance is not None

    def decode(self, seqs: float, attended: float, longest: float = 0.0) -> float:
        """Decode attention of `seqs` sequences that attend `attended` cached tokens in all (inside the window).

        longest: tokens of the longest of them, if the profile says what that costs; 0: all are alike.
        """
        if self._imbalance is not None and longest:
            return float(self.decode_steps(seqs, np.array([float(attended)]), np.array([float(longest)]))[0])
        return self._decode_at(seqs).seconds(self.decode_bytes * attended)

    def decode_steps(self, seqs: float, attended: Floats, longest: Floats | None = None) -> Floats:
        """The same for each of the steps whose tokens `attended` has, which ascend: float64[steps], the same bits."""
        curve = self._decode_by_seqs.get(seqs) or self._decode_at(seqs)
        seconds = curve.along(self.decode_bytes * attended)
        if self._imbalance is None or longest is None:
            return seconds
        if self.window is not None:
            longest = np.minimum(longest, self.window)
        return seconds * self._imbalance.ratio(float(seqs), self._kv_heads, longest, attended)

    def verify(self, seqs: float, attended: Floats, pairs: Floats, longest: Floats | None) -> Floats:
        """Decode attention of sequences with several rows each; `pairs` of a row and a token that it attends.

        KV is read once, or the arithmetic of all rows sets the time (`sim.cost.speculation`).
        """
        if self.arithmetic:
            attended = pairs
        if len(attended) > 1 and bool((attended[1:] < attended[:-1]).any()):  # drafts that come and go
            order = np.argsort(attended, kind="stable")
            seconds = np.empty(len(attended))
            seconds[order] = self.decode_steps(seqs, attended[order], None if longest is None else longest[order])
        else:
            seconds = self.decode_steps(seqs, attended, longest)
        return seconds if self.arithmetic else np.maximum(seconds, pairs * self._pair_s)

    def together(self, prefill_s: float, decode_s: float, seqs: float, attended: float) -> float:
        """Attention of a step with prompts and decoding sequences, from what both would take alone."""
        both = prefill_s + decode_s
        if self._mixed is None or not (decode_s and attended):
            return both
        return both * self._mixed.ratio(prefill_s, decode_s, seqs * self._kv_heads / BASE_KV_HEADS, attended / seqs)

    def decode_bound(self, seqs: float, attended: float, seconds: float | None = None) -> Bound:
        """What of decode attention waits for HBM, and what for arithmetic.

        seconds: all of it, if that is not what `decode` says.
        """
        curve, nbytes = self._decode_at(seqs), self.decode_bytes * attended
        if seconds is None:
            work = curve.reading_s(nbytes)
        else:
            ratio = curve.ratio(nbytes)
            work = max(0.0, seconds - ratio * curve.fixed) if seconds > ratio * curve.floor else 0.0
        return Bound(0.0, work) if self.arithmetic else Bound(work, 0.0)

    def _decode_at(self, seqs: float) -> DecodeCurve:
        curve = self._decode_by_seqs.get(seqs)
        if curve is None:
            curve = self._decode_by_seqs[seqs] = self.decode_model.at_batch(seqs)
        return curve

    def prefill(self, chunks: Sequence[Chunk]) -> float:
        """Attention of chunks (new tokens, cached tokens before them) in one launch, causal, inside the window.

        MLA expands the latents of the prefixes into heads first: one more product with a row per prefix token.
        """
        if self._skips_prompt:
            return 0.0
        tokens, flops, prefixes = self._prefill_work(chunks)
        seconds = self._prefill_by_work.get((tokens, flops))
        if seconds is None:
            if len(self._prefill_by_work) == MOST_REMEMBERED:
                self._prefill_by_work.clear()
            seconds = self._prefill_by_work[tokens, flops] = self._prefill.seconds(tokens, flops)
        if self._expand and prefixes:
            seconds += self._expand.work(prefixes).seconds
        return seconds if self._passes == 1 else seconds * self._passes

    def prefill_bound(self, chunks: Sequence[Chunk], *, arithmetic: bool = True) -> Bound:
        """What of that time waits for HBM, and what for arithmetic (0 if that does not matter)."""
        if self._skips_prompt or (not arithmetic and self._expand is None):
            return NOTHING
        tokens, flops, prefixes = self._prefill_work(chunks)
        compute = self._prefill.seconds(tokens, flops) - self._prefill.t0
        expand = self._expand.work(prefixes).bound if self._expand and prefixes else NOTHING
        bound = Bound(expand.hbm_s, max(0.0, compute) + expand.compute_s)
        return bound if self._passes == 1 else bound.times(self._passes)

    def _prefill_work(self, chunks: Sequence[Chunk]) -> tuple[int, float, int]:
        """New tokens, FLOP and prefix tokens of all chunks."""
        if self._period > 1:
            chunks = [self.cadence.chunk(*chunk) for chunk in chunks]
        new = prefixes = 0
        seen = 0.0
        for tokens, prefix in chunks:
            new += tokens
            prefixes += prefix
            seen += pairs(tokens, prefix, self.window)
        return new, self._prefill_flops * seen, prefixes


def pairs(tokens: int, prefix: int, window: int | None = None) -> float:
    """Pairs of a new and a visible token for `tokens` new after `prefix` cached ones: S P + S^2 / 2, or less.

    With a window W the first W - P of the new ones see everything, the others W tokens each. Continuous, as in the
    FLOP that the profile's prefill rate is fitted to (hw_profiles.prefill_cost.prefill_flops).
    """
    if window is None:
        return tokens * prefix + tokens * tokens / 2
    growing = max(0, min(tokens, window - prefix))
    return growing * prefix + growing * growing / 2 + (tokens - growing) * window
