"""What a replica's steps took, and what for: rows of the table of steps, totals, and the gaps between tokens."""

from __future__ import annotations

from dataclasses import dataclass

from sim.cost.step import StepCost
from sim.cost.times import total
from sim.engine.batch import Batch
from sim.engine.stride import Stride
from sim.recorder import Recorder


@dataclass(slots=True)
class ReplicaTimes:
    """Where a replica's time went, in seconds; the rest is idle."""

    compute_s: float = 0.0
    """Steps, as they would have been without copies."""
    interference_s: float = 0.0
    """What copies added to them."""
    layer_wait_s: float = 0.0
    """What steps waited for layers of a prefix on their way (layer-wise loading)."""
    kv_move_s: float = 0.0
    """What layers waited for the copies of plans within a sequence."""
    load_wait_s: float = 0.0
    """Nothing could run, but requests waited for KV to arrive."""
    store_wait_s: float = 0.0
    """A step was decided, but the memory that it needs was still being copied away."""


class Accounts:
    """Accounts of the replica `index`, to which each stride is added when its last step has ended."""

    def __init__(self, index: int, cost: StepCost, recorder: Recorder) -> None:
        self.times = ReplicaTimes()
        self.steps = 0
        self.moved_h2d = self.moved_d2h = 0.0
        """Bytes that plans within a sequence moved over the host links, all GPUs of the replica together."""
        self.extrapolated_s = 0.0
        """Of `compute_s`, that of steps outside the measured box of the profile."""
        self._index = index
        self._cost = cost
        self._recorder = recorder

    def add(self, stride: Stride, now: float, last_end: float, batch: Batch) -> None:
        """A stride has ended `now`, the step before it at `last_end`; `batch` is still what it was in the stride."""
        seqs, steps, times, ends = stride.decode_seqs - stride.padding, stride.steps, stride.times, stride.ends
        recorder, totals = self._recorder, self.times
        if seqs:
            # Every decoding sequence got its previous token when the step before this stride ended.
            first = stride.end_of(0) - last_end
            waits = batch.taken_waits()
            recorder.gap(first, seqs - len(waits))
            for wait in waits:
                recorder.gap(first + wait, 1)
            if ends is not None:
                recorder.gaps(ends.values(), seqs)
        own = stride.own_s(now)
        if self._cost.extrapolated(stride.decode_seqs, stride.context, stride.shapes):
            self.extrapolated_s += own
        linear, exchange = times.linear, times.exchange
        attention, launch, pipeline = times.attention, times.launch, times.pipeline
        works, moves = times.works, times.moves
        row = (
            self._index,
            self.steps,
            steps,
            stride.start,
            now,
            seqs,
            stride.padding,
            len(stride.chunks),
            stride.tokens - stride.decode_rows,
            stride.context,
            len(batch.running),
            batch.queue_length,
            linear * steps if isinstance(linear, float) else total(linear, steps),
            attention * steps if isinstance(attention, float) else 0.0,
            exchange * steps if isinstance(exchange, float) else total(exchange, steps),
            launch * steps if isinstance(launch, float) else total(launch, steps),
            pipeline * steps if isinstance(pipeline, float) else total(pipeline, steps),
            works * steps if isinstance(works, float) else total(works, steps),
            moves * steps if isinstance(moves, float) else total(moves, steps),
            stride.stall,
            stride.slowed,
            stride.layer_wait,
        )
        if isinstance(attention, float):
            recorder.steps.append(row)
        else:
            recorder.steps.append(row, attention if len(attention) == steps else attention[:steps])
        if self._cost.moves:
            self._count_moves(stride)
        self.steps += steps
        totals.compute_s += own
        totals.interference_s += stride.slowed
        totals.layer_wait_s += stride.layer_wait
        totals.store_wait_s += stride.stall

    def _count_moves(self, stride: Stride) -> None:
        moved = self._cost.moved(stride.decode_seqs, stride.context, stride.windowed, stride.steps, stride.shapes)
        self.moved_h2d += moved.h2d
        self.moved_d2h += moved.d2h
        self.times.kv_move_s += stride.moves_s
