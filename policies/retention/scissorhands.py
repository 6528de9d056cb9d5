"""Scissorhands: a fixed budget that is cut in bursts, by how rarely tokens were attended of late."""

from __future__ import annotations

from dataclasses import replace

from hw_profiles.errors import InputError
from hw_profiles.lines import Line, constant
from policies.options import number, whole
from policies.retention.budget import amount, applies, coverage, keeping, last_queries, of_prompt
from policies.sequence.plan import FULL, LayerPlan, LayerView, SequencePolicy, Work
from policies.sequence.scores import ACTIVATION_BYTES, row_bytes
from policies.sequence.shapes import above, whole_share

COUNT_BYTES = 2
"""A count of steps per kept token and head, reset when the cache is cut."""
SOURCE = "Scissorhands (arXiv 2305.17118), section 4"


class Scissorhands(SequencePolicy):
    """At most `budget` tokens per head: when they are full, the share `drop` that mattered least of late goes at once.

    A token matters to a query that attends it more than 1/t, the mean over t tokens. Over the last `window` steps
    before a cut the steps in which it did not are counted per token and head (2 bytes each); the newest `recent` tokens
    always stay. Between two cuts, drop x budget steps apart, the cache fills up again: attention reads the mean,
    budget (1 - drop/2), and memory has room for the budget. Only steps of the window need their scores written. A
    prompt runs with a fused kernel, and its last `window` queries are counted when it is complete.

    budget  tokens, or a share of the prompt (0.2 as published)
    drop    share of the budget that a cut drops
    window  steps that are counted before a cut
    recent  newest tokens that always stay

    Source: Z. Liu et al., "Scissorhands", NeurIPS 2023 (arXiv 2305.17118), section 4, algorithms 1 and 2 (from notes on
    it: a fifth of the cache; its drop, window and recent tokens are recalled: 0.5, 400, 10). Its hypothesis, that what
    mattered goes on to matter, is not simulated: coverage is that of the best as many tokens.
    """

    assumptions = (
        "scissorhands: half of the budget dropped at once, 400 steps counted and 10 newest kept are recalled",
    )

    def __init__(self, *, budget: float = 0.2, drop: float = 0.5, window: int = 400, recent: int = 10) -> None:
        self._budget = amount("budget", budget)
        self._drop = number("drop", drop, 0, 0.99, above=True)
        self._window = whole("window", window, 1, 1 << 20)
        self._recent = whole("recent", recent, 0, 1 << 20)
        if not self._budget:
            raise ValueError(f"budget: found {budget!r}, expected more than no token")
        if isinstance(budget, int) and recent > budget * (1 - drop):
            raise ValueError(f"recent: found {recent}, expected no more than a cut leaves, {budget * (1 - drop):g}")

    def plan(self, layer: LayerView, before: LayerPlan) -> LayerPlan:
        """The layer's plan: what is there on average, and room for the budget."""
        if layer.latent:
            raise InputError(
                "scissorhands cannot be used with latent attention (MLA): it keeps other tokens for each head"
            )
        if not self._applies(layer):
            return before
        plan = keeping(before, self._mean(before.kept), self._mean(before.attended))
        room = self._most(before.kept) - plan.kept
        counts = COUNT_BYTES * layer.kv_heads
        step = row_bytes(layer) + ACTIVATION_BYTES * layer.heads + 2 * counts
        counted = min(1.0, self._window / self._cycle) if self._cycle else 1.0
        left = 1.0 - self._drop
        cut = constant(layer.token_bytes * whole_share(before) * 2 * left / self._drop)  # once in drop x budget steps
        if isinstance(self._budget, int):
            cut = above(cut, self._budget, max(1, round(self._cycle)))
        kept_after = plan.form.of(plan.kept.at_prompt()) * (2.0 * layer.token_bytes)
        return replace(
            plan,
            extra=plan.extra + room * (layer.token_bytes * whole_share(before)) + (plan.kept + room) * counts,
            works=(
                *plan.works,
                Work("scores, counts", plan.attended * (step * counted), launches=4, source=SOURCE),
                Work("cut, a mean per step", cut, launches=0, source=SOURCE),
            ),
            after_prompt=(
                *plan.after_prompt,
                last_queries(layer, self._window, SOURCE),
                Work("gather what is kept", kept_after, launches=4, source=SOURCE),
            ),
        )

    def coverage(self, layer: LayerView, context: float, prompt: float) -> float:
        """Share of the attention mass that as many tokens hold at best, on average between two cuts."""
        return coverage(layer, self._mean(FULL.kept), context, prompt) if self._applies(layer) else 1.0

    @property
    def _cycle(self) -> float:
        """Steps between two cuts; 0 where they depend on the prompt."""
        return self._budget * self._drop if isinstance(self._budget, int) else 0.0

    def _applies(self, layer: LayerView) -> bool:
        return applies(layer, self._budget if isinstance(self._budget, int) else 0)

    def _most(self, line: Line) -> Line:
        return line.capped(self._budget) if isinstance(self._budget, int) else of_prompt(line, self._budget)

    def _mean(self, line: Line) -> Line:
        if isinstance(self._budget, int):
            return line.capped(self._budget - round(self._budget * self._drop / 2))
        return of_prompt(line, self._budget * (1.0 - self._drop / 2))
