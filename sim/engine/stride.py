"""A stride: a planned run of engine steps with nothing to decide between them."""

from __future__ import annotations

from typing import Final

import numpy as np

from sim.cost.bound import Bound
from sim.cost.interference import Interference
from sim.cost.layer import Floats
from sim.cost.stage import Attended
from sim.cost.step import StepCost
from sim.cost.times import StepTimes, at, total
from sim.engine.batch import Chunk

_accumulate: Final = np.add.accumulate


class Stride:
    """Steps in progress or planned: the first has begun, the rest is a plan that an outside event may cut.

    start         when the first step starts, s
    stall         seconds that the first step waited for evicted blocks to be copied away
    steps         how many
    ends          end of each step, s: float64[steps], as far as somebody has asked (`end_of`), and of the steps after
                  those what they take; None for one step, which is most of them and needs no array
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
        "_summed",
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
        self.ends: Floats | None = None
        self._summed = 1
        """So many of `ends` are ends."""
        self._end = start + at(seconds, 0)
        """End of the only step."""
        if steps > 1:
            assert isinstance(seconds, np.ndarray)
            ends = self.ends = seconds.copy()
            ends[0] = self._end
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
        ends = self.ends
        if ends is None:
            return self._end
        summed = self._summed
        if step > summed:
            self._sum_up(ends)
        elif step == summed:
            end: float = ends.item(step - 1) + ends.item(step)
            ends[step] = end
            self._summed = summed + 1
            return end
        known: float = ends.item(step)
        return known

    @property
    def end(self) -> float:
        """End of the last step, s."""
        return self._end if self.ends is None else self.end_of(self.steps - 1)

    def _sum_up(self, ends: Floats) -> None:
        """Find the ends of all steps."""
        rest = ends if self._summed == 1 else ends[self._summed - 1 :]
        _accumulate(rest, 0, None, rest)
        self._summed = self.steps

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
        ends = self.ends
        if ends is None:
            return 1
        summed = self._summed
        if summed < self.steps:
            if ends.item(summed - 1) < now:
                self._sum_up(ends)
            else:
                ends = ends[:summed]
        return min(int(ends.searchsorted(now)) + 1, self.steps)

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
        self._postpone(before, slowed)
        return True

    def _bound(self, cost: StepCost, before: int, arithmetic: bool) -> Bound:
        """What the step after `before` others waits for: HBM, and `arithmetic` if that matters."""
        seqs, windowed = self.decode_seqs, self.windowed
        context = self.context + seqs * before
        if windowed and before:
            windowed = tuple([Attended(now + growing * before, growing) for now, growing in windowed])
        return cost.bound(self.tokens, self.rows, seqs, context, self.shapes, windowed, arithmetic=arithmetic)

    def _postpone(self, before: int, seconds: float) -> None:
        """Let the step after `before` others end later; the ends of those after it are the same sums from there on."""
        ends = self.ends
        if ends is None:
            self._end += seconds
            return
        ends[before] = self.end_of(before) + seconds
        if self._summed > before + 1:
            own = self.times.seconds
            assert isinstance(own, np.ndarray)
            ends[before + 1 :] = own[before + 1 : self.steps]
            self._summed = before + 1

    def wait_for_layers(self, end: float) -> None:
        """Let the only step end later, since layers waited for their part of a prefix."""
        self.layer_wait += end - self._end
        self._end = end

    def cut(self, now: float) -> bool:
        """Drop the steps after the one in progress at `now`; True if there were any."""
        ends = self.ends
        if ends is None:
            return False
        steps = self.begun(now)
        if steps == self.steps:
            return False
        if steps == 1:
            self._end = ends.item(0)
            self.ends = None
        else:
            self.ends = ends[:steps]
            self._summed = min(self._summed, steps)
        self.steps = steps
        return True
