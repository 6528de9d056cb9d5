"""How long an engine step takes, from the fitted kernel models of a hardware profile.

step = linear + attention + exchange + launch wait + pipeline wait + host time, where
  linear     every matrix product of every layer, the elementwise kernels between them, the output head, sampling
  attention  decode attention over the cached context, plus prefill attention of all chunks in one launch
  exchange   all-reduces and gathers of a tensor-parallel group, activations handed to the next pipeline stage
  launch     what launching the kernels one by one takes beyond that: in steps with prefill tokens, and without CUDA
             graphs in decode steps too
  pipeline   what a GPU waits for other stages (below)

Decode attention is charged cold: between two uses of a line of KV every weight of the model passes through L2
(public tables that repeat one buffer are L2-warm, and must not be used for small contexts). The one exception is KV
that was prefetched into L2 (`sim.cost.l2_prefetch`), so the size of L2 matters only with a prefetch.

Pipeline of p stages. Decoding sequences are spread over M = min(p, sequences) micro-batches, which are in flight
together; prefill chunks are in one of them. With t_s and u_s the times of stage s for a micro-batch without and with
the chunks, one token for every sequence takes

    max( max_s (u_s + (M - 1) t_s),  sum_s u_s )        without chunks u_s = t_s

that is the busy time of the slowest stage, or the way through all stages if that is longer; where chunks follow chunks
without a gap the second term is left out, since the next one is in the first stage while this one goes on. So decoding
has no bubble once there are p sequences, and a lone prompt of k chunks takes sum_s u_s + (k - 1) max_s u_s. SOURCE of
the schedule: vLLM keeps as many batches in flight as there are stages (vllm/v1/engine/core.py, step_with_batch_queue;
RFC vllm-project/vllm#11945); that batches are balanced is an idealisation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from hw_profiles.models import ModelSpec
from hw_profiles.profile import Profile
from sim.cost.bound import Bound
from sim.cost.interference import InterferenceModel
from sim.cost.kernels import Kernels
from sim.cost.layer import Chunk, Floats
from sim.cost.parallel import Parallel
from sim.cost.stage import Attended, StageCost

ONE_GPU = Parallel()
EAGER_LAUNCH_S = 25e-6
"""Host time per kernel of a model that PyTorch dispatches from Python. Estimate: one decode step of Llama-3.1-8B on an
H100 takes 8.4 ms eager (cloudai.pt, "CUDA Graphs + torch.compile"), for some 325 kernels; slow hosts take several times
as long."""


Seconds = float | Floats
"""The same for every step of a stride (or of the only one), or float64[steps]."""


class StepTimes(NamedTuple):
    """What each step takes, and what that is made of, in seconds."""

    seconds: Seconds
    linear: float
    attention: Seconds
    exchange: float
    launch: Seconds = 0.0
    pipeline: Seconds = 0.0


def at(seconds: Seconds, step: int) -> float:
    """The seconds of one step."""
    return seconds if isinstance(seconds, float) else float(seconds[step])


def total(seconds: Seconds, steps: int) -> float:
    """Sum over the first `steps` steps."""
    if isinstance(seconds, float):
        return seconds * steps
    return float(np.add.reduce(seconds[:steps])) if steps > 1 else float(seconds[0])


class StepCost:
    """Step times of a model on a profile, in seconds.

    host_time_s         added to every step
    l2_prefetch_bytes   KV bytes per layer that are prefetched into L2; 0: none. Raises InputError if the profile does
                        not say how its L2 behaves
    parallel            how the GPUs of a replica share the model
    expert_skew         Zipf exponent of the popularity of experts, 0: uniform (`sim.cost.experts`)
    eager_launch_s      None: decode steps replay CUDA graphs. Else there are none, and each kernel of any step takes so
                        long to launch (see EAGER_LAUNCH_S)

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
        eager_launch_s: float | None = None,
    ) -> None:
        parallel.check()
        self.windows = tuple(sorted({spec.window for spec in model.specs if spec.window is not None}))
        self.kernels = Kernels(profile)
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
                launch_s=eager_launch_s,
            )
            for i, stage in enumerate(model.stages(parallel.pp))
        ]
        self._only = self.stages[0] if parallel.pp == 1 else None
        self.asks_longest = any(stage.asks_longest for stage in self.stages)
        """True if the longest of the decoding sequences matters."""
        self.host_time_s = host_time_s
        self.layers = model.layers
        self._graphs = eager_launch_s is None
        self._validity = profile.validity
        self.interference = InterferenceModel.of(profile, parallel.lanes(model))
        """What copies cost kernels; None if the profile does not say."""

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
            return self._pipelined_decode(seqs, context, windowed, steps, longest)
        linear, exchange = stage.linear(seqs, seqs), stage.exchange(seqs, seqs)
        fixed = linear + exchange + self.host_time_s
        if steps == 1:
            attended = stage.decode(seqs, context, seqs, windowed, longest)
            if self._graphs:
                return StepTimes(attended + fixed, linear, attended, exchange)
            wait = max(0.0, stage.launch_floor_s - (linear + exchange) - attended)
            return StepTimes(attended + fixed + wait, linear, attended, exchange, wait)
        attention = stage.decode_stride(seqs, context, steps, seqs, windowed, longest)
        if self._graphs:
            return StepTimes(attention + fixed, linear, attention, exchange)
        waits = np.maximum(0.0, stage.launch_floor_s - (linear + exchange) - attention)
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
    ) -> StepTimes:
        """One step with prefill `chunks`, beside `seqs` decoding sequences: `tokens` in all, `rows` of them sampled.

        longest: as in `decode_steps`. flowing: a step with chunks has ended just now, so the stages of a pipeline are
        full of them.
        """
        stage = self._only
        if stage is None:
            return self._pipelined_mixed(seqs, context, windowed, chunks, rows, longest, flowing)
        linear, exchange = stage.linear(tokens, rows), stage.exchange(tokens, rows)
        attended = stage.mixed(chunks, seqs, context, tokens, windowed, longest)
        launch = max(0.0, stage.launch_floor_s - linear - exchange - attended)
        return StepTimes(linear + attended + exchange + launch + self.host_time_s, linear, attended, exchange, launch)

    def recompute_s(self, tokens: int, prefix: int) -> float:
        """Time to compute `tokens` tokens of a prompt after `prefix` cached ones, in a step of their own."""
        chunks = [(tokens, prefix)]
        return sum(s.linear(tokens, 0) + s.exchange(tokens, 0) + s.prefill(chunks) for s in self.stages)

    def _pipelined_decode(
        self, seqs: int, context: int, windowed: Sequence[Attended], steps: int, longest: int
    ) -> StepTimes:
        batches = min(len(self.stages), seqs)
        size = -(-seqs // batches)
        share = size / seqs
        part = [Attended(now * share, growing * share) for now, growing in windowed]
        linear = [stage.linear(size, size) for stage in self.stages]
        exchange = [stage.exchange(size, size) for stage in self.stages]
        attention = [stage.decode_stride(size, context * share, steps, size, part, longest) for stage in self.stages]
        launch = [
            np.zeros(steps)
            if self._graphs
            else np.maximum(0.0, stage.launch_floor_s - (linear[i] + exchange[i]) - attention[i])
            for i, stage in enumerate(self.stages)
        ]
        each = [linear[i] + exchange[i] + attention[i] + launch[i] for i in range(len(self.stages))]
        whole = np.maximum(batches * np.max(each, axis=0), np.sum(each, axis=0))
        mean = batches / len(self.stages)  # parts are those of the average stage; it waits for the rest
        parts = (
            mean * sum(linear),
            mean * np.sum(attention, axis=0),
            mean * sum(exchange),
            mean * np.sum(launch, axis=0),
        )
        return StepTimes(whole + self.host_time_s, *parts, np.maximum(0.0, whole - sum(parts)))

    def _pipelined_mixed(
        self,
        seqs: int,
        context: int,
        windowed: Sequence[Attended],
        chunks: Sequence[Chunk],
        rows: int,
        longest: int,
        flowing: bool,
    ) -> StepTimes:
        stages = self.stages
        batches = min(len(stages), max(1, seqs))
        size = -(-seqs // batches)
        share = size / seqs if seqs else 0.0
        part = [Attended(now * share, growing * share) for now, growing in windowed]
        new, sampled = sum(n for n, _ in chunks), rows - seqs
        parts = np.zeros(4)  # linear, attention, exchange, launch: sums over stages and micro-batches
        busy, way = 0.0, 0.0
        for stage in stages:
            attention = stage.decode(size, context * share, size, part, longest) if seqs else 0.0
            plain = np.array([stage.linear(size, size), attention, stage.exchange(size, size), 0.0])
            full = np.array(
                [
                    stage.linear(size + new, size + sampled),
                    stage.mixed(chunks, size, context * share, size + new, part, longest),
                    stage.exchange(size + new, size + sampled),
                    0.0,
                ]
            )
            full[3] = max(0.0, stage.launch_floor_s - float(full.sum()))
            others = (batches - 1) * plain
            parts += full + others
            busy = max(busy, float((full + others).sum()))
            way += float(full.sum())
        linear, attended, exchange, launch = (float(x) / len(stages) for x in parts)
        whole = busy if flowing else max(busy, way)
        wait = max(0.0, whole - (linear + attended + exchange + launch))
        return StepTimes(whole + self.host_time_s, linear, attended, exchange, launch, wait)

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
    ) -> Bound:
        """How much of a step's kernel time on a GPU waits for HBM, and how much for arithmetic.

        tokens, rows as in `linear`; seqs, context, windowed as in `decode`; chunks: (tokens, prefix) of each prefill.
        Matrix products split by `gemm_bound`; elementwise kernels and what decode attention reads are HBM time, the
        work of prefill attention is compute time. In a pipeline: the average stage, with its micro-batches as one.
        """
        bounds = [stage.bound(tokens, rows, seqs, context, chunks, windowed) for stage in self.stages]
        if len(bounds) == 1:
            return bounds[0]
        return Bound(sum(b.hbm_s for b in bounds), sum(b.compute_s for b in bounds)).times(1 / len(bounds))

    def extrapolated(self, seqs: int, context: int, chunks: Sequence[Chunk]) -> bool:
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
