"""Steps that verify drafted tokens, and what drafting them costs.

Verification runs every sequence's last token and its drafted ones through the model: linear kernels, exchanges and the
output head see that many rows, all of them sampled (rejection sampling needs the distribution at each). Attention reads
a sequence's KV once for all of its rows, as FlashAttention and FlashInfer do with queries of one sequence in one tile:
it is charged as decode attention over what the last row sees, or, if that takes longer, as the arithmetic of all rows
at the profile's rate of prefill attention. Over an MLA latent, where arithmetic sets the time already, it grows with
the rows.

Drafting by a model (`draft`) or by a layer of the model's own (`mtp`) is k passes after each step, as vLLM's proposer
runs them (vllm/v1/spec_decode/eagle.py, propose): the first over all rows of the step, prompts included, the others
over one row per sequence that was sampled, each with its attention, output head and choice of a token. They attend what
the verification did (off by at most k tokens). Proposals by n-gram take time of the host alone.

CUDA graphs are those of as many tokens as a step has; sizes are rounded up to multiples of k + 1 (vLLM,
adjust_cudagraph_sizes_for_spec_decode in vllm/config/compilation.py). SGLang and TensorRT-LLM capture them by sequences
of 1 + k rows, for the drafter's first pass too (sglang, EAGLEDraftExtendCudaGraphRunner; TensorRT-LLM, keys with
is_first_draft in cuda_graph_runner.py), so they fill up shorter drafts (sglang, NgramVerifyInput.draft_token_num;
TensorRT-LLM, Drafter.pad_draft_tokens_for_cuda_graph): `padded` in sim.engine.speculative.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from hw_profiles.geometry import Gemm
from hw_profiles.models import ModelSpec
from hw_profiles.profile import Profile
from sim.cost.graphs import Graphs
from sim.cost.layer import Chunk, Floats, Product
from sim.cost.parallel import Parallel
from sim.cost.stage import Attended, StageCost
from sim.cost.step import EAGER_LAUNCH_S, StepCost
from sim.cost.times import Seconds, StepTimes, at
from sim.cost.verify import VerifyLoad


def by_rows(rows: npt.NDArray[np.int64], seconds: Callable[[int], float]) -> Seconds:
    """`seconds` of the rows of each step: one number where all are alike."""
    first = int(rows[0])
    if len(rows) == 1 or bool((rows == first).all()):
        return seconds(first)
    return np.array([seconds(n) for n in rows.tolist()])


def _replayed(graphs: Graphs | None, rows: int) -> int | None:
    """Rows of the graph that `rows` rows replay; None without one."""
    return None if graphs is None else graphs.rows(rows)


class Drafter:
    """A model, or a layer, that drafts `tokens` tokens per step. project: the product that joins the hidden state and
    the embedding of the next token before an MTP layer. first, further: graphs of the first pass and of the others."""

    def __init__(
        self, cost: StepCost, tokens: int, project: Product | None, first: Graphs | None, further: Graphs | None
    ) -> None:
        self.cost = cost
        self._stage: StageCost = cost.stages[0]
        self._tokens = tokens
        self._project = project
        self._first = first
        self._further = further

    def decode_s(self, load: VerifyLoad) -> Floats:
        """All passes after steps without prompts: float64[steps]."""
        first = self._pass_s(load, self._first)
        return first + self._further_s(load.one_row_each(0, 0, [0] * len(load.windowed)))

    def mixed_s(self, load: VerifyLoad, chunks: Sequence[Chunk], ended: Sequence[int]) -> float:
        """All passes after one step with prompts; `ended`: lengths of those that it completes."""
        prompt = sum([new for new, _ in chunks])
        rows, sampled = int(load.rows[0]) + prompt, load.seqs + len(ended)
        first = self._rows_s(rows, sampled, prompt) + self._stage.verify_mixed(chunks, load)
        first = max(first, self._stage.launch_floor_s)
        if not sampled:
            return first
        windowed = [sum([min(tokens, window) for tokens in ended]) for window in self.cost.windows]
        return first + at(self._further_s(load.one_row_each(len(ended), sum(ended), windowed)), 0)

    def recompute_s(self, tokens: int, prefix: int) -> float:
        """Its own KV of `tokens` tokens of a prompt after `prefix` others."""
        return self._rows_s(tokens, 0, tokens) + self._stage.prefill([(tokens, prefix)])

    def _further_s(self, load: VerifyLoad) -> Seconds:
        """The passes after the first, of one row per sequence."""
        if self._tokens == 1:
            return 0.0
        return self._pass_s(load, self._further) * (self._tokens - 1)

    def _pass_s(self, load: VerifyLoad, graphs: Graphs | None) -> Floats:
        """A pass over the rows of `load`, without prompts: float64[steps]."""
        own = by_rows(load.rows, lambda rows: self._rows_s(_replayed(graphs, rows) or rows, load.seqs))
        floor = by_rows(load.rows, lambda rows: 0.0 if _replayed(graphs, rows) else self._stage.eager_floor_s)
        seconds: Floats = np.maximum(self._stage.verify(load) + own, floor)
        return seconds

    def _rows_s(self, rows: int, sampled: int, prompt: int = 0) -> float:
        stage = self._stage
        seconds = stage.linear(rows, sampled, prompt) + stage.exchange(rows, sampled, prompt)
        return seconds if self._project is None else seconds + self._project.work(rows).seconds


class SpeculativeStep(StepCost):
    """As `StepCost`, for one pipeline stage, of steps in which sequences have up to 1 + `tokens` rows each.

    host_time_s has that of proposals by n-gram; `drafter` those by a model. `all_windows`: those of the model, then
    those that only the drafter has. graph_sizes: of the drafter's passes; verify_sizes: rows of verifying steps;
    draft_sizes: rows of the drafter's first pass, if they are others than of the rest.
    """

    def __init__(
        self,
        model: ModelSpec,
        profile: Profile,
        host_time_s: float = 0.0,
        *,
        tokens: int,
        tokens_per_step: float,
        draft: ModelSpec | None = None,
        draft_tp: int = 1,
        projection: Gemm | None = None,
        parallel: Parallel,
        expert_skew: float = 0.0,
        graphs: bool = True,
        eager_launch_s: float = EAGER_LAUNCH_S,
        graph_sizes: Sequence[int] | None = None,
        graph_padding: bool = True,
        verify_sizes: Sequence[int] | None = None,
        draft_sizes: Sequence[int] | None = None,
    ) -> None:
        super().__init__(
            model,
            profile,
            host_time_s,
            parallel=parallel,
            expert_skew=expert_skew,
            graphs=graphs,
            eager_launch_s=eager_launch_s,
            graph_sizes=verify_sizes,
            graph_padding=graph_padding,
        )
        self.tokens = tokens
        self.tokens_per_step = tokens_per_step
        self.drafter: Drafter | None = None
        self.all_windows = self.windows
        self._draft_places: list[int] = []
        self._stage = self.stages[0]
        if draft is not None:
            cost = StepCost(
                draft,
                profile,
                parallel=replace(parallel, tp=draft_tp, pp=1),
                expert_skew=expert_skew,
                graphs=graphs,
                eager_launch_s=eager_launch_s,
                graph_sizes=graph_sizes,
                graph_padding=graph_padding,
            )
            project = None if projection is None else Product.of(projection, draft.specs[0], cost.kernels)
            first, further = (
                Graphs(sizes, padding=graph_padding) if graphs else None
                for sizes in (draft_sizes or graph_sizes, graph_sizes)
            )
            self.drafter = Drafter(cost, tokens, project, first, further)
            self.all_windows = (*self.windows, *[w for w in cost.windows if w not in self.windows])
            self._draft_places = [self.all_windows.index(window) for window in cost.windows]
            self.asks_longest = self.asks_longest or cost.asks_longest
            self.kernels.values.update(cost.kernels.values)
            for note in cost.kernels.estimates:
                self.kernels.note(note)

    def decode_steps(
        self, seqs: int, context: int, windowed: Sequence[Attended], steps: int, longest: int = 0
    ) -> StepTimes:
        """Verifying steps of sequences that are all alike, with full drafts; for expectations, not for runs."""
        rows = 1 + self.tokens
        gained = self.tokens_per_step * np.arange(steps, dtype=np.float64)
        attended: Floats = context + seqs * (self.tokens + gained)
        pairs: Floats = rows * attended
        inside = [now + growing * (attended - context) / seqs for now, growing in windowed]
        inside += [np.minimum(attended, seqs * window) for window in self.all_windows[len(inside) :]]
        each = np.full(steps, attended[0] / seqs) if longest else None
        load = VerifyLoad(
            seqs,
            np.full(steps, seqs * rows),
            attended,
            pairs,
            [(seen, rows * seen) for seen in inside],
            each,
        )
        return self.verify_steps(load)

    def verify_steps(self, load: VerifyLoad) -> StepTimes:
        """Steps without prompts, drafting for the next ones included: `seconds` is float64[steps].

        One step gives the same bits as the first of many.
        """
        stage = self._stage
        attention = stage.verify(load)
        linear = by_rows(load.rows, self._linear_s)
        exchange = by_rows(load.rows, self._exchange_s)
        floor = by_rows(load.rows, self._floor_s)
        drafting = self.drafter.decode_s(load.within(self._draft_places)) if self.drafter else 0.0
        wait = np.maximum(0.0, floor - (linear + exchange) - attention)
        seconds = attention + (linear + exchange + self.host_time_s) + wait + drafting
        return StepTimes(seconds, linear, attention, exchange, wait, works=drafting)

    def verify_mixed(self, load: VerifyLoad, chunks: Sequence[Chunk], ended: Sequence[int]) -> StepTimes:
        """One step with prompt `chunks`; `ended`: lengths of those that it completes."""
        stage = self._stage
        prompt = sum([new for new, _ in chunks])
        verified = int(load.rows[0])
        tokens, rows = verified + prompt, verified + len(ended)
        linear, exchange = stage.linear(tokens, rows, prompt), stage.exchange(tokens, rows, prompt)
        attention = stage.verify_mixed(chunks, load)
        launch = max(0.0, stage.launch_floor_s - linear - exchange - attention)
        drafting = 0.0
        if self.drafter:
            drafting = self.drafter.mixed_s(load.within(self._draft_places), chunks, ended)
        seconds = linear + attention + exchange + launch + self.host_time_s + drafting
        return StepTimes(seconds, linear, attention, exchange, launch, works=drafting)

    def decode_rows(self, seqs: int) -> int:
        """Rows that the linear kernels of a verifying step run over if every sequence has a full draft."""
        return super().decode_rows(seqs * (1 + self.tokens))

    def recompute_s(self, tokens: int, prefix: int) -> float:
        """Time to compute `tokens` tokens of a prompt after `prefix` cached ones, for the drafter too."""
        seconds = super().recompute_s(tokens, prefix)
        return seconds if self.drafter is None else seconds + self.drafter.recompute_s(tokens, prefix)

    def _linear_s(self, rows: int) -> float:
        return self._stage.linear(super().decode_rows(rows), rows)

    def _exchange_s(self, rows: int) -> float:
        return self._stage.exchange(super().decode_rows(rows), rows)

    def _floor_s(self, rows: int) -> float:
        """What launching a step's kernels one by one takes at least, without a graph."""
        return 0.0 if self.replays(rows) else self._stage.eager_floor_s
