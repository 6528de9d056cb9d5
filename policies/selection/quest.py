"""Reading only the pages that a query needs: Quest."""

from __future__ import annotations

from dataclasses import replace

from hw_profiles.errors import InputError
from hw_profiles.lines import CONTEXT, Line
from policies.options import number, seconds, whole
from policies.selection.base import Selector
from policies.sequence.plan import LayerPlan, LayerView, Work
from policies.sequence.shapes import as_prompt_grows, context_of, longest, needs_heads

SOURCE = "Quest (ICML 2024, arXiv 2406.10774)"


class Quest(Selector):
    """Keeps everything in HBM, and each step reads the minima and maxima of all pages and then the best pages alone.

    Per sequence and layer, with S = page and K = budget / S pages: every step reads 1 / S of all KV (smallest and
    largest key of each page and channel, also the HBM that they take) and K S / n of it (the pages selected), instead
    of all. Nothing leaves HBM: memory does not shrink. Layers 0 to `full_layers` - 1 read all. A budget that holds the
    longest sequence of the run changes nothing.
    After a retention policy that keeps a budget of the context, pages are selected among what it keeps.

    page         tokens; 16
    budget       tokens read per step; 512 to 4096 in the repository's scripts
    full_layers  2 (repository: the first two layers are dense)
    efficiency   share of the HBM read rate that the digest kernel reaches: assumed as that of a plain read
    select       time of top-k per layer and step: 18 us, carried over from ArkVale's Fig. 9 (RAFT top-k on an A100)

    Source: Quest (ICML 2024, arXiv 2406.10774), section 3: loads 1 / page + K page / L of KV; repository
    mit-han-lab/Quest, scripts (page 16, budgets).
    """

    assumptions = (
        "quest: top-k takes what it takes in ArkVale's Fig. 9 (A100), and the digest kernel reads as fast as a copy",
    )

    def __init__(
        self,
        *,
        page: int = 16,
        budget: int = 2048,
        full_layers: int = 2,
        efficiency: float = 1.0,
        select: float | str = 18e-6,
    ) -> None:
        self.page = whole("page", page, 1, 4096)
        self.budget = -(-whole("budget", budget, 1, 10**9) // self.page) * self.page
        self.full_layers = whole("full_layers", full_layers, 0, 10_000)
        self.efficiency = number("efficiency", efficiency, 0.0, 1.0, above=True)
        self.select = seconds("select", select)

    def applies(self, layer: LayerView) -> bool:
        """Not in the first layers, nor where the budget holds everything."""
        return layer.index >= self.full_layers and self.budget < longest(layer)

    def attended(self, layer: LayerView) -> Line:
        """The selected pages."""
        return context_of(layer).capped(self.budget)

    def plan(self, layer: LayerView, before: LayerPlan) -> LayerPlan:
        """The layer's plan."""
        if not self.applies(layer):
            return before
        needs_heads("quest", layer)
        tokens = context_of(layer) if before.kept == CONTEXT else before.kept
        if before.attended not in (before.kept, tokens):
            raise InputError("quest selects among the tokens in HBM; another policy has selected already")
        digests = tokens * (layer.token_bytes / self.page)
        score = Work(
            "page_digest_score",
            digests + Line(base=layer.token_bytes / 2),  # a page's own digest is updated with each new key
            tokens * (4 * layer.heads * layer.head_dim / self.page),
            self.efficiency,
            source=f"{SOURCE}, section 3",
        )
        top = Work("page_top_k", launches=0, seconds=self.select, source="ArkVale (NeurIPS 2024), Fig. 9")
        written = Work("page_digest_build", as_prompt_grows(tokens) * (layer.token_bytes * (0.5 + 1 / self.page)))
        return replace(
            before.plus(works=(score, top), extra=digests),
            attended=tokens.capped(self.budget),
            prompt_works=(*before.prompt_works, written),
        )
