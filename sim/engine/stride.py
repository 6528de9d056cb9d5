"""A stride: a planned run of engine steps with nothing to decide between them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sim.cost.bound import Bound
from sim.cost.interference import Interference
from sim.cost.layer import Floats
from sim.cost.step import MAX_STRIDE, Attended, StepCost
from sim.engine.batch import Batch, Chunk
from sim.engine.decoding import DecodeGroup


@dataclass
class Stride:
    """Steps in progress or planned: the first has begun, the rest is a plan that an outside event may cut."""

    start: float
    """When the first step starts, s."""
    stall: float
    """Seconds that the first step waited for evicted blocks to be copied away."""
    ends: Floats
    """End of each step, s: float64[steps]."""
    decode_seqs: int
    context: int
    """Tokens that the decoding sequences attend in the first step."""
    windowed: tuple[Attended, ...]
    """Those that they attend in layers with a sliding window, by window."""
    chunks: list[Chunk]
    """Prefill chunks; only strides of one step have any."""
    tokens: int
    """Tokens of a step, prefill and decode."""
    rows: int
    """Those of them that are sampled."""
    linear: float
    """Seconds of matrix products and elementwise kernels, per step."""
    attention: Floats
    """Seconds of attention, float64[steps]."""
    launch: float
    """Seconds that a step waits for kernel launches."""
    booked: int = 1
    """Steps whose blocks are reserved."""
    slowed: float | None = None
    """Seconds by which copies slowed the last step, the only one that may have any; None until they are charged."""
    layer_wait: float = 0.0
    """Seconds that the only step waited for layers of a prefix on their way."""

    def begun(self, now: float) -> int:
        """Steps that have begun by `now`, the one in progress included."""
        steps = len(self.ends)
        return 1 if steps == 1 else min(int(np.searchsorted(self.ends, now, side="left")) + 1, steps)

    def slow_down(self, interference: Interference, cost: StepCost, now: float) -> bool:
        """Charge the last step, which would end `now`, for the copies that ran during it, once; True if it goes on.

        Time that the step waits for launches anyway hides as much.
        """
        if self.slowed is not None:
            return False
        self.slowed = 0.0
        if interference.quiet:
            return False
        before = len(self.ends) - 1
        start = float(self.ends[-2]) if before else self.start

        def bound() -> Bound:
            chunks = [(n, seq.computed) for seq, n in self.chunks]
            context = self.context + self.decode_seqs * before
            windowed = [Attended(now + growing * before, growing) for now, growing in self.windowed]
            return cost.bound(self.tokens, self.rows, self.decode_seqs, context, chunks, windowed)

        self.slowed = max(0.0, interference.extra_s(now, now - start, bound) - self.launch)
        self.ends[-1] += self.slowed
        return self.slowed > 0

    def cut(self, now: float) -> bool:
        """Drop the steps after the one in progress at `now`; True if there were any."""
        steps = self.begun(now)
        if steps == len(self.ends):
            return False
        self.ends = self.ends[:steps]
        return True


def plan_stride(
    batch: Batch, chunks: list[Chunk], cost: StepCost, start: float, stall: float, *, single: bool
) -> Stride:
    """The next step, or (without prefill chunks) as many equal steps as need no decision; times from `cost`.

    It starts at `start`, `stall` seconds after it was decided.

    Single steps and strides add the same numbers in the same order, so both give the same bits.
    """
    group = batch.decoding
    seqs, context, windowed = group.count, group.context, group.windowed
    if not chunks:
        steps = 1 if single else _stride_length(batch, group)
        linear = cost.linear(seqs, seqs)
        if steps == 1:  # the same sums without the cost of small arrays
            attended = cost.decode(seqs, context, windowed=windowed)
            ends, attention = np.array([start + (attended + (linear + cost.host_time_s))]), np.array([attended])
        else:
            attention = cost.decode_stride(seqs, context, steps, windowed=windowed)
            times = attention + (linear + cost.host_time_s)
            times[0] += start
            ends = np.add.accumulate(times)
        return Stride(start, stall, ends, seqs, context, windowed, chunks, seqs, seqs, linear, attention, 0.0)
    tokens = seqs + sum(n for _, n in chunks)
    rows = seqs + sum(seq.computed + n == seq.known for seq, n in chunks)
    linear = cost.linear(tokens, rows)
    attended = sum(cost.prefill(n, seq.computed) for seq, n in chunks)
    if seqs:
        attended += cost.decode(seqs, context, tokens, windowed)
    launch = max(0.0, cost.launch_floor_s - linear - attended)
    end = start + (linear + attended + launch + cost.host_time_s)
    ends, attention = np.array([end]), np.array([attended])
    return Stride(start, stall, ends, seqs, context, windowed, chunks, tokens, rows, linear, attention, launch)


def _stride_length(batch: Batch, group: DecodeGroup) -> int:
    """Steps until a sequence finishes or fills a window, or until taking memory may change the next decision."""
    cache = batch.cache
    # An eviction may start a copy that the step must wait for, or let the head of the queue in.
    blocks = cache.free_blocks if cache.evicting_copies or batch.waiting else cache.available_blocks
    steps = min(group.steps_to_finish(), MAX_STRIDE, group.steps_within(blocks))
    return max(1, int(min(steps, group.steps_as_planned())))
