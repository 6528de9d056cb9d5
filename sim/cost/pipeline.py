"""Steps of a pipeline of p stages.

Decoding sequences are spread over M = min(p, sequences) micro-batches, which are in flight together; prefill chunks are
in one of them. With t_s and u_s the times of stage s for a micro-batch without and with the chunks, one token for every
sequence takes

    max( max_s (u_s + (M - 1) t_s),  sum_s u_s )        without chunks u_s = t_s

that is the busy time of the slowest stage, or the way through all stages if that is longer; where chunks follow chunks
without a gap the second term is left out, since the next one is in the first stage while this one goes on. So decoding
has no bubble once there are p sequences, and a lone prompt of k chunks takes sum_s u_s + (k - 1) max_s u_s. SOURCE of
the schedule: vLLM keeps as many batches in flight as there are stages (vllm/v1/engine/core.py, step_with_batch_queue;
RFC vllm-project/vllm#11945); that batches are balanced is an idealisation.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sim.cost.graphs import Graphs
from sim.cost.layer import Chunk, Floats
from sim.cost.stage import Attended, StageCost
from sim.cost.times import StepTimes


class Pipeline:
    """The stages of a replica. `graphs`: decode-only micro-batches replay CUDA graphs; None: there are none.

    Parts of the times are those of the average stage; what it waits for the others is `pipeline`.
    """

    def __init__(self, stages: Sequence[StageCost], graphs: Graphs | None) -> None:
        self._stages = stages
        self._graphs = graphs

    def decode_steps(
        self, seqs: int, context: int, windowed: Sequence[Attended], steps: int, longest: int
    ) -> StepTimes:
        """As StepCost.decode_steps, without host time."""
        batches, parts = self._decoding(seqs, context, windowed, steps, longest)
        each = parts.sum(axis=1)
        whole = np.maximum(batches * each.max(axis=0), each.sum(axis=0))
        linear, attention, exchange, launch = batches * parts.mean(axis=0)
        wait = np.maximum(0.0, whole - (linear + attention + exchange + launch))
        return StepTimes(whole, float(linear[0]), attention, float(exchange[0]), launch, wait)

    def mixed_step(
        self,
        seqs: int,
        context: int,
        windowed: Sequence[Attended],
        chunks: Sequence[Chunk],
        rows: int,
        longest: int,
        flowing: bool,
    ) -> StepTimes:
        """As StepCost.mixed_step, without host time."""
        size, sampled, new = 0, rows - seqs, sum(n for n, _ in chunks)
        others = np.zeros((len(self._stages), 4))
        if seqs:
            batches, plain = self._decoding(seqs, context, windowed, 1, longest)
            size = -(-seqs // batches)
            others = (batches - 1) * plain[:, :, 0]
        share = size / seqs if seqs else 0.0
        part = _share(windowed, share)
        full = np.zeros_like(others)
        for i, stage in enumerate(self._stages):
            attention = stage.mixed(chunks, size, context * share, size + new, part, longest)
            full[i, :3] = (
                stage.linear(size + new, size + sampled),
                attention,
                stage.exchange(size + new, size + sampled),
            )
            full[i, 3] = max(0.0, stage.launch_floor_s - full[i].sum())
        busy, way = float((full + others).sum(axis=1).max()), float(full.sum())
        whole = busy if flowing else max(busy, way)
        linear, attention, exchange, launch = (float(part) for part in (full + others).mean(axis=0))
        wait = max(0.0, whole - (linear + attention + exchange + launch))
        return StepTimes(whole, linear, attention, exchange, launch, wait)

    def _decoding(
        self, seqs: int, context: int, windowed: Sequence[Attended], steps: int, longest: int
    ) -> tuple[int, Floats]:
        """How many micro-batches, and one's (linear, attention, exchange, launch): float64[stages, 4, steps]."""
        batches = min(len(self._stages), seqs)
        size = -(-seqs // batches)
        share = size / seqs
        part = _share(windowed, share)
        replayed = self._graphs.rows(size) if self._graphs else None
        rows = replayed or size
        parts = np.zeros((len(self._stages), 4, steps))
        for i, stage in enumerate(self._stages):
            parts[i, 0] = stage.linear(rows, size)
            parts[i, 1] = stage.decode_stride(size, context * share, steps, rows, part, longest)
            parts[i, 2] = stage.exchange(rows, size)
            if not replayed:
                parts[i, 3] = np.maximum(0.0, stage.eager_floor_s - parts[i].sum(axis=0))
        return batches, parts


def _share(windowed: Sequence[Attended], share: float) -> list[Attended]:
    return [Attended(now * share, growing * share) for now, growing in windowed]
