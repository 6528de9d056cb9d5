"""A stride: a planned run of engine steps with nothing to decide between them."""

from __future__ import annotations

import numpy as np

from sim.cost.bound import Bound
from sim.cost.interference import Interference
from sim.cost.stage import Attended
from sim.cost.step import StepCost
from sim.cost.times import StepTimes, at, total
from sim.engine.ends import Ends, ends_of
from sim.engine.members import Chunk


class Stride:
    """Steps in progress or planned: the first has begun, the rest is a plan that an outside event may cut.

    start         when the first step starts, s
    stall         seconds that the first step waited for evicted blocks to be copied away
    steps         how many
    ends          when each step ends, s; None for one step, which many of them are, and which needs no sums
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
        "_end",
        "booked",
        "charged",
        "chunks",
        "context",
        "decode_rows",
        "decode_seqs",
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
        steps: int,
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
        seconds = times.seconds
        self.start = start
        self.stall = stall
        self.steps = steps
        self.ends: Ends | None = None
        self._end = 0.0
        """End of the only step."""
        if steps == 1:
            self._end = start + at(seconds, 0)
        else:
            assert isinstance(seconds, np.ndarray)
            self.ends = ends_of(start, seconds)
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

    def end_of(self, step: int) -> float:
        """End of the step after `step` others, s."""
        return self._end if self.ends is None else self.ends.at(step)

    @property
    def end(self) -> float:
        """End of the last step, s."""
        return self._end if self.ends is None else self.ends.at(self.steps - 1)

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
        return 1 if self.ends is None else self.ends.begun(now)

    def slow_down(self, interference: Interference, cost: StepCost, now: float, steps: int) -> bool:
        """Charge the last of the first `steps` steps, which would end `now`, for the copies that ran during it, once.

        True if it goes on: all that follows is then later.
        """
        if steps == self.charged:
            return False
        self.charged = steps
        if not interference.moved(now):
            return False
        before = steps - 1
        start = self.end_of(before - 1) if before else self.start
        extra = interference.extra_s(now - start, self._bound(cost, before, interference.takes_sms))
        slowed = extra - at(self.times.launch, before)  # what waits for launches anyway hides as much
        if slowed <= 0:
            return False
        self.slowed += slowed
        if self.ends is None:
            self._end += slowed
        else:
            self.ends.postpone(before, slowed)
        return True

    def _bound(self, cost: StepCost, before: int, arithmetic: bool) -> Bound:
        """What the step after `before` others waits for: HBM, and `arithmetic` if that matters."""
        seqs, windowed = self.decode_seqs, self.windowed
        context = self.context + seqs * before
        if windowed and before:
            windowed = tuple([Attended(now + growing * before, growing) for now, growing in windowed])
        return cost.bound(self.tokens, self.rows, seqs, context, self.shapes, windowed, arithmetic=arithmetic)

    def wait_for_layers(self, end: float) -> None:
        """Let the only step end later, since layers waited for their part of a prefix."""
        self.layer_wait += end - self._end
        self._end = end

    def cut(self, now: float) -> bool:
        """Drop the steps after the one in progress at `now`; True if there were any."""
        ends = self.ends
        if ends is None:
            return False
        steps = ends.begun(now)
        if steps == self.steps:
            return False
        if steps == 1:
            self._end, self.ends = ends.at(0), None
        else:
            ends.cut(steps)
        self.steps = steps
        return True
