"""The provider that ships: fitted processes of page and token relevance, no model and no file needed."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache

from hw_profiles.errors import InputError
from hw_profiles.lines import Line
from traces.importance import coverage, grid, tokens
from traces.importance.curves import thinned, through
from traces.importance.facts import FRESH, GUESS, HITS, KEYS, LAYERS, MASS, RECALLS, REGION, TAIL, Fact
from traces.importance.pages import PAGE_TOKENS, SETTINGS, page_scores
from traces.importance.provider import check_sizes
from traces.importance.replay import recalls
from traces.random import stream

FITTED_TOKENS = 40 * PAGE_TOKENS
"""Selected tokens up to which the page process holds (docs/importance.md: not beyond 40 pages of 32)."""
RATIOS = (1, 1.5, 2, 3, 4, 6, 8, 12, 16, 24, 32, *(2**power for power in range(6, 14)))
"""Contexts that recalls are taken at, as multiples of the cache."""
MOST_PAGES = grid.PAGES[-1]
ERROR, LEAST = 0.05, 2e-3
"""How far a line may be from the points it leaves out: a share of their value, or recalls that nobody notices."""
ON_DEMAND, LARGE, FEWER_STEPS = (1.5, 2.0, 4.0), 8192, 100
"""Contexts that are simulated on demand, of caches up to LARGE pages; twice the cache alone for larger ones."""


@dataclass(frozen=True)
class Synthetic:
    """The page process in one of its settings, and the token process."""

    setting: str = "recommended"
    asked: dict[str, None] = field(default_factory=dict, repr=False, compare=False)

    @property
    def name(self) -> str:
        """With its setting."""
        return f"synthetic/{self.setting}"

    @property
    def about(self) -> str:
        """One line for the report."""
        return (
            f"synthetic, setting {self.setting}; pages fitted to ArkVale Fig. 4b (rms factor 1.6; contexts beyond "
            "17,600 tokens are extrapolated), tokens to single statistics of InfiniGen, PQCache and arXiv 2603.13430; "
            f"the data does not tell the settings {', '.join(SETTINGS)} apart: compare them"
        )

    @property
    def kinds(self) -> tuple[Fact, ...]:
        """All that was fitted."""
        return (RECALLS, MASS, KEYS, TAIL, HITS, FRESH, LAYERS, GUESS, REGION)

    @property
    def notes(self) -> tuple[str, ...]:
        """What was asked beyond the fits."""
        return tuple(self.asked)

    def recalls(self, selected: int, cached: int, page_tokens: int) -> Line:
        """Mean over the first 200 steps of an answer; level beyond contexts of 32768 pages."""
        check_sizes(selected, cached, page_tokens)
        if selected * page_tokens > FITTED_TOKENS:
            self.asked[
                f"{selected} selected pages of {page_tokens} tokens are more than the {FITTED_TOKENS} "
                "tokens that the page process was fitted to; of 2048 it recalls 7 times too few (ArkVale Fig. 4b)"
            ] = None
        if page_tokens != PAGE_TOKENS:
            self.asked[f"pages of {page_tokens} tokens are taken to change as those of {PAGE_TOKENS} do"] = None
        return through([(pages * page_tokens, value) for pages, value in recall_points(self.setting, selected, cached)])

    def keys_for(self, mass: float) -> Line:
        """As InfiniGen publishes for 0.9; other masses by the tail that ArkVale publishes."""
        return tokens.keys_for(mass)

    def hit_ratio(
        self, cached_tokens: int, selected_tokens: int, block_tokens: int, context: float | None = None
    ) -> float:
        """Of the token process, in a context of 10 tokens for each selected one unless `context` is given."""
        return tokens.hit_ratio(cached_tokens, selected_tokens, block_tokens, context)

    def new_fraction(self, selected_tokens: float, context: float) -> float:
        """Share of the selected tokens that were not selected a step before."""
        return tokens.new_fraction(selected_tokens, context)

    def layer_overlap(self, selected_tokens: float, context: float) -> float:
        """Share of the tokens that a layer selects that the layer before selects too."""
        return tokens.layer_overlap(selected_tokens, context)

    def guessed(self, needed_tokens: float, fetched_tokens: float, context: float) -> float:
        """Share of the tokens that a layer needs among those fetched on a guess made a layer earlier."""
        return tokens.guessed(needed_tokens, fetched_tokens, context)

    def coverage(self, kept: float, context: float) -> float:
        """In pages of 32 tokens."""
        return coverage.shipped(self.setting).of(kept / PAGE_TOKENS, context / PAGE_TOKENS)


@cache
def recall_points(setting: str, selected: int, cached: int) -> tuple[tuple[float, float], ...]:
    """(pages of the context, recalls per layer and step), rising from none at `cached`; as few points as will do.

    From the shipped table; sizes that it does not reach (more than 160 selected, large caches) are simulated, in a
    second or two. Raises InputError for a cache of more than 32768 pages, which is not simulated.
    """
    if cached > MOST_PAGES:
        raise InputError("a page cache this large is not simulated", found=cached, allowed=f"<= {MOST_PAGES} pages")
    table = grid.shipped(setting)
    if not table.reaches(selected, cached):
        return _simulated(setting, selected, cached)
    points: list[tuple[float, float]] = []
    highest = 0.0
    for ratio in RATIOS:
        pages = min(cached * ratio, MOST_PAGES)
        highest = max(highest, table.recalls(selected, cached, pages))  # what falls is noise of the table
        if not points or pages > points[-1][0]:
            points.append((pages, highest))
    return tuple(thinned(points, ERROR, LEAST))


def _simulated(setting: str, selected: int, cached: int) -> tuple[tuple[float, float], ...]:
    points = [(float(cached), 0.0)]
    ratios, layers = (ON_DEMAND, 2) if cached <= LARGE else ((2.0,), 1)
    for ratio in ratios:
        pages = int(cached * ratio)
        draws = stream(grid.SEED, f"importance.{setting}", pages)
        scores = page_scores(SETTINGS[setting], pages, draws, steps=FEWER_STEPS, layers=layers)
        points.append((float(pages), max(points[-1][1], recalls(scores, selected, [cached])[0])))
    return tuple(points)
