"""The layers of one kind and plan: their attention, further kernels and copies, in seconds of one layer on one rank."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from hw_profiles.cost_models import CopyModel
from hw_profiles.lines import Line
from hw_profiles.profile import Profile
from policies.sequence.plan import LayerPlan, Move, Work
from sim.cost.layer import Chunk, LayerCost, pairs
from sim.cost.overlap import later
from sim.cost.stage import Attended
from sim.cost.sums import Summed, Terms
from sim.cost.times import Seconds


class _Kernel(NamedTuple):
    nbytes: Summed
    flops: Summed
    host: Summed
    rate: float
    flop_rate: float
    work: Work

    def along(self, seqs: float, context: float, sums: Sequence[Attended], steps: int) -> Seconds:
        """Seconds of the kernel, and of host threads that the layer waits for."""
        reading = (self.nbytes.along(seqs, context, sums, steps) + self.work.fixed) / self.rate
        if not self.flops.zero:
            reading = later(reading, self.flops.along(seqs, context, sums, steps) / self.flop_rate)
        if not (self.host.zero or self.work.beside):
            reading = reading + self.host.along(seqs, context, sums, steps)
        return reading + self.work.seconds


class _Copy(NamedTuple):
    move: Move
    nbytes: Summed
    copies: Summed
    model: CopyModel
    fixed: float

    def along(self, seqs: float, context: float, sums: Sequence[Attended], steps: int) -> Seconds:
        nbytes = self.nbytes.along(seqs, context, sums, steps) + self.fixed
        copies = self.copies.along(seqs, context, sums, steps)
        return self.seconds(nbytes, copies if not self.nbytes.zero else (1.0 if self.fixed else 0.0))

    def seconds(self, nbytes: Seconds, copies: Seconds) -> Seconds:
        return move_seconds(self.move, self.model, nbytes, copies)


class PlannedLayer:
    """The layers of one kind and plan, in seconds of one layer on one rank, which has `share` of its KV."""

    def __init__(
        self,
        kind: LayerCost,
        plan: LayerPlan,
        terms: Terms,
        profile: Profile,
        copy: Mapping[str, CopyModel],
        share: float,
        ranks: int,
        flop_rate: float,
    ) -> None:
        if ranks > 1:
            plan = _on_a_rank(plan, ranks)
        self.kind, self.plan, self._terms = kind, plan, terms
        read = plan.form.read(plan.attended)
        if kind.arithmetic:
            read = plan.attended * (1.0 + plan.form.beside)
        self.attended = Summed(read, terms)
        self.launches = sum(work.launches for work in plan.works)
        self._share, self._ranks, self._hbm = share, ranks, profile.hbm_bandwidth
        self._flop_rate = flop_rate
        self._works = [self._kernel(work, terms) for work in plan.works]
        self._copies = [
            _Copy(
                move,
                Summed(move.nbytes * self._part(move), terms),
                Summed(move.copies, terms),
                copy[move.direction],
                move.fixed,
            )
            for move in plan.moves
        ]
        self._prompt_copies = [(move, copy[move.direction]) for move in plan.prompt_moves]
        self._launch_s = profile.launch.graph

    def _part(self, move: Move) -> float:
        """The rank's share of a move: what several ranks have alike is loaded by each, and stored once."""
        return self._share if move.direction == "h2d" else min(self._share, 1.0 / self._ranks)

    def _kernel(self, work: Work, terms: Terms) -> _Kernel:
        share = self._share
        nbytes, flops = Summed(work.nbytes * share, terms), Summed(work.flops * share, terms)
        host = Summed(work.host_seconds, terms)
        return _Kernel(nbytes, flops, host, work.efficiency * self._hbm, self._flop_rate, work)

    # ---- decode

    def attention(
        self, seqs: float, context: float, sums: Sequence[Attended], steps: int, longest: float = 0.0
    ) -> Seconds:
        """Decode attention; longest: context of the longest sequence, if that matters."""
        attended, most = self.attended.along(seqs, context, sums, steps), None
        if longest and self.kind.asks_longest:
            most = self.attended.along(1, longest, self._terms.alike(1, longest, longest), steps)
        if isinstance(attended, np.ndarray):
            return self.kind.decode_steps(seqs, attended, None if most is None else np.broadcast_to(most, (steps,)))
        return self.kind.decode(seqs, attended, 0.0 if most is None else float(most))

    def works_s(self, seqs: float, context: float, sums: Sequence[Attended], steps: int) -> Seconds:
        total: Seconds = 0.0
        for kernel in self._works:
            total = total + kernel.along(seqs, context, sums, steps)
        return total

    def beside_s(self, seqs: float, context: float, sums: Sequence[Attended], steps: int) -> Seconds:
        """Seconds of host threads beside the kernels of the step."""
        total: Seconds = 0.0
        for kernel in self._works:
            if kernel.work.beside and not kernel.host.zero:
                total = total + kernel.host.along(seqs, context, sums, steps)
        return total

    def moves_s(self, seqs: float, context: float, sums: Sequence[Attended], steps: int) -> list[Seconds]:
        """Seconds of copies by `way`, in the order of `sim.cost.overlap.Run`."""
        total = _no_seconds()
        for copy in self._copies:
            total[way(copy.move)] = total[way(copy.move)] + copy.along(seqs, context, sums, steps)
        return list(total.values())

    def fixed_s(self) -> list[Seconds]:
        """Those of what a step moves whatever its sequences: weights, for a step of prompts alone."""
        total = _no_seconds()
        for copy in self._copies:
            if copy.fixed:
                total[way(copy.move)] = total[way(copy.move)] + copy.seconds(copy.fixed, 1.0)
        return list(total.values())

    # ---- prompts

    def prefill(self, chunks: Sequence[Chunk]) -> float:
        seconds = self.kind.prefill(chunks) * self.plan.prefill_flops
        if self.plan.pair_bytes:
            seen = sum(pairs(tokens, prefix, self.kind.window) for tokens, prefix in chunks)
            seconds += self.plan.pair_bytes * self._share * seen / self._hbm
        return seconds

    def prompt_works_s(self, chunks: Sequence[Chunk], ended: Sequence[int]) -> tuple[float, float]:
        """Seconds of kernels over the chunks and at the ends of prompts, and of host threads beside them."""
        total = beside = 0.0
        for work in self.plan.prompt_works:
            nbytes, flops, host = (sum(_grown(line, chunks)) for line in (work.nbytes, work.flops, work.host_seconds))
            total += self._once(work, nbytes, flops, host)
            beside += host if work.beside else 0.0
        for work in self.plan.after_prompt if ended else ():
            lines = work.nbytes, work.flops, work.host_seconds
            nbytes, flops, host = (sum(line.at(n, n) for n in ended) for line in lines)
            total += self._once(work, nbytes, flops, host)
            beside += host if work.beside else 0.0
        return total, beside

    def _once(self, work: Work, nbytes: float, flops: float, host: float) -> float:
        nbytes, flops = nbytes * self._share + work.fixed, flops * self._share
        busy = max(nbytes / (work.efficiency * self._hbm), flops / self._flop_rate)
        return busy + work.seconds + work.launches * self._launch_s + (0.0 if work.beside else host)

    def prompt_moves_s(self, chunks: Sequence[Chunk]) -> list[Seconds]:
        total = _no_seconds()
        for move, model in self._prompt_copies:
            nbytes, copies = sum(_grown(move.nbytes, chunks)) * self._part(move), sum(_grown(move.copies, chunks))
            seconds = move_seconds(move, model, nbytes, max(copies, 1.0 if nbytes else 0.0))
            total[way(move)] = total[way(move)] + seconds
        return list(total.values())

    def moved(
        self,
        direction: str,
        seqs: float,
        context: float,
        sums: Sequence[Attended],
        steps: int,
        chunks: Sequence[Chunk],
    ) -> float:
        """Bytes of one layer on one rank."""
        total = 0.0
        for copy in self._copies:
            if copy.move.direction == direction:
                total += copy.fixed * steps + (copy.nbytes.total(seqs, context, sums, steps) if seqs else 0.0)
        for move in self.plan.prompt_moves:
            if move.direction == direction:
                total += sum(_grown(move.nbytes, chunks)) * self._part(move)
        return total


def way(move: Move) -> str:
    """What of a step a move bears on (`sim.cost.overlap.Run`)."""
    if move.direction == "d2h":
        return "held" if move.when == "critical" else "store"
    return "aside" if move.when == "async" else move.when


def _no_seconds() -> dict[str, Seconds]:
    return dict.fromkeys(("critical", "ahead", "store", "held", "aside"), 0.0)


def _on_a_rank(plan: LayerPlan, ranks: int) -> LayerPlan:
    """What is fixed is of the whole layer, and threads that gather are of the host: a rank has its part of both."""

    def works(given: tuple[Work, ...]) -> tuple[Work, ...]:
        return tuple(replace(work, fixed=work.fixed / ranks) for work in given)

    def moves(given: tuple[Move, ...]) -> tuple[Move, ...]:
        shared = [m.rate if m.rate is None or m.via != "gather" else m.rate / ranks for m in given]
        return tuple(replace(m, fixed=m.fixed / ranks, rate=rate) for m, rate in zip(given, shared, strict=True))

    return replace(
        plan,
        works=works(plan.works),
        prompt_works=works(plan.prompt_works),
        after_prompt=works(plan.after_prompt),
        moves=moves(plan.moves),
        prompt_moves=moves(plan.prompt_moves),
    )


def move_seconds(move: Move, model: CopyModel, nbytes: Seconds, copies: Seconds) -> Seconds:
    """Seconds that a GPU's link needs for `nbytes` in `copies` pieces, as the move says how they get there."""
    if move.via == "gather":
        gathered = 0.0 if move.rate is None else nbytes / move.rate
        one = np.minimum(copies, 1.0) if isinstance(copies, np.ndarray) else min(copies, 1.0)
        return gathered + _copied(model, nbytes, one)
    if move.via in ("zero_copy", "fault"):
        rate = model.beta if move.rate is None else min(move.rate, model.beta)
        return nbytes / rate
    return _copied(model, nbytes, copies)


def _copied(model: CopyModel, nbytes: Seconds, copies: Seconds) -> Seconds:
    if isinstance(nbytes, np.ndarray) or isinstance(copies, np.ndarray):
        return model.seconds(np.asarray(nbytes), np.asarray(copies))
    return model.seconds(nbytes, copies)


def lines_of(plan: LayerPlan) -> Iterator[Line]:
    """Every line of a plan that is summed over decoding sequences."""
    yield plan.form.read(plan.attended)
    yield plan.attended
    for work in plan.works:
        yield work.nbytes
        yield work.flops
        yield work.host_seconds
    for move in plan.moves:
        yield move.nbytes
        yield move.copies


def _grown(line: Line, chunks: Sequence[Chunk]) -> Iterator[float]:
    """By how much a line in the computed tokens grows over each chunk."""
    for tokens, prefix in chunks:
        yield line.at(prefix + tokens, 0) - (line.at(prefix, 0) if prefix else 0.0)
