"""How many steps a stride has, and what they take."""

from __future__ import annotations

from sim.cost.stage import MAX_STRIDE, Attended
from sim.cost.step import StepCost
from sim.engine.batch import Batch
from sim.engine.decoding import DecodeGroup
from sim.engine.members import Chunk
from sim.engine.stride import Stride


def plan_stride(
    batch: Batch, chunks: list[Chunk], cost: StepCost, start: float, stall: float, *, single: bool, flowing: bool
) -> Stride:
    """The next step, or (without prefill chunks) as many equal steps as need no decision; times from `cost`.

    It starts at `start`, `stall` seconds after it was decided. flowing: right after a step with prefill chunks.

    Single steps and strides add the same numbers in the same order, so both give the same bits.
    """
    group = batch.decoding
    seqs, context, windowed, longest = group.count, group.context, group.windowed, group.longest
    if batch.paused:
        seqs, context, windowed, longest = 0, 0, tuple(Attended(0, 0) for _ in windowed), 0
    padding = batch.padding
    if not chunks:
        steps = 1 if single else stride_length(batch, group)
        times = cost.decode_steps(seqs, context, windowed, steps, group.longest)
        return Stride(start, stall, steps, seqs, context, windowed, chunks, [], seqs, seqs, times, padding)
    tokens = rows = seqs
    shapes, ended = [], []
    for seq, n in chunks:
        tokens += n
        if seq.computed + n == seq.known:
            rows += 1
            ended.append(seq.known)
        shapes.append((n, seq.computed))
    times = cost.mixed_step(
        seqs, context, windowed, shapes, tokens, rows, longest=longest, flowing=flowing, ended=ended
    )
    return Stride(start, stall, 1, seqs, context, windowed, chunks, shapes, tokens, rows, times, padding)


def stride_length(batch: Batch, group: DecodeGroup) -> int:
    """Steps until a sequence finishes or fills a window, or until taking memory may change the next decision."""
    cache = batch.cache
    hbm = cache.hbm
    # An eviction may start a copy that the step must wait for, or let the head of the queue in.
    asked = batch.waiting or (batch.reception is not None and batch.reception.asking)
    taken = hbm.used if cache.evicting_copies or asked else hbm.pinned
    steps = min(group.steps_to_finish(), MAX_STRIDE)
    steps = group.steps_within((hbm.capacity - taken - hbm.reserved) // cache.block_bytes, steps)
    if group.windows or group.growth is not None:
        steps = int(min(steps, group.steps_as_planned()))
    return max(1, steps)
