"""LESS: a small state per head remembers what a sparse policy drops."""

from __future__ import annotations

from dataclasses import replace

from hw_profiles.errors import InputError
from hw_profiles.lines import Line, constant
from policies.options import choice, whole
from policies.retention.budget import amount, applies, coverage
from policies.retention.h2o import H2O
from policies.retention.streaming_llm import StreamingLLM
from policies.sequence.plan import FULL, LayerPlan, LayerView, SequencePolicy, Work
from policies.sequence.scores import ACTIVATION_BYTES

SOURCE = "hdong920/LESS, src/inference/generative/llama_gen.py"


class LESS(SequencePolicy):
    """A sparse policy that adds what it drops to a state of constant size: 4.03 tokens a head at rank 8, d = 128.

    The state of a head is a matrix of rank x d and a vector of rank. A dropped token's key is mapped to `rank` values
    by a small two-layer network (d to `hidden` to rank) and added with its value; every step maps its query by another
    one, reads the state, and adds its part to that of the tokens kept. The networks of all heads are weights that every
    step reads.

    heavy, recent    tokens kept of either kind: shares of `max_positions` as in the paper, or tokens; heavy ones of
                     `lambda` are the first ones
    sparse           h2o: heavy ones by accumulated attention. lambda: sinks and a window, without scores
    rank, hidden     widths of the networks
    max_positions    tokens of which budgets are shares; by default the longest context of the model, whatever the run's
                     own sequences (so a share of few tokens in the paper is one of many in a model of 128k)

    Source: H. Dong et al., "Get more with LESS", ICML 2024 (arXiv 2402.09398), section 3; repository hdong920/LESS
    (scripts of llama2_7b: ratios 0.025, ker_dim 8, ker_hid 512, of max_position_embeddings 4096). Its code masks
    instead of dropping, so that its speed cannot be read from it: kernels here count bytes and FLOP of the description.
    """

    def __init__(
        self,
        *,
        heavy: float = 0.025,
        recent: float = 0.025,
        sparse: str = "h2o",
        rank: int = 8,
        hidden: int = 512,
        max_positions: int | None = None,
    ) -> None:
        self._heavy, self._recent = amount("heavy", heavy), amount("recent", recent)
        if not recent:
            raise ValueError(f"recent: found {recent!r}, expected at least the newest token")
        self._h2o = choice("sparse", sparse, ("h2o", "lambda")) == "h2o"
        self._rank = whole("rank", rank, 1, 1024)
        self._hidden = whole("hidden", hidden, 1, 1 << 16)
        self._positions = max_positions if max_positions is None else whole("max_positions", max_positions, 1, 1 << 30)

    def plan(self, layer: LayerView, before: LayerPlan) -> LayerPlan:
        """The layer's plan: that of the sparse policy, and the state."""
        if layer.latent:
            raise InputError(
                "less cannot be used with latent attention (MLA): it keeps tokens and a state for each head"
            )
        heavy, recent = self._tokens(layer)
        if not applies(layer, heavy + recent):
            return before
        sparse: SequencePolicy = StreamingLLM(sinks=heavy, window=recent, fused_rope=True)
        if self._h2o:
            sparse = H2O(heavy=heavy, recent=recent)
        self.assumptions = (*self._said(layer), *sparse.assumptions)
        plan = sparse.plan(layer, before)
        state = ACTIVATION_BYTES * layer.kv_heads * self._rank * (layer.head_dim + 1)
        network = layer.head_dim * self._hidden + self._hidden * self._rank
        weights = float(ACTIVATION_BYTES * (layer.heads + layer.kv_heads) * network)
        step = Work(
            "map, read and update the state",
            constant(3.0 * state),
            constant(2.0 * (layer.heads + layer.kv_heads) * network),
            launches=4,
            fixed=weights,
            source=SOURCE,
        )
        plan = replace(
            plan,
            extra=plan.extra + constant(state),
            fixed_extra=plan.fixed_extra + weights,
            works=(*plan.works, step),
        )
        return self._fold(layer, plan, before.kept.at_prompt() - plan.kept.at_prompt())

    def _fold(self, layer: LayerView, plan: LayerPlan, dropped: Line) -> LayerPlan:
        """What the prompt drops is mapped and added, once."""
        rank, hidden = self._rank, self._hidden
        each = ACTIVATION_BYTES * layer.kv_heads * (layer.head_dim + 2 * hidden + 2 * rank) + layer.token_bytes / 2
        flops = 2.0 * layer.kv_heads * (layer.head_dim * hidden + hidden * rank + rank * layer.head_dim)
        kernel = "add what is dropped to the state"
        fold = Work(kernel, dropped * each, dropped * flops, launches=8, source=SOURCE)
        return replace(plan, after_prompt=(*plan.after_prompt, fold))

    def coverage(self, layer: LayerView, context: float, prompt: float) -> float:
        """Share of the attention mass that as many tokens hold at best, without what the state remembers."""
        tokens = sum(self._tokens(layer))
        return coverage(layer, FULL.kept.capped(tokens), context, prompt) if applies(layer, tokens) else 1.0

    def _said(self, layer: LayerView) -> tuple[str, ...]:
        """What the shares come to."""
        if isinstance(self._heavy, int) and isinstance(self._recent, int):
            return ()
        heavy, recent = self._tokens(layer)
        if self._positions:
            whose = f"the {self._positions} tokens of max_positions"
        else:
            whose = f"the {layer.max_context} tokens that the model allows, however short sequences are (max_positions)"
        return (f"less: {heavy} heavy and {recent} recent tokens are kept, shares of {whose}",)

    def _tokens(self, layer: LayerView) -> tuple[int, int]:
        """(heavy, recent) tokens."""
        positions = self._positions or layer.max_context
        heavy, recent = (n if isinstance(n, int) else int(n * positions) for n in (self._heavy, self._recent))
        return heavy, max(1, recent)
