"""A stride: a planned run of engine steps with nothing to decide between them."""

from __future__ import annotations

from functools import partial

import numpy as np

from sim.cost.bound import Bound
from sim.cost.interference import Interference
from sim.cost.layer import Floats
from sim.cost.stage import MAX_STRIDE, Attended
from sim.cost.step import StepCost
from sim.cost.times import StepTimes, at, total
from sim.engine.batch import Batch, Chunk
from sim.engine.decoding import DecodeGroup


class Stride:
    """Steps in progress or planned: the first has begun, the rest is a plan that an outside event may cut.

    start         when the first step starts, s
    stall         seconds that the first step waited for evicted blocks to be copied away
    end           end of the last step, s
    steps         how many
    ends          end of each step, s: float64[steps]; None for one step, which is most of them and needs no array
    decode_seqs   sequences that decode
    decode_rows   their tokens in the first step
    context       tokens that these attend in the first step
    windowed      those that they attend in layers with a sliding window, by window
    chunks        prefill chunks; only strides of one step have any
    shapes        new tokens of each of them, and the cached tokens before those
    tokens, rows  tokens of a step, prefill and decode; those of them that are sampled
    times         what the planned steps take by themselves, and its parts; of steps that were cut too
    padding       those of the decoding sequences that have ended: rows of a static batch
    booked        steps whose blocks are reserved
    slowed        seconds by which copies slowed the steps
    charged       steps, from the first on, that have been charged for copies beside them
    layer_wait    seconds that the only step waited for layers of a prefix on their way
    """

    __slots__ = (
        "booked",
        "charged",
        "chunks",
        "context",
        "decode_rows",
        "decode_seqs",
        "end",
        "ends",
        "layer_wait",
        "padding",
        "rows",
        "shapes",
        "slowed",
        "stall",
        "start",
        "steps",
        "times",
        "tokens",
        "windowed",
    )

    def __init__(
        self,
        start: float,
        stall: float,
        end: float,
        steps: int,
        ends: Floats | None,
        decode_seqs: int,
        context: int,
        windowed: tuple[Attended, ...],
        chunks: list[Chunk],
        shapes: list[tuple[int, int]],
        tokens: int,
        rows: int,
        times: StepTimes,
        padding: int = 0,
    ) -> None:
        self.start = start
        self.stall = stall
        self.end = end
        self.steps = steps
        self.ends = ends
        self.decode_seqs = self.decode_rows = decode_seqs
        self.context = context
        self.windowed = windowed
        self.chunks = chunks
        self.shapes = shapes
        self.tokens = tokens
        self.rows = rows
        self.times = times
        self.padding = padding
        self.booked = 1 if decode_seqs else 0
        self.charged = 0
        self.slowed = self.layer_wait = 0.0

    @property
    def first_end(self) -> float:
        """End of the first step, s."""
        return self.end if self.ends is None else float(self.ends[0])

    def own_s(self, end: float) -> float:
        """Seconds of its steps, which end at `end`, as they would have been without copies of any kind."""
        own, moves = end - self.start - self.slowed - self.layer_wait, self.times.moves
        return own - (moves * self.steps if isinstance(moves, float) else total(moves, self.steps))

    @property
    def moves_s(self) -> float:
        """Seconds that the steps waited for the copies of plans within a sequence."""
        return total(self.times.moves, self.steps)

    def begun(self, now: float) -> int:
        """Steps that have begun by `now`, the one in progress included."""
        return 1 if self.ends is None else min(int(self.ends.searchsorted(now)) + 1, self.steps)

    def slow_down(self, interference: Interference, cost: StepCost, now: float, steps: int) -> bool:
        """Charge the last of the first `steps` steps, which would end `now`, for the copies that ran during it, once.

        True if it goes on: all that follows is then later. Time that the step waits for launches anyway hides as much.
        """
        if steps == self.charged:
            return False
        self.charged = steps
        before = steps - 1
        start = self.start if self.ends is None or not before else float(self.ends[before - 1])
        extra = interference.extra_s(now, now - start, partial(self._bound, cost, before, interference.takes_sms))
        slowed = max(0.0, extra - at(self.times.launch, before))
        self.slowed += slowed
        self._postpone(before, slowed)
        return slowed > 0

    def _bound(self, cost: StepCost, before: int, arithmetic: bool) -> Bound:
        """What the step after `before` others waits for: HBM, and `arithmetic` if that matters."""
        seqs = self.decode_seqs
        context = self.context + seqs * before
        windowed = [Attended(now + growing * before, growing) for now, growing in self.windowed]
        return cost.bound(self.tokens, self.rows, seqs, context, self.shapes, windowed, arithmetic=arithmetic)

    def _postpone(self, before: int, seconds: float) -> None:
        """Let the step after `before` others end later; the ends of those after it are the same sums from there on."""
        if self.ends is None:
            self.end += seconds
        elif seconds:
            ends = self.ends[before:]
            end = float(ends[0]) + seconds
            if len(ends) > 1:
                assert isinstance(self.times.seconds, np.ndarray)
                ends[1:] = self.times.seconds[before + 1 : self.steps]
            ends[0] = end
            np.add.accumulate(ends, out=ends)
            self.end = float(ends[-1])

    def wait_for_layers(self, end: float) -> None:
        """Let the only step end later, since layers waited for their part of a prefix."""
        self.layer_wait += end - self.end
        self.end = end

    def cut(self, now: float) -> bool:
        """Drop the steps after the one in progress at `now`; True if there were any."""
        steps = self.begun(now)
        if self.ends is None or steps == self.steps:
            return False
        self.end = float(self.ends[steps - 1])
        self.ends = self.ends[:steps] if steps > 1 else None
        self.steps = steps
        return True


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
    ends = None
    if not chunks:
        steps = 1 if single else stride_length(batch, group)
        times = cost.decode_steps(seqs, context, windowed, steps, group.longest)
        if steps == 1 or isinstance(times.seconds, float):
            end = start + at(times.seconds, 0)
        else:
            ends = times.seconds.copy()
            ends[0] += start
            np.add.accumulate(ends, out=ends)
            end = float(ends[-1])
        return Stride(
            start, stall, end, steps, ends, seqs, context, windowed, chunks, [], seqs, seqs, times, batch.padding
        )
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
    end = start + at(times.seconds, 0)
    return Stride(
        start, stall, end, 1, None, seqs, context, windowed, chunks, shapes, tokens, rows, times, batch.padding
    )


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
