"""Steps of sequences with plans of their own (`policies.sequence.plan`): what layers read, run and move instead.

Beside what `sim.cost.step` charges: decode attention over what a plan attends, in its format; further kernels, each
max(bytes / (efficiency B_HBM), FLOP / rate) and its launches; and copies over the host link at the resolution of layers
(`sim.cost.overlap`). All amounts are lines, summed over the batch (`sim.cost.sums`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import groupby

import numpy as np

from hw_profiles.cost_models import CopyModel
from hw_profiles.errors import InputError
from hw_profiles.lines import CONTEXT
from hw_profiles.models import ModelSpec
from hw_profiles.profile import Profile
from policies.sequence.plan import FULL, LayerPlan, SequencePlan
from sim.cost.bound import Bound
from sim.cost.layer import Chunk, LayerCost
from sim.cost.overlap import Run, finish, later
from sim.cost.parallel import Parallel
from sim.cost.planned_layer import PlannedLayer, lines_of
from sim.cost.stage import Attended
from sim.cost.step import EAGER_LAUNCH_S, StepCost
from sim.cost.sums import Moved, Terms
from sim.cost.times import Seconds, StepTimes


class PlannedStep(StepCost):
    """As `StepCost`, for one pipeline stage. copy: the model of a GPU's link by direction.

    `windows` are then those of the model and of the plans, and `terms` has the sums of prompts too.
    """

    def __init__(
        self,
        model: ModelSpec,
        profile: Profile,
        host_time_s: float = 0.0,
        l2_prefetch_bytes: int = 0,
        *,
        plan: SequencePlan,
        copy: Mapping[str, CopyModel],
        parallel: Parallel,
        expert_skew: float = 0.0,
        graphs: bool = True,
        eager_launch_s: float = EAGER_LAUNCH_S,
        graph_sizes: Sequence[int] | None = None,
        graph_padding: bool = True,
        attention_share: float | None = None,
        launches_per_layer: int | None = None,
    ) -> None:
        _check_layers(model, plan)
        super().__init__(
            model,
            profile,
            host_time_s,
            l2_prefetch_bytes,
            parallel=parallel,
            expert_skew=expert_skew,
            graphs=graphs,
            eager_launch_s=eager_launch_s,
            graph_sizes=graph_sizes,
            graph_padding=graph_padding,
            attention_share=attention_share,
            launches_per_layer=launches_per_layer,
        )
        lines = [line for layer in plan.layers for line in lines_of(layer)]
        self.terms = Terms.of(self.windows, lines)
        self.windows, self.prompts = self.terms.windows, self.terms.prompts
        self.plan = plan
        self.moves = any(layer.moves or layer.prompt_moves for layer in plan.layers)
        self._stage = self.stages[0]
        split = parallel.tp != 1
        at = [s.at(parallel.tp, expert_parallel=parallel.expert_parallel) if split else s for s in model.specs]
        whole = [spec.attention.kv_bytes(spec.kv) for spec in model.specs]
        self._groups: list[PlannedLayer] = []
        self._runs: list[tuple[int, int]] = []
        """(group, layers in a row), in order of depth."""
        known: dict[tuple[int, LayerPlan], int] = {}
        for key, alike in groupby(zip(model.pattern, plan.layers, strict=True)):
            if key not in known:
                known[key] = len(self._groups)
                layer = at[key[0]]
                kind = LayerCost(1, layer, self.kernels, expert_skew, parallel.placement)
                share = layer.entry_bytes / whole[key[0]]
                rate = self.kernels.prefill(layer).flops
                self._groups.append(PlannedLayer(kind, key[1], self.terms, profile, copy, share, parallel.tp, rate))
            self._runs.append((known[key], len(list(alike))))
        self._counts = [sum(n for g, n in self._runs if g == i) for i in range(len(self._groups))]
        self._ranks = parallel.tp
        self._launch_s = profile.launch.graph
        self._eager_s = eager_launch_s
        groups = zip(self._counts, self._groups, strict=True)
        self._works = sum(n * g.kind.decodes * g.launches for n, g in groups)

    # ---- whole steps

    def decode_steps(
        self, seqs: int, context: int, windowed: Sequence[Attended], steps: int, longest: int = 0
    ) -> StepTimes:
        """As StepCost.decode_steps."""
        replayed = self._graphs.rows(seqs) if self._graphs else None
        rows = replayed or seqs
        stage = self._stage
        linear, exchange = stage.linear(rows, seqs), stage.exchange(rows, seqs)
        batch = seqs, context, windowed, steps
        attended = [g.kind.decodes * g.attention(*batch, longest) for g in self._groups]
        extra = [
            g.kind.decodes * (g.works_s(*batch) + (g.launches * self._launch_s if replayed else 0.0))
            for g in self._groups
        ]
        loads = [g.moves_s(*batch) for g in self._groups]
        host: Seconds = 0.0
        for n, g in zip(self._counts, self._groups, strict=True):
            host = host + n * g.kind.decodes * g.beside_s(*batch)
        floor = None if replayed else self._floor(False)
        times = self._together(linear, exchange, attended, extra, loads, rows, floor, host)
        if steps > 1 and not isinstance(times.seconds, np.ndarray):  # nothing grows: all steps are alike
            times.seconds = np.full(steps, times.seconds)
        return times

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
        ended: Sequence[int] = (),
    ) -> StepTimes:
        """As StepCost.mixed_step. ended: lengths of the prompts that this step completes."""
        stage = self._stage
        prompt = sum([new for new, _ in chunks])
        linear, exchange = stage.linear(tokens, rows, prompt), stage.exchange(tokens, rows, prompt)
        attended: list[Seconds] = []
        extra: list[Seconds] = []
        loads, host = [], 0.0
        for n, g in zip(self._counts, self._groups, strict=True):
            attention, moves = g.prefill(chunks), g.prompt_moves_s(chunks)
            works, beside = g.prompt_works_s(chunks, ended)
            host += n * beside
            if seqs:
                own, often = float(g.attention(seqs, context, windowed, 1, longest)), g.kind.decodes
                both = g.kind.together(attention, own, seqs, max(g.attended.now(seqs, context, windowed), 1.0))
                attention = both if often == 1 else often * both + (1 - often) * attention
                works += often * float(g.works_s(seqs, context, windowed, 1))
                host += n * often * float(g.beside_s(seqs, context, windowed, 1))
            own_moves = g.moves_s(seqs, context, windowed, 1) if seqs else g.fixed_s()
            moves = [a + b for a, b in zip(moves, own_moves, strict=True)]
            attended.append(attention)
            extra.append(works)
            loads.append(moves)
        return self._together(linear, exchange, attended, extra, loads, tokens, self._floor(True), host)

    def _floor(self, mixed: bool) -> float:
        """Time to launch the kernels of a step one by one."""
        each = self.kernels.profile.launch.stream if mixed and self._graphs else self._eager_s
        own = self._stage.launch_floor_s if mixed else self._stage.eager_floor_s
        return own + self._works * each

    def _together(
        self,
        linear: float,
        exchange: float,
        attended: Sequence[Seconds],
        extra: Sequence[Seconds],
        loads: Sequence[Sequence[Seconds]],
        rows: int,
        floor: float | None,
        host: Seconds,
    ) -> StepTimes:
        """The parts of a step, and what its copies and host threads add at the resolution of layers."""
        counts = self._counts
        attention: Seconds = 0.0
        works: Seconds = 0.0
        for n, a, w in zip(counts, attended, extra, strict=True):
            attention = attention + n * a
            works = works + n * w
        own = attention + works
        moves: Seconds = 0.0
        if any(isinstance(s, np.ndarray) or s for load in loads for s in load):
            per_layer = exchange / len(self.plan.layers)
            layers = [
                g.kind.linear(rows) + a + w + per_layer for g, a, w in zip(self._groups, attended, extra, strict=True)
            ]
            runs = [Run(n, layers[g], *loads[g]) for g, n in self._runs]
            alone: Seconds = 0.0
            for run in runs:
                alone = alone + run.layers * run.compute
            moves = later(finish(runs) - alone, 0.0)
        launch: Seconds = 0.0
        if floor is not None:
            launch = later(floor - (linear + exchange) - own, 0.0)
        moves = moves + later(host - (own + (linear + exchange) + launch + moves), 0.0)
        seconds = own + (linear + exchange + self.host_time_s) + launch + moves
        return StepTimes(seconds, linear, attention, exchange, launch, 0.0, works, moves)

    # ---- what they moved, and what bounds them

    def moved(
        self, seqs: int, context: int, windowed: Sequence[Attended], steps: int, chunks: Sequence[Chunk] = ()
    ) -> Moved:
        """Bytes that `steps` steps like these move over the host links, of all GPUs of the replica."""
        total = {"h2d": 0.0, "d2h": 0.0}
        for n, g in zip(self._counts, self._groups, strict=True):
            for direction in total:
                total[direction] += n * g.moved(direction, seqs, context, windowed, steps, chunks) * self._ranks
        return Moved(total["h2d"], total["d2h"])

    def bound(
        self,
        tokens: int,
        rows: int,
        seqs: int,
        context: int,
        chunks: Sequence[Chunk],
        windowed: Sequence[Attended] = (),
        *,
        arithmetic: bool = True,
    ) -> Bound:
        """As StepCost.bound; kernels of the plans count as HBM time."""
        if tokens == seqs:
            tokens = self.decode_rows(seqs)
        linear = self._stage.bound(tokens, rows, 0, 0, (), (), arithmetic=arithmetic)
        hbm_s, compute_s = linear.hbm_s, linear.compute_s
        for n, g in zip(self._counts, self._groups, strict=True):
            if seqs:
                attended = g.attended.now(seqs, context, windowed)
                bound = g.kind.decode_bound(seqs, attended)
                works = float(g.works_s(seqs, context, windowed, 1))
                often = n * g.kind.decodes
                hbm_s, compute_s = hbm_s + often * (bound.hbm_s + works), compute_s + often * bound.compute_s
            if chunks:
                bound = g.kind.prefill_bound(chunks, arithmetic=arithmetic)
                hbm_s, compute_s = hbm_s + n * bound.hbm_s, compute_s + n * bound.compute_s
        return Bound(hbm_s, compute_s)

    def decode(self, seqs: int, context: int, tokens: int | None = None, windowed: Sequence[Attended] = ()) -> float:
        """Decode attention alone, as StepCost.decode."""
        groups = zip(self._counts, self._groups, strict=True)
        return sum(n * g.kind.decodes * float(g.attention(seqs, context, windowed, 1)) for n, g in groups)


def _check_layers(model: ModelSpec, plan: SequencePlan) -> None:
    """Raise InputError for policies that choose among tokens in layers that keep blocks, or a window of their own: what
    is a token to them is not defined. Kernels beside the attention (a framework's) are."""
    for place, layer in zip(model.pattern, plan.layers, strict=True):
        spec, rest = model.specs[place], replace(layer, works=(), attended=CONTEXT, form=replace(layer.form, rate=1.0))
        if (spec.cadence.period > 1 or spec.scratch_bytes) and rest != FULL:
            reason = "not all of its layers keep the KV of every token"
            raise InputError(f"policies within a sequence are not defined for {model.name}: {reason}")
