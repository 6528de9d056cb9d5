"""A layer for tests of selection, importance data that answer the same, and bytes that a plan moves."""

from dataclasses import dataclass, replace
from typing import Any

from hw_profiles.lines import CONTEXT, Line, constant
from policies.sequence.plan import FULL, LayerPlan, LayerView, SequencePolicy

MIB = 1 << 20
QUARTER = constant(0.25)


@dataclass(frozen=True)
class Stub:
    """Importance data that answer the same whatever is asked."""

    pages: Line = QUARTER
    keys: Line = CONTEXT * 0.08
    hits: float = 0.6
    name: str = "stub"

    def recalls(self, selected: int, cached: int, page_tokens: int) -> Line:
        return self.pages

    def keys_for(self, mass: float) -> Line:
        return self.keys

    def hit_ratio(self, cached_tokens: int, selected_tokens: int, block_tokens: int) -> float:
        return self.hits

    def coverage(self, kept: float, context: float) -> float:
        return min(1.0, kept / context)


def layer(
    heads: int = 32, layers: int = 32, kv_heads: int | None = None, importance: Stub = Stub(), **changes: Any
) -> LayerView:
    """A layer of a model with heads of 128 and 16-bit KV; Llama-2-7B (32 x 32) if nothing else is said."""
    kv = kv_heads or heads
    view = LayerView(
        index=5,
        layers=layers,
        hidden=heads * 128,
        heads=heads,
        kv_heads=kv,
        head_dim=128,
        token_bytes=2 * kv * 128 * 2,
        element_bytes=2,
        latent=False,
        window=None,
        max_context=32768,
        max_seqs=64,
        importance=importance,
    )
    return replace(view, **changes)


def moved(plan: LayerPlan, direction: str, context: float, prompt: float = 0.0, when: str | None = None) -> float:
    """Bytes that a decode step moves for one sequence and this layer."""
    moves = [m for m in plan.moves if m.direction == direction and when in (None, m.when)]
    return sum(m.nbytes.at(context, prompt) for m in moves)


def model(policy: SequencePolicy, view: LayerView, before: LayerPlan = FULL) -> list[LayerPlan]:
    """The plans of all layers."""
    return [policy.plan(replace(view, index=i), before) for i in range(view.layers)]
