"""Kernel times of the layers that one pipeline stage holds (or of a whole model), on one tensor-parallel rank."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from hw_profiles.l2 import l2_model
from hw_profiles.models import ModelSpec, Stage
from sim.cost.bound import Bound
from sim.cost.decode_pages import DecodePages
from sim.cost.kernels import Kernels
from sim.cost.l2_prefetch import L2Prefetch, Window
from sim.cost.layer import Chunk, Floats, LayerCost, Product
from sim.cost.linear_bound import LinearBound
from sim.cost.parallel import Exchange, Parallel
from sim.cost.sampling import sampling_s
from sim.cost.verify import VerifyLoad

STEPS = np.arange(1 << 16, dtype=np.float64)
MAX_STRIDE = len(STEPS)


class Attended(NamedTuple):
    """Cached tokens that the decoding sequences attend in layers of one window, inside it.

    tokens: over all sequences, in the next step; growing: sequences that attend one more in every step after that.
    """

    tokens: float
    growing: float


class StageCost:
    """Times in seconds; linear times are remembered by token count.

    `windows` lists the sliding windows of the model's layers; methods that charge decode attention take one `Attended`
    for each, in this order, beside the tokens of layers that attend everything.
    eager_launch_s: time to launch a kernel that Python dispatches; without `graphs` that is every kernel, of which a
    layer has `launches_per_layer` (None: as many as are charged).
    """

    def __init__(
        self,
        model: ModelSpec,
        stage: Stage,
        kernels: Kernels,
        parallel: Parallel,
        windows: Sequence[int],
        *,
        eager_launch_s: float,
        graphs: bool,
        l2_prefetch_bytes: int = 0,
        expert_skew: float = 0.0,
        leaves_node: bool = False,
        launches_per_layer: int | None = None,
    ) -> None:
        profile, tp = kernels.profile, parallel.tp
        layers = model.layer_kinds(tp, expert_parallel=parallel.expert_parallel, stage=stage)
        self._kinds = [LayerCost(count, layer, kernels, expert_skew, parallel.placement) for count, layer in layers]
        self._places = [None if k.window is None else windows.index(k.window) for k in self._kinds]
        self._plain = self._kinds[0] if len(self._kinds) == 1 and self._places[0] is None else None
        """The only kind of layer, if it attends everything and nothing is prefetched: the same sums, with less ado."""
        self._head = Product.of(model.head_gemm_at(tp), model.specs[0], kernels) if stage.samples else None
        self._vocab, self._profile = model.vocab, profile
        self._exchange = Exchange(kernels, parallel)
        self._hidden_bytes = model.hidden * model.dtype_bytes
        self._even = all(kind.cadence.plain for kind in self._kinds)
        self._reduces = [layer.all_reduces for _, layer in layers]
        self._reductions = sum(count * layer.all_reduces for count, layer in layers) + (stage.embeds and tp > 1)
        self._logit_bytes = model.vocab * model.dtype_bytes if stage.samples and tp > 1 else 0
        self._sends = 0 if stage.samples else 2 * self._hidden_bytes  # the hidden state and the residual
        self._leaves_node = leaves_node
        beside = self._reductions + stage.samples
        launched = [k.kernels if launches_per_layer is None else launches_per_layer for k in self._kinds]
        decoding = sum(k.decodes * n for k, n in zip(self._kinds, launched, strict=True)) + beside
        self.eager_floor_s = decoding * eager_launch_s
        """Time to launch the kernels of a decode step one by one."""
        with_prompts = sum(k.count * k.cadence.passes * n for k, n in zip(self._kinds, launched, strict=True)) + beside
        self.launch_floor_s = with_prompts * (profile.launch.stream if graphs else eager_launch_s)
        """Time to launch the kernels of a step with prompts: those between them are compiled if there are graphs."""
        self.pages = DecodePages(self._plain)
        self._layers_by_tokens: dict[int, float] = {}
        self._layers_by_work: dict[tuple[int, int, int], float] = {}
        self._head_by_rows: dict[int, float] = {0: 0.0}
        self._exchange_by_work: dict[tuple[int, int, int], float] = {}
        self._linear_bound = LinearBound(self._kinds, self._head, model.vocab, profile, even=self._even)
        self._windows_by_tokens: dict[int, list[Window]] = {}
        self._prefetch: list[L2Prefetch] = []
        """Of each kind, if there is a prefetch."""
        if l2_prefetch_bytes:
            latency, l2 = profile.si("tiers.hbm.latency"), l2_model(profile)
            self._plain = None
            self.pages = DecodePages(None)
            self._prefetch = [L2Prefetch(l2_prefetch_bytes, l2, kind.decode_model, latency) for kind in self._kinds]

    def linear(self, tokens: int, rows: int, prompt: int = 0) -> float:
        """Matrix products, elementwise kernels, sampling: a step of `tokens` tokens, of which `rows` are sampled.

        prompt: how many of them are of prompts, which matters where layers do not run once over every token.
        """
        layers = self._layers_by_tokens.get(tokens) if self._even else self._uneven(tokens, rows, prompt)
        if layers is None:
            layers = self._layers_by_tokens[tokens] = sum(kind.linear(tokens) * kind.count for kind in self._kinds)
        if self._head is None:
            return layers
        head = self._head_by_rows.get(rows)
        if head is None:
            head = self._head.work(rows).seconds + sampling_s(rows, self._vocab, self._profile)
            self._head_by_rows[rows] = head
        return layers + head

    def _uneven(self, tokens: int, rows: int, prompt: int) -> float:
        """`linear` of layers of which some do not run once over every token."""
        work = tokens, rows, prompt
        seconds = self._layers_by_work.get(work)
        if seconds is None:
            runs = [(kind, often * kind.count, n) for kind in self._kinds for often, n in kind.cadence.runs(*work)]
            seconds = self._layers_by_work[work] = sum(times * kind.linear(n) for kind, times, n in runs)
        return seconds

    def exchange(self, tokens: int, rows: int, prompt: int = 0) -> float:
        """What ranks send each other, and the next stage: all-reduces of the hidden state, logits, activations."""
        if not (self._reductions or self._sends):
            return 0.0
        work = tokens, rows, 0 if self._even else prompt
        seconds = self._exchange_by_work.get(work)
        if seconds is None:
            seconds = self._reduced(*work)
            seconds += self._exchange.gather(rows * self._logit_bytes) if rows and self._logit_bytes else 0.0
            seconds += self._exchange.hand_over(tokens * self._sends, self._leaves_node) if self._sends else 0.0
            self._exchange_by_work[work] = seconds
        return seconds

    def _reduced(self, tokens: int, rows: int, prompt: int) -> float:
        """All-reduces of the hidden state."""
        if not tokens:
            return 0.0
        if self._even:
            return self._reductions * self._exchange.all_reduce(tokens * self._hidden_bytes)
        seconds, layers = 0.0, 0
        for kind, each in zip(self._kinds, self._reduces, strict=True):
            layers += kind.count * each
            for often, n in kind.cadence.runs(tokens, rows, prompt):
                seconds += often * kind.count * each * self._exchange.all_reduce(n * self._hidden_bytes)
        return seconds + (self._reductions - layers) * self._exchange.all_reduce(tokens * self._hidden_bytes)

    @property
    def asks_longest(self) -> bool:
        """True if the longest of the decoding sequences matters."""
        return not self._prefetch and any(kind.asks_longest for kind in self._kinds)

    def decode(
        self, seqs: float, context: float, tokens: int, windowed: Sequence[Attended] = (), longest: float = 0.0
    ) -> float:
        """Decode attention of `seqs` sequences over `context` cached tokens in all, in a step of `tokens` tokens.

        hw_profiles.cost_models.DecodeModel per layer, cold, or with a prefetch into L2 sim.cost.l2_prefetch. `tokens`
        counts there: it sets how long the kernels take that cover the prefetch. longest: tokens of the longest
        sequence, 0 if all are alike.
        """
        if self._prefetch:
            return float(self.decode_stride(seqs, context, 1, tokens, windowed)[0])
        if self._plain is not None:
            return self._plain.decodes * self._plain.decode(seqs, context, longest)
        seconds = 0.0
        for i, kind in enumerate(self._kinds):
            place = self._places[i]
            seconds += kind.decodes * kind.decode(seqs, context if place is None else windowed[place].tokens, longest)
        return seconds

    def decode_stride(
        self,
        seqs: float,
        context: float,
        steps: int,
        tokens: int,
        windowed: Sequence[Attended] = (),
        longest: float = 0.0,
    ) -> Floats:
        """`decode` for `steps` consecutive steps in which every sequence grows by one token: float64[steps].

        Same operations in the same order as `decode`, so both give the same bits.
        """
        lengths = longest + STEPS[:steps] if longest else None
        if self._plain is not None:
            if lengths is None:
                known = self.pages.of(seqs, context, steps)
                if known is not None:
                    return known
            attended = STEPS[:steps] * seqs
            attended += context
            layers = self._plain.decode_steps(seqs, attended, lengths)
            layers *= self._plain.decodes
            return layers
        seconds: Floats | float = 0.0
        for i, (kind, place) in enumerate(zip(self._kinds, self._places, strict=True)):
            now, growing = (context, seqs) if place is None else windowed[place]
            attended = STEPS[:steps] * growing
            attended += now
            if self._prefetch:
                window = self._linear_windows(tokens)[i]
                layer = self._prefetch[i].seconds(seqs, kind.decode_bytes * attended, window)
            else:
                layer = kind.decode_steps(seqs, attended, lengths)
            seconds = seconds + kind.decodes * layer
        assert isinstance(seconds, np.ndarray)
        return seconds

    def prefill(self, chunks: Sequence[Chunk]) -> float:
        """Attention of chunks of prompts, causal: one launch per layer for all of them."""
        return sum(kind.count * kind.prefill(chunks) for kind in self._kinds)

    def mixed(
        self,
        chunks: Sequence[Chunk],
        seqs: float,
        context: float,
        tokens: int,
        windowed: Sequence[Attended] = (),
        longest: float = 0.0,
    ) -> float:
        """Attention of a step with prompt chunks beside `seqs` decoding sequences: one launch per layer for all."""
        if not seqs:
            return self.prefill(chunks)
        if self._prefetch:
            return self.prefill(chunks) + self.decode(seqs, context, tokens, windowed)
        seconds = 0.0
        for i, kind in enumerate(self._kinds):
            place = self._places[i]
            attended = context if place is None else windowed[place].tokens
            prefill = kind.prefill(chunks)
            layer = kind.together(prefill, kind.decode(seqs, attended, longest), seqs, attended)
            seconds += kind.decodes * layer
            if kind.decodes != kind.count:
                seconds += (kind.count - kind.decodes) * prefill
        return seconds

    def verify(self, load: VerifyLoad) -> Floats:
        """Decode attention of sequences with several rows each, which read their KV once: float64[steps]."""
        seconds = np.zeros(len(load.rows))
        for kind, place in zip(self._kinds, self._places, strict=True):
            attended, pairs = (load.attended, load.pairs) if place is None else load.windowed[place]
            seconds += kind.decodes * kind.verify(load.seqs, attended, pairs, load.longest)
        return seconds

    def verify_mixed(self, chunks: Sequence[Chunk], load: VerifyLoad) -> float:
        """Attention of a step with prompt chunks beside such sequences (`load` of one step, maybe of none)."""
        if not load.seqs:
            return self.prefill(chunks)
        seconds = 0.0
        for kind, place in zip(self._kinds, self._places, strict=True):
            attended, pairs = (load.attended, load.pairs) if place is None else load.windowed[place]
            verified = float(kind.verify(load.seqs, attended, pairs, load.longest)[0])
            seconds += kind.count * kind.together(kind.prefill(chunks), verified, load.seqs, float(attended[0]))
        return seconds

    def bound(
        self,
        tokens: int,
        rows: int,
        seqs: float,
        context: float,
        chunks: Sequence[Chunk],
        windowed: Sequence[Attended],
        *,
        arithmetic: bool = True,
    ) -> Bound:
        """How much of a step's kernel time waits for HBM, and how much for arithmetic; see StepCost.bound."""
        linear = self._linear_bound.of(tokens, rows, 0 if self._even else sum([n for n, _ in chunks]))
        hbm_s, compute_s = linear.hbm_s, linear.compute_s
        for i, kind in enumerate(self._kinds):
            if seqs:
                place, seconds = self._places[i], None
                attended = context if place is None else windowed[place].tokens
                if self._prefetch:
                    window, nbytes = self._linear_windows(tokens)[i], np.array([kind.decode_bytes * float(attended)])
                    seconds = float(self._prefetch[i].seconds(seqs, nbytes, window)[0])
                bound = kind.decode_bound(seqs, attended, seconds)
                hbm_s += kind.decodes * bound.hbm_s
                compute_s += kind.decodes * bound.compute_s
            if chunks:
                bound = kind.prefill_bound(chunks, arithmetic=arithmetic)
                hbm_s += kind.count * bound.hbm_s
                compute_s += kind.count * bound.compute_s
        return Bound(hbm_s, compute_s)

    def _linear_windows(self, tokens: int) -> list[Window]:
        """By kind: the linear kernels of a layer, during which the KV of the next attention can be prefetched."""
        if tokens not in self._windows_by_tokens:
            windows = [Window(kind.linear(tokens), kind.linear_bytes(tokens)) for kind in self._kinds]
            self._windows_by_tokens[tokens] = windows
        return self._windows_by_tokens[tokens]
