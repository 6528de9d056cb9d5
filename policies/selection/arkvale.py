"""Page-wise eviction whose pages can be recalled: ArkVale."""

from __future__ import annotations

from dataclasses import replace

from hw_profiles.lines import Line, constant
from policies.options import number, seconds, whole
from policies.selection.base import Selector
from policies.sequence.plan import LayerPlan, LayerView, Move, Work
from policies.sequence.shapes import above, context_of, longest, needs_all_tokens, needs_heads, whole_share

MOST_SELECTED = 40 * 32
"""Tokens that are selected at most (the paper's rule min(40 x 32, c / 2))."""
SOURCE = "ArkVale (NeurIPS 2024)"


class ArkVale(Selector):
    """Keeps the pages that matter in HBM and all pages in host memory; recalls those whose digests score high.

    Per sequence and layer, with p = page, c = budget (tokens in HBM) and k pages selected per step:
      HBM     min(n, c) tokens, and digests of every page, two vectors per head of each: 1 / p of all KV
      host    all KV; every page is copied when it fills, beside the computation (asynchronous)
      step    estimate: reads all digests; select: top-k; recall: the pages that are selected and not there come over
              the link and the attention waits for them (nothing of it is hidden in the published implementation;
              victims have their copy already); attention reads k pages
              (a sequence that fits into c is read whole)
    Which pages are missing comes from the importance data (`recalls`). The layers 0 to `full_layers` - 1 keep all.
    A budget that holds the longest sequence of the run changes nothing, as in the paper.

    page             tokens
    budget           tokens in HBM, c; 512 to 4096 in the paper
    selected         tokens attended per step; None: min(40 x 32, c / 2)
    sinks, windows   pages at the start and the end that are always selected: k and c hold at least these and one more
    full_layers      layers at the input side that keep everything
    groups           groups of heads that rank pages each for itself: a recall is then as many copies
    estimate         fixed time of the digest kernel per layer and step, and
    efficiency       share of the HBM read rate that it reaches beyond that: 41 us and 0.78, least squares over the
                     three lengths of Fig. 9 (1.56, 2.43, 2.5 ms in 30 layers, batch 4, 10, 20 and 30 k tokens; fitted
                     to 11 %)
    select           time of top-k per layer and step: 18 us from the same figure (0.55 ms in 30 layers)

    Source: ArkVale (NeurIPS 2024), section 4 and Fig. 9; github.com/pku-liang/ArkVale (2 full layers, 2 + 2 pages).
    """

    assumptions = ("arkvale: top-k and the digest kernel take what the paper's Fig. 9 shows on an A100, on any GPU",)

    def __init__(
        self,
        *,
        page: int = 32,
        budget: int = 4096,
        selected: int | None = None,
        sinks: int = 2,
        windows: int = 2,
        full_layers: int = 2,
        groups: int = 1,
        estimate: float | str = 41e-6,
        efficiency: float = 0.78,
        select: float | str = 18e-6,
    ) -> None:
        self.page = whole("page", page, 1, 4096)
        self.full_layers = whole("full_layers", full_layers, 0, 10_000)
        self.groups = whole("groups", groups, 1, 1024)
        self.estimate = seconds("estimate", estimate)
        self.efficiency = number("efficiency", efficiency, 0.0, 1.0, above=True)
        self.select = seconds("select", select)
        least = whole("sinks", sinks, 0, 10_000) + whole("windows", windows, 0, 10_000) + 1
        self.cached = max(-(-whole("budget", budget, 1, 10**9) // self.page), least)
        if selected is None:
            selected = min(MOST_SELECTED, self.cached * self.page // 2)
        self.selected = min(max(whole("selected", selected, 1, 10**9) // self.page, least), self.cached)

    def applies(self, layer: LayerView) -> bool:
        """Not in the first layers, nor where the budget holds everything."""
        return layer.index >= self.full_layers and self.cached * self.page < longest(layer)

    def attended(self, layer: LayerView) -> Line:
        """Everything up to the budget, the selected pages of more."""
        budget = self.cached * self.page
        dropped = above(constant(budget - self.selected * self.page), budget, self.page)
        return context_of(layer).capped(budget) - dropped

    def plan(self, layer: LayerView, before: LayerPlan) -> LayerPlan:
        """The layer's plan."""
        if not self.applies(layer):
            return before
        needs_heads("arkvale", layer)
        needs_all_tokens("arkvale", layer, before)
        tokens, budget = context_of(layer), self.cached * self.page
        stored = layer.token_bytes * whole_share(before)
        digests = tokens * (layer.token_bytes / self.page)
        recalled = above(layer.importance.recalls(self.selected, self.cached, self.page), budget, self.page)
        return replace(
            before.plus(
                works=(
                    # the digest of a page is built when it fills: its keys are read once
                    Work(
                        "page_digest_score",
                        digests + constant(layer.token_bytes / 2),
                        tokens * (4 * layer.heads * layer.head_dim / self.page),
                        self.efficiency,
                        launches=0,
                        seconds=self.estimate,
                        source=f"{SOURCE}, section 4.2",
                    ),
                    Work("page_top_k", launches=0, seconds=self.select, source=f"{SOURCE}, Fig. 9"),
                ),
                moves=(
                    Move("h2d", recalled * (self.page * stored), recalled * self.groups, source=f"{SOURCE}, recall"),
                    Move("d2h", constant(stored), constant(1 / self.page), "async", source=f"{SOURCE}, backup"),
                ),
                extra=digests,
            ),
            kept=tokens.capped(budget),
            attended=self.attended(layer),
            host=tokens * stored,
            prompt_works=(*before.prompt_works, Work("page_digest_build", self._built(layer))),
            prompt_moves=(
                *before.prompt_moves,
                Move("d2h", tokens * stored, tokens * (1 / self.page), "async", source=f"{SOURCE}, backup"),
            ),
        )

    def _built(self, layer: LayerView) -> Line:
        """Bytes of digests from a prompt: its keys read, two vectors per head and page written."""
        return Line(slope=layer.token_bytes * (0.5 + 1 / self.page))
