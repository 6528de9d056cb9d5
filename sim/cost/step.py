"""How long an engine step takes, from the fitted kernel models of a hardware profile.

step = linear + attention + exchange + launch wait + pipeline wait + host time, where
  linear     every matrix product of every layer, the elementwise kernels between them, the output head, sampling
  attention  decode attention over the cached context, plus prefill attention of all chunks in one launch
  exchange   all-reduces and gathers of a tensor-parallel group, activations handed to the next pipeline stage
  launch     what launching the kernels one by one takes beyond that: in steps with prefill tokens, and in decode steps
             without CUDA graphs or above the largest of them
  pipeline   what a GPU waits for other stages (`sim.cost.pipeline`)

A decode step replays a CUDA graph of a captured size (`sim.cost.graphs`): its linear kernels and exchanges run over the
padded rows too. Attention, which has nothing to read for them, and the output head, whose rows are chosen outside of
the graph, do not. Steps with prompts are not padded.

Decode attention is charged cold: between two uses of a line of KV every weight of the model passes through L2
(public tables that repeat one buffer are L2-warm, and must not be used for small contexts). The one exception is KV
that was prefetched into L2 (`sim.cost.l2_prefetch`), so the size of L2 matters only with a prefetch.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hw_profiles.models import ModelSpec
from hw_profiles.profile import Profile
from sim.cost.bound import Bound
from sim.cost.graphs import Graphs
from sim.cost.interference import InterferenceModel
from sim.cost.kernels import Kernels
from sim.cost.kv import kv_layout
from sim.cost.layer import Chunk, Floats
from sim.cost.parallel import Parallel
from sim.cost.pipeline import Pipeline
from sim.cost.stage import Attended, StageCost
from sim.cost.sums import NOT_MOVED, Moved, Terms
from sim.cost.times import StepTimes

ONE_GPU = Parallel()
EAGER_LAUNCH_S = 25e-6
"""Host time per kernel of a model that PyTorch dispatches from Python. Estimate: one decode step of Llama-3.1-8B on an
H100 takes 8.4 ms eager (cloudai.pt, "CUDA Graphs + torch.compile"), for some 325 kernels; slow hosts take several times
as long."""


class StepCost:
    """Step times of a model on a profile, in seconds.

    host_time_s         added to every step
    l2_prefetch_bytes   KV bytes per layer that are prefetched into L2; 0: none. Raises InputError if the profile does
                        not say how its L2 behaves
    parallel            how the GPUs of a replica share the model
    expert_skew         Zipf exponent of the popularity of experts, 0: uniform (`sim.cost.experts`)
    graphs              decode steps replay CUDA graphs; False: there are none
    eager_launch_s      time to launch a kernel without graphs (see EAGER_LAUNCH_S): of any step if there are none, of
                        decode steps above the largest if there are
    graph_sizes         decode batches that graphs are captured of, ascending; None: of every size
    graph_padding       batches between two of them are padded to the larger; False: they run without a graph
    attention_share     of the HBM's rate that decode attention reads at; None: the profile's kernel
    launches_per_layer  kernels that Python dispatches per layer without graphs; None: those of the model

    `windows` lists the sliding windows of the model's layers; what charges decode attention takes one `Attended` for
    each, in this order, beside the tokens of layers that attend everything.
    """

    def __init__(
        self,
        model: ModelSpec,
        profile: Profile,
        host_time_s: float = 0.0,
        l2_prefetch_bytes: int = 0,
        *,
        parallel: Parallel = ONE_GPU,
        expert_skew: float = 0.0,
        graphs: bool = True,
        eager_launch_s: float = EAGER_LAUNCH_S,
        graph_sizes: Sequence[int] | None = None,
        graph_padding: bool = True,
        attention_share: float | None = None,
        launches_per_layer: int | None = None,
    ) -> None:
        parallel.check()
        self.windows = tuple(sorted({spec.window for spec in model.specs if spec.window is not None}))
        self.kernels = Kernels(profile, attention_share)
        self.stages = [
            StageCost(
                model,
                stage,
                self.kernels,
                parallel,
                self.windows,
                l2_prefetch_bytes=l2_prefetch_bytes,
                expert_skew=expert_skew,
                leaves_node=parallel.leaves_node(i),
                eager_launch_s=eager_launch_s,
                graphs=graphs,
                launches_per_layer=launches_per_layer,
            )
            for i, stage in enumerate(model.stages(parallel.pp))
        ]
        self._only = self.stages[0] if parallel.pp == 1 else None
        self.asks_longest = any(stage.asks_longest for stage in self.stages)
        """True if the longest of the decoding sequences matters."""
        self.host_time_s = host_time_s
        self.layers = -(-model.layers // parallel.pp)
        """On a GPU, the most of any."""
        self._graphs = Graphs(graph_sizes, padding=graph_padding) if graphs else None
        self._fixed_by_seqs: dict[int, tuple[bool, int, float, float, float]] = {}
        self._pipeline = Pipeline(self.stages, self._graphs)
        box = profile.validity
        self._decode_box = (*box.batch, *box.seq)
        self._prefill_box = (*box.prefill, *box.prefix)
        self.interference = InterferenceModel.of(profile, kv_layout(model, parallel).lanes)
        """What copies cost kernels; None if the profile does not say."""

    prompts: tuple[int | None, ...] = ()
    """Limits of the sums of prompts that plans within a sequence need (`sim.cost.planned`)."""
    moves = False
    """Steps themselves move KV over the host links."""
    tokens_per_step = 1.0
    """Tokens that a decode step makes of each sequence, expected."""

    def alike(self, seqs: float, context: float, prompt: float) -> list[Attended]:
        """What `seqs` sequences attend in layers of each window, and their sums of prompts, if all are alike."""
        return Terms(self.windows, self.prompts).alike(seqs, context, prompt)

    def moved(
        self, seqs: int, context: int, windowed: Sequence[Attended], steps: int, chunks: Sequence[Chunk] = ()
    ) -> Moved:
        """Bytes that the steps themselves move over the host links: none without plans within a sequence."""
        return NOT_MOVED

    # ---- whole steps

    def decode_steps(
        self, seqs: int, context: int, windowed: Sequence[Attended], steps: int, longest: int = 0
    ) -> StepTimes:
        """`steps` steps in which each of `seqs` sequences decodes one token, after `context` tokens in all at first.

        longest: tokens of the longest of them at first; 0: all are alike. One step gives the same bits as the first of
        many.
        """
        stage = self._only
        if stage is None:
            times = self._pipeline.decode_steps(seqs, context, windowed, steps, longest)
            times.seconds = times.seconds + self.host_time_s
            return times
        known = self._fixed_by_seqs.get(seqs)
        if known is None:
            known = self._fixed_by_seqs[seqs] = self._fixed(stage, seqs)
        replayed, rows, linear, exchange, fixed = known
        if steps == 1:
            attended = stage.decode(seqs, context, rows, windowed, longest)
            if replayed:
                return StepTimes(attended + fixed, linear, attended, exchange)
            wait = max(0.0, stage.eager_floor_s - (linear + exchange) - attended)
            return StepTimes(attended + fixed + wait, linear, attended, exchange, wait)
        if replayed and not longest:
            remembered = stage.pages.steps_of(seqs, context, steps, fixed)
            if remembered is not None:
                return StepTimes(remembered[0], linear, remembered[1], exchange)
        attention = stage.decode_stride(seqs, context, steps, rows, windowed, longest)
        if replayed:
            return StepTimes(attention + fixed, linear, attention, exchange)
        waits = np.maximum(0.0, stage.eager_floor_s - (linear + exchange) - attention)
        return StepTimes(attention + fixed + waits, linear, attention, exchange, waits)

    def mixed_step(
        self,
        seqs: int,
        context: int,
        windowed: Sequence[Attended],
        chunks: Sequence[Chunk],
        tokens: int,
        rows: int,
        *,
        longest: int = 0,
        flowing: bool = False,
        ended: Sequence[int] = (),
    ) -> StepTimes:
        """One step with prefill `chunks`, beside `seqs` decoding sequences: `tokens` in all, `rows` of them sampled.

        longest: as in `decode_steps`. flowing: a step with chunks has ended just now, so the stages of a pipeline are
        full of them. ended: lengths of the prompts that it completes (`sim.cost.planned` alone asks).
        """
        stage = self._only
        if stage is None:
            times = self._pipeline.mixed_step(seqs, context, windowed, chunks, rows, longest, flowing)
            times.seconds = times.seconds + self.host_time_s
            return times
        prompt = sum([new for new, _ in chunks])
        linear, exchange = stage.linear(tokens, rows, prompt), stage.exchange(tokens, rows, prompt)
        attended = stage.mixed(chunks, seqs, context, tokens, windowed, longest)
        launch = max(0.0, stage.launch_floor_s - linear - exchange - attended)
        return StepTimes(linear + attended + exchange + launch + self.host_time_s, linear, attended, exchange, launch)

    def _fixed(self, stage: StageCost, seqs: int) -> tuple[bool, int, float, float, float]:
        """What decode steps of `seqs` sequences have in common: whether a graph is replayed, its rows, the times of
        linear kernels and exchanges, and those with the host's."""
        replayed = self._graphs.rows(seqs) if self._graphs else None
        rows = replayed or seqs
        linear, exchange = stage.linear(rows, seqs), stage.exchange(rows, seqs)
        return bool(replayed), rows, linear, exchange, linear + exchange + self.host_time_s

    def decode_rows(self, seqs: int) -> int:
        """Rows that the linear kernels of a decode step run over."""
        return (self._graphs.rows(seqs) if self._graphs else None) or seqs

    def replays(self, seqs: int) -> bool:
        """True if a decode step of `seqs` rows replays a graph."""
        return self._graphs is not None and bool(self._graphs.rows(seqs))

    def recompute_s(self, tokens: int, prefix: int) -> float:
        """Time to compute `tokens` tokens of a prompt after `prefix` cached ones, in a step of their own."""
        chunks = [(tokens, prefix)]
        work = tokens, 0, tokens
        return sum(s.linear(*work) + s.exchange(*work) + s.prefill(chunks) for s in self.stages)

    # ---- parts of a step, over all stages

    def linear(self, tokens: int, rows: int) -> float:
        """Matrix products and elementwise kernels of a step of `tokens` tokens, `rows` of which are sampled."""
        return sum(stage.linear(tokens, rows) for stage in self.stages)

    def exchange(self, tokens: int, rows: int) -> float:
        """What the GPUs of the replica send each other in such a step."""
        return sum(stage.exchange(tokens, rows) for stage in self.stages)

    def decode(self, seqs: int, context: int, tokens: int | None = None, windowed: Sequence[Attended] = ()) -> float:
        """Decode attention of `seqs` sequences over `context` cached tokens in all, in a step of `tokens` tokens.

        `tokens` (by default `seqs`) matters for a prefetch into L2: it sets how long the kernels take that cover it.
        """
        tokens = seqs if tokens is None else tokens
        return sum(stage.decode(seqs, context, tokens, windowed) for stage in self.stages)

    def decode_stride(
        self, seqs: int, context: int, steps: int, tokens: int | None = None, windowed: Sequence[Attended] = ()
    ) -> Floats:
        """`decode` for `steps` consecutive steps in which every sequence grows by one token: float64[steps]."""
        tokens = seqs if tokens is None else tokens
        times = [stage.decode_stride(seqs, context, steps, tokens, windowed) for stage in self.stages]
        return times[0] if len(times) == 1 else np.add.reduce(times)

    def prefill(self, chunks: Sequence[Chunk]) -> float:
        """Attention of chunks (new tokens, cached tokens before them) of prompts, causal."""
        return sum(stage.prefill(chunks) for stage in self.stages)

    def bound(
        self,
        tokens: int,
        rows: int,
        seqs: int,
        context: int,
        chunks: Sequence[Chunk],
        windowed: Sequence[Attended] = (),
        *,
        arithmetic: bool = True,
    ) -> Bound:
        """How much of a step's kernel time on a GPU waits for HBM, and (with `arithmetic`) how much for arithmetic.

        tokens, rows as in `linear`; seqs, context, windowed as in `decode`; chunks: (tokens, prefix) of each prefill.
        Matrix products split by `gemm_bound`; elementwise kernels and what decode attention reads are HBM time, the
        work of prefill attention is compute time. In a pipeline: the average stage, with its micro-batches as one.
        """
        if tokens == seqs:
            tokens = self.decode_rows(seqs)
        if self._only is not None:
            return self._only.bound(tokens, rows, seqs, context, chunks, windowed, arithmetic=arithmetic)
        work = tokens, rows, seqs, context, chunks, windowed
        bounds = [stage.bound(*work, arithmetic=arithmetic) for stage in self.stages]
        return Bound(sum(b.hbm_s for b in bounds), sum(b.compute_s for b in bounds)).times(1 / len(bounds))

    def extrapolated(self, seqs: int, context: int, chunks: Sequence[Chunk]) -> bool:
        """True when any part of a step lies outside the profile's measured box.

        seqs, context: decoding sequences and the tokens that they attend; chunks: (tokens, prefix) of each prefill.
        """
        low, high, least, most = self._decode_box
        if seqs and not (low <= seqs <= high and least <= context / seqs <= most):
            return True
        if chunks:
            low, high, least, most = self._prefill_box
            for n, prefix in chunks:
                if not (low <= n <= high and least <= prefix <= most):
                    return True
        return False
