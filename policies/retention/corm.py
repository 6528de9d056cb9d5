"""CORM: no budget; what the last queries cared for stays, however much that is."""

from __future__ import annotations

from dataclasses import replace

from hw_profiles.errors import InputError
from hw_profiles.lines import CONTEXT, Line, through
from policies.options import whole
from policies.retention.budget import applies, coverage, gather, keeping, last_queries
from policies.sequence.plan import Importance, LayerPlan, LayerView, SequencePolicy, Work
from policies.sequence.scores import ACTIVATION_BYTES, row_bytes

GROWTH = 1.25
"""Sizes of the set of tokens at which its growth is asked for, as a ratio."""
SOURCE = "CORM (arXiv 2404.15949), section 4"


class CORM(SequencePolicy):
    """Drops a token once none of the last `window` queries attended it more than 1/t, the mean over t tokens.

    How much stays follows from the importance data alone. A query cares for the k best units whose share of the mass is
    above the mean (from `coverage`). With each further query the set of what the window cared for grows by what it
    cares for that is not in the set yet; new members of a set of size s are the misses of a cache of that size
    (`recalls`), as for any working set (Denning and Schwartz, CACM 1972). So ds/dj = recalls(k, s) from s(1) = k to
    s(window). The newest `recent` tokens stay as well. Per token and KV head a bit for each query of the window stays
    beside the KV (32 bytes of 512 at 256 queries and heads of 128). Every step writes its scores; a prompt runs with a
    fused kernel, and its last `window` queries are scored when it is complete.

    window  queries whose opinion counts
    recent  newest tokens that stay whatever they say
    page    tokens of a unit of relevance: those that the data can tell apart (1 with recorded single tokens)

    Source: J. Dai et al., "CORM" (arXiv 2404.15949), section 4 (from notes on it; 256 queries and 256 recent tokens
    recalled). The synthetic data's pages are of a model and texts like the paper's (LongChat-7B on LongBench); its
    single tokens, of DeepSeek's indexers, change far faster, and 256 queries would then care for nearly all.
    """

    assumptions = (
        "corm: of a page that matters all tokens are kept; the set that a window cares for grows as a cache of its "
        "size misses",
    )

    def __init__(self, *, window: int = 256, recent: int = 256, page: int = 32) -> None:
        self._window = whole("window", window, 1, 1 << 16)
        self._recent = whole("recent", recent, 1, 1 << 30)
        self._page = whole("page", page, 1, 4096)
        self._known: tuple[Importance, int, Line] | None = None

    def plan(self, layer: LayerView, before: LayerPlan) -> LayerPlan:
        """The layer's plan, with what its queries care for."""
        if layer.latent:
            raise InputError("corm cannot be used with latent attention (MLA): it keeps other tokens for each head")
        if not applies(layer, self._recent):
            return before
        if before.kept != CONTEXT or before.attended != CONTEXT:
            raise InputError("corm keeps what matters of all tokens, and another policy has dropped some of them")
        kept = self.kept(layer)
        plan = keeping(before, kept, kept)
        bits = self._window / 8 * layer.kv_heads
        step = row_bytes(layer) + ACTIVATION_BYTES * layer.heads + layer.kv_heads / 4
        scores = Work("scores, bits of the newest query", kept * step + kept * bits, launches=6, source=SOURCE)
        return replace(
            plan,
            extra=plan.extra + kept * bits,
            works=(*plan.works, scores),
            after_prompt=(
                *plan.after_prompt,
                last_queries(layer, self._window, SOURCE),
                gather(layer, plan, 4, SOURCE),
            ),
        )

    def kept(self, layer: LayerView) -> Line:
        """Tokens kept, by context: the least concave line above what is found at some contexts."""
        if self._known is None or self._known[0] is not layer.importance or self._known[1] != layer.max_context:
            self._known = (layer.importance, layer.max_context, self._line(layer))
        return self._known[2]

    def coverage(self, layer: LayerView, context: float, prompt: float) -> float:
        """Share of the attention mass that as many tokens hold at best."""
        return coverage(layer, self.kept(layer), context, prompt) if applies(layer, self._recent) else 1.0

    def _line(self, layer: LayerView) -> Line:
        points = [(0, 0.0), (self._recent, float(self._recent))]
        context = 2 * self._recent
        while points[-1][0] < layer.max_context:
            n = min(context, layer.max_context)
            cared = min(self._cared(layer.importance, n), n - self._recent)
            points.append((n, max(cared + self._recent, points[-1][1])))
            context *= 2
        hull = _concave(points)
        return through(hull, (hull[-1][1] - hull[-2][1]) / (hull[-1][0] - hull[-2][0]))

    def _cared(self, importance: Importance, context: int) -> float:
        """Tokens of a context that any query of the window cares for."""
        units = max(1, context // self._page)
        each = self._each(importance, context, units)
        size, queries = float(each), 1.0
        rate = self._rate(importance, each, each, context)
        while size < units and queries < self._window:
            if rate <= 0:
                break
            step = min(size * (GROWTH - 1), units - size)
            after = self._rate(importance, each, round(size + step), context)
            needed = step / ((rate + after) / 2)
            if queries + needed >= self._window:
                return (size + step * (self._window - queries) / needed) * self._page
            size, queries, rate = size + step, queries + needed, after
        return min(size, units) * self._page

    def _rate(self, importance: Importance, each: int, size: int, context: int) -> float:
        """Units per query that it cares for and none of the last ones did."""
        return importance.recalls(each, max(each, size), self._page).at(context, context)

    def _each(self, importance: Importance, context: int, units: int) -> int:
        """Units whose share of the mass is above the mean, of one query: shares fall with rank."""
        low, high = 1, units
        while low < high:
            middle = (low + high + 1) // 2
            more, fewer = (importance.coverage(k * self._page, context) for k in (middle, middle - 1))
            low, high = (middle, high) if more - fewer >= self._page / context else (low, middle - 1)
        return low


def _concave(points: list[tuple[int, float]]) -> list[tuple[int, float]]:
    """The upper hull of points in order."""
    hull: list[tuple[int, float]] = []
    for x, y in points:
        while len(hull) > 1 and (hull[-1][1] - hull[-2][1]) * (x - hull[-2][0]) <= (y - hull[-2][1]) * (
            hull[-1][0] - hull[-2][0]
        ):
            hull.pop()
        hull.append((x, y))
    return hull
