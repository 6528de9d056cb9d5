"""Strides of steps that verify drafted tokens (`sim.engine.speculative`)."""

from __future__ import annotations

from typing import NamedTuple

from sim.cost.bound import Bound
from sim.cost.speculation import SpeculativeStep
from sim.cost.stage import Attended
from sim.cost.step import StepCost
from sim.cost.times import StepTimes, at
from sim.cost.verify import VerifyLoad, no_load
from sim.engine.batch import Batch
from sim.engine.members import Chunk
from sim.engine.planning import stride_length
from sim.engine.speculative import SpeculativeGroup
from sim.engine.stride import Stride


class Verifying(NamedTuple):
    """Who verifies, and the prices of that."""

    group: SpeculativeGroup
    cost: SpeculativeStep


def verifying(batch: Batch, cost: StepCost) -> Verifying | None:
    """Those of a replica; None without speculation."""
    if isinstance(batch.decoding, SpeculativeGroup) and isinstance(cost, SpeculativeStep):
        return Verifying(batch.decoding, cost)
    return None


class VerifyStride(Stride):
    """A stride whose steps verify: what they read does not grow by a token of each sequence, it is in `load`."""

    __slots__ = ("load",)

    def __init__(
        self,
        start: float,
        stall: float,
        chunks: list[Chunk],
        shapes: list[tuple[int, int]],
        ended: int,
        load: VerifyLoad,
        times: StepTimes,
    ) -> None:
        verified = int(load.rows[0])
        tokens, rows = verified + sum([n for n, _ in shapes]), verified + ended
        context, windowed = int(load.attended[0]), _windowed(load, 0)
        steps, seqs = len(load.rows), load.seqs
        super().__init__(start, stall, steps, seqs, context, windowed, chunks, shapes, tokens, rows, times)
        self.decode_rows = verified
        self.load = load

    def _bound(self, cost: StepCost, before: int, arithmetic: bool) -> Bound:
        load, prompt = self.load, self.tokens - self.decode_rows
        verified = int(load.rows[before])
        tokens, rows = verified + prompt, verified + self.rows - self.decode_rows
        context = int(load.attended[before])
        bound = cost.bound(
            tokens, rows, load.seqs, context, self.shapes, _windowed(load, before), arithmetic=arithmetic
        )
        return Bound(bound.hbm_s + at(self.times.works, before), bound.compute_s)  # a drafter reads its weights


def _windowed(load: VerifyLoad, step: int) -> tuple[Attended, ...]:
    return tuple(Attended(float(attended[step]), 0.0) for attended, _ in load.windowed)


def plan_verification(
    batch: Batch, verify: Verifying, chunks: list[Chunk], start: float, stall: float, *, single: bool
) -> Stride:
    """As `sim.engine.planning.plan_stride`, with steps that gain a sequence one token or more."""
    group, cost = verify
    if not chunks:
        steps = 1 if single else stride_length(batch, group)
        load = group.load(steps)
        return VerifyStride(start, stall, chunks, [], 0, load, cost.verify_steps(load))
    load = group.load(1) if group.count and not batch.paused else no_load(len(cost.all_windows))
    ended = [seq.known for seq, n in chunks if seq.computed + n == seq.known]
    shapes = [(n, seq.computed) for seq, n in chunks]
    times = cost.verify_mixed(load, shapes, ended)
    return VerifyStride(start, stall, chunks, shapes, len(ended), load, times)
