"""Finding the tokens that matter by product quantisation of their keys: PQCache."""

from __future__ import annotations

from dataclasses import replace

from hw_profiles.lines import Line, constant, through, upto
from policies.options import number, rate, switch, whole
from policies.selection.base import Selector
from policies.sequence.plan import LayerPlan, LayerView, Move, When, Work
from policies.sequence.shapes import GATHER_RATE, context_of, longest, needs_all_tokens, needs_heads, whole_share

SOURCE = "PQCache (SIGMOD 2025, arXiv 2407.12820)"
SCORE_PASSES = 6
"""Scores of a decode step are gathered, summed, scaled, read and written by the softmax, summed over the group and read
by top-k (counted in the repository's pq_search.py)."""
LAUNCHES = 8
"""Kernels in the same place: table, gather, sum, scale, softmax, sum over the group, top-k, look-up in the cache."""
KNOTS = 4
"""Prompt lengths, each half of the next, at which the importance data is asked for a hit ratio."""


class PQCache(Selector):
    """All KV in host memory; codes of the keys, fetched a layer ahead, say which tokens to load; a GPU cache has most.

    Per sequence and layer, with r = budget (share of the prompt P) of which a part `recent` is the newest tokens:
      HBM     `sinks` first tokens, r `recent` (P - sinks) newest ones, a cache of `cache` tokens, codes of two layers
      host    all KV and the codes: `subvectors` x `bits` bits per token and KV head, 0.59 % of the keys for 2 x 6
      step    codes and centroids come over the link while the layer before computes; scores from a table of query x
              centroids; top-k of r (1 - recent) (P - sinks) tokens; those not in the cache are gathered by host threads
              and the attention waits for them. One token leaves the newest ones, to the host
      prompt  KV goes to the host layer by layer, and host threads cluster the keys (K-means) while the GPU computes;
              the step waits only for what the GPU does not cover. The paper runs as many iterations as are covered, so
              only `iterations` that it cannot do without may show
    Sizes follow the prompt and not the context, as in the repository. The hit ratio comes from the importance data; 0.6
    is published for a cache of 4096 tokens. Layers with a sliding window keep it in HBM.

    subvectors, bits    2, 6 (LongBench) or 4, 8 (InfiniteBench)
    budget, recent      0.2 or 0.1 of the prompt; half of it
    sinks               tokens
    cache, block        tokens of the GPU cache and of its blocks (least frequently used goes)
    hit_ratio           of the selected tokens in that cache; None: from the importance data
    prefetch            false: a layer waits for its own codes (ablation)
    cores               of the host that cluster
    iterations          3: the fewest that the repository times (tools/model_kmeans_time.py)
    core_flops          FLOP/s of one core in K-means: assumed (a tenth of a core with AVX-512 at 2 GHz)
    gather_rate         bytes/s of the host threads that collect rows

    Source: PQCache (SIGMOD 2025, arXiv 2407.12820), sections 3 and 4; github.com/HugoZHL/PQCache.
    """

    assumptions = (
        "pqcache: the importance data's hit ratio is that of a context of ten tokens for each selected one, whatever "
        "share of the prompt is selected (hit_ratio says another)",
        "pqcache: a CPU core does 10 GFLOP/s of K-means unless core_flops says otherwise (assumed)",
        "host threads gather rows of KV at 30 GB/s unless gather_rate says otherwise (estimate)",
    )

    def __init__(
        self,
        *,
        subvectors: int = 2,
        bits: int = 6,
        budget: float = 0.2,
        recent: float = 0.5,
        sinks: int = 32,
        cache: int = 4096,
        block: int = 128,
        hit_ratio: float | None = None,
        prefetch: bool = True,
        cores: int = 48,
        iterations: int = 3,
        core_flops: float = 10e9,
        gather_rate: float | str = GATHER_RATE,
    ) -> None:
        self.subvectors = whole("subvectors", subvectors, 1, 256)
        self.bits = whole("bits", bits, 1, 16)
        self.budget = number("budget", budget, 0.0, 1.0, above=True)
        self.recent = number("recent", recent, 0.0, 1.0)
        self.sinks = whole("sinks", sinks, 0, 10**6)
        self.cache = whole("cache", cache, 0, 10**9)
        self.block = whole("block", block, 1, 10**6)
        self.hit_ratio = None if hit_ratio is None else number("hit_ratio", hit_ratio, 0.0, 1.0)
        self.prefetch = switch("prefetch", prefetch)
        self.cores = whole("cores", cores, 1, 10_000)
        self.iterations = whole("iterations", iterations, 1, 10_000)
        self.core_flops = number("core_flops", core_flops, 0.0, above=True)
        self.gather_rate = rate("gather_rate", gather_rate)

    def applies(self, layer: LayerView) -> bool:
        """Not in layers with a window, nor where everything is recent."""
        return layer.window is None and not (self.budget == 1.0 and self.recent == 1.0)

    def attended(self, layer: LayerView) -> Line:
        """The first tokens, and the budget of the rest of the prompt."""
        sinks = self._sinks()
        return sinks + (Line(prompt=1.0) - sinks) * self.budget

    def plan(self, layer: LayerView, before: LayerPlan) -> LayerPlan:
        """The layer's plan."""
        if not self.applies(layer):
            return before
        needs_heads("pqcache", layer)
        needs_all_tokens("pqcache", layer, before)
        stored = layer.token_bytes * whole_share(before)
        tokens = context_of(layer)
        sinks = self._sinks()
        newest = sinks + (Line(prompt=1.0) - sinks) * (self.budget * self.recent)
        codes = tokens * self.code_bytes(layer)
        ahead: When = "ahead" if self.prefetch and layer.index else "critical"
        missed = self.missed(layer)
        moves = (
            Move("h2d", codes + constant(self.centroid_bytes(layer)), constant(2), ahead, source=f"{SOURCE}: codes"),
            Move("h2d", missed * stored, constant(2), "critical", "gather", self.gather_rate, source=SOURCE),
            Move("d2h", constant(stored), constant(2), "async", source=f"{SOURCE}: leaves the newest tokens"),
        )
        held = newest + (upto(min(self.cache, longest(layer))) if self.cache else Line())
        return replace(
            before.plus(
                works=(self._scores(layer, codes),),
                moves=moves,
                extra=(codes + constant(self.centroid_bytes(layer)) + missed * stored) * (2 / layer.layers),
            ),
            kept=held,
            attended=self.attended(layer),
            host=tokens * stored + codes,
            prompt_works=(*before.prompt_works, self._clustering(layer)),
            prompt_moves=(*before.prompt_moves, Move("d2h", Line(slope=stored), Line(), "async", source=SOURCE)),
            kept_in_prefill=tokens * (2 / layer.layers),
        )

    def code_bytes(self, layer: LayerView) -> float:
        """Bytes of the codes of one token, all KV heads."""
        return layer.kv_heads * self.subvectors * self.bits / 8

    def centroid_bytes(self, layer: LayerView) -> float:
        """Bytes of the centroids of a sequence, all KV heads: 2^bits vectors that together are as wide as a key."""
        return float(layer.kv_heads * 2**self.bits * layer.head_dim * layer.element_bytes)

    def missed(self, layer: LayerView) -> Line:
        """Tokens per step that are selected and not in the GPU cache: a line in the prompt.

        None while the cache holds the whole prompt; straight between the lengths that the importance data is asked for.
        """
        most, begin = layer.max_context, max(self.sinks, self.cache)
        points = [(0, 0.0)] + [(begin, 0.0)] * bool(begin)
        for length in sorted({most >> shift for shift in range(KNOTS)}):
            if length > begin:
                selected = self.budget * (1 - self.recent) * (length - self.sinks)
                points.append((length, (1 - self._hits(layer, round(selected))) * selected))
        return through(points).at_prompt()

    def _sinks(self) -> Line:
        return Line(prompt_caps=((self.sinks, 1.0),)) if self.sinks else Line()

    def _hits(self, layer: LayerView, selected: int) -> float:
        if not (self.cache and selected):
            return 0.0
        if self.hit_ratio is not None:
            return self.hit_ratio
        return layer.importance.hit_ratio(self.cache, selected, self.block)

    def _scores(self, layer: LayerView, codes: Line) -> Work:
        return Work(
            "pq_scores",
            codes + context_of(layer) * (SCORE_PASSES * layer.heads * layer.element_bytes),
            constant(2.0 * layer.heads * 2**self.bits * layer.head_dim),
            launches=LAUNCHES,
            source=f"{SOURCE}, section 3.3",
        )

    def _clustering(self, layer: LayerView) -> Work:
        """K-means of each head's keys: per iteration, distances of every key to 2^bits centroids."""
        flops = 2.0 * layer.kv_heads * layer.head_dim * 2**self.bits * self.iterations
        return Work(
            "kmeans",
            launches=0,
            host_seconds=Line(slope=flops / (self.cores * self.core_flops)),
            beside=True,
            source=f"{SOURCE}, section 3.3",
        )
