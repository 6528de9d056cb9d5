"""Speculating which keys the next layer needs, and fetching those ahead: InfiniGen."""

from __future__ import annotations

from dataclasses import replace

from hw_profiles.lines import Line, constant, lesser
from policies.options import number, rate, switch, whole
from policies.selection.base import Selector
from policies.sequence.plan import LayerPlan, LayerView, Move, When, Work
from policies.sequence.shapes import GATHER_RATE, context_of, needs_all_tokens, needs_heads, whole_share

SOURCE = "InfiniGen (OSDI 2024, arXiv 2406.19707)"
SCORE_PASSES = 8
"""Times that the speculated scores are written or read: written, maximum, threshold written and read with the scores,
counts written and read, top-k (counted in the repository's kv_selection_controller.py)."""
LAUNCHES = 10
"""Kernels of a speculation in the same file: projection, product, maximum, threshold, comparison, counts, top-k."""


class InfiniGen(Selector):
    """All KV in host memory; each layer guesses with the layer before which keys it needs, and only those are fetched.

    Per sequence and layer, with k(n) tokens fetched of n:
      HBM     a share of every key: 1 / 2 `partial_ratio` of KV (5.0 GB for OPT-13B, batch 20, 2048 tokens, 0.3), part
              of the query weights, buffers for what two layers fetched (and for all KV of one layer)
      host    all KV, x `pool`
      step    during layer l the scores of layer l + 1 are guessed from its input (reads the partial keys), host threads
              gather 2 k rows per head, one copy brings them; layer l + 1 waits for it. Layers that nothing is guessed
              for load everything. The new token's KV goes to the host
      prompt  all KV goes to the host, layer by layer
    k(n) is the tokens that hold `mass` of the attention (importance data: `keys_for`), the same for all heads and at
    most `max_share` of the context. The paper counts keys whose guessed score is within alpha = 4 to 5 of the highest
    (weight above exp(-4) = 2 % of the largest), which does not follow from any published statistic; the tokens of 0.9
    of the attention are published (164 of 2000) and agree with its Fig. 18 (about 8 % fetched).

    partial_ratio  share of the channels of keys and queries that the guess uses: 0.3 in the paper, 0.2 in its scripts
    mass           of the attention that the fetched keys should hold
    max_share      of the context that is fetched at most
    full_layers    layers that load everything: 2 in the repository (layer 0 has no layer before it, and its input does
                   not tell what layer 1 needs: guessing begins in layer 1)
    prefetch       false: a layer guesses for itself and waits for all of it (ablation)
    gather_rate    bytes/s of the host threads that collect rows
    pool           share of the tokens that host memory holds (the paper's limit: 0.8): others are dropped, with their
                   partial keys, and neither guessed nor loaded

    Source: InfiniGen (OSDI 2024, arXiv 2406.19707), sections 4 and 5; github.com/snu-comparch/InfiniGen.
    """

    assumptions = (
        "infinigen: fetches the tokens that hold `mass` of the attention, for the paper's threshold alpha; "
        "every guess is right (what it misses costs accuracy, not time)",
        "host threads gather rows of KV at 30 GB/s unless gather_rate says otherwise (estimate)",
    )

    def __init__(
        self,
        *,
        partial_ratio: float = 0.3,
        mass: float = 0.9,
        max_share: float = 0.2,
        full_layers: int = 2,
        prefetch: bool = True,
        gather_rate: float | str = GATHER_RATE,
        pool: float = 1.0,
    ) -> None:
        self.partial_ratio = number("partial_ratio", partial_ratio, 0.0, 1.0, above=True)
        self.mass = number("mass", mass, 0.0, 1.0, above=True)
        self.max_share = number("max_share", max_share, 0.0, 1.0, above=True)
        self.full_layers = whole("full_layers", full_layers, 0, 10_000)
        self.prefetch = switch("prefetch", prefetch)
        self.gather_rate = rate("gather_rate", gather_rate)
        self.pool = number("pool", pool, 0.0, 1.0, above=True)

    def plan(self, layer: LayerView, before: LayerPlan) -> LayerPlan:
        """The layer's plan."""
        needs_heads("infinigen", layer)
        needs_all_tokens("infinigen", layer, before)
        tokens = self._there(layer)
        stored = layer.token_bytes * whole_share(before)
        store = Move("d2h", constant(stored), constant(2), "async", source=SOURCE)
        whole = replace(
            before,
            kept=Line(),
            host=tokens * stored,
            attended=before.attended if self.pool == 1 else tokens,
            moves=(*before.moves, store),
            prompt_moves=(
                *before.prompt_moves,
                Move("d2h", context_of(layer) * stored, Line(), "async", source=SOURCE),
            ),
            kept_in_prefill=context_of(layer) * (2 / layer.layers),
        )
        if layer.index < self.full_layers:
            load = Move("h2d", tokens * stored, constant(2), source=f"{SOURCE}: the first layers load all")
            return whole.plus(moves=(load,), extra=tokens * (stored / self.full_layers))
        fetched = self.attended(layer)
        partial = tokens * (layer.token_bytes / 2 * self.partial_ratio)
        guess = Work(
            "speculation",
            partial + tokens * (SCORE_PASSES * layer.heads * layer.element_bytes),
            tokens * (2 * self.partial_ratio * layer.heads * layer.head_dim)
            + constant(2 * layer.hidden * self._width(layer)),
            launches=LAUNCHES,
            fixed=self._weights(layer),
            source=f"{SOURCE}, section 4.3",
        )
        when: When = "ahead" if self.prefetch else "critical"
        load = Move("h2d", fetched * stored, constant(2), when, "gather", self.gather_rate, source=f"{SOURCE}, 4.4")
        build = Work("partial_keys", Line(slope=layer.token_bytes / 2 * (1 + self.partial_ratio)), source=SOURCE)
        return replace(
            whole.plus(works=(guess,), moves=(load,), extra=partial + fetched * (2 * stored / layer.layers)),
            attended=fetched,
            prompt_works=(*before.prompt_works, build),
            fixed_extra=before.fixed_extra + self._weights(layer),
        )

    def applies(self, layer: LayerView) -> bool:
        """In layers that are guessed for."""
        return layer.index >= self.full_layers

    def coverage(self, layer: LayerView, context: float, prompt: float) -> float:
        """`mass`, by what k(n) is; where fewer tokens may be fetched, no more than the best as many hold."""
        if not self.applies(layer):
            return 1.0
        fetched = self.attended(layer).at(context, prompt)
        if fetched >= layer.importance.keys_for(self.mass).at(context, prompt) - 1:  # lines cross at whole tokens
            return self.mass
        return min(self.mass, super().coverage(layer, context, prompt))

    def attended(self, layer: LayerView) -> Line:
        """k(n): tokens fetched, of layers that are guessed for."""
        return lesser(layer.importance.keys_for(self.mass), context_of(layer) * min(self.max_share, self.pool))

    def _there(self, layer: LayerView) -> Line:
        """Tokens that have not been dropped."""
        return context_of(layer) if self.pool == 1 else context_of(layer) * self.pool

    def _width(self, layer: LayerView) -> float:
        """Columns of the partial query weight."""
        return self.partial_ratio * layer.heads * layer.head_dim

    def _weights(self, layer: LayerView) -> float:
        """Bytes of the partial query weight."""
        return layer.hidden * self._width(layer) * layer.element_bytes
