"""A layer for tests of retention, and places in its sequences."""

from __future__ import annotations

from functools import reduce

from hypothesis import strategies as st

from hw_profiles.lines import Line, constant
from policies.sequence.plan import FULL, LayerPlan, LayerView, SequencePolicy

LONGEST = 4096
PLACE = st.tuples(st.integers(0, LONGEST), st.integers(1, LONGEST)).map(lambda pair: (max(pair), min(pair) or 1))
"""(context, prompt)"""


class Halves:
    """Attention that half of the tokens hold three quarters of."""

    name = "halves"

    def coverage(self, kept: float, context: float) -> float:
        return min(1.0, 1.5 * kept / context)

    def recalls(self, selected: int, cached: int, page_tokens: int) -> Line:
        return constant(0.01)


def layer(kv_heads: int = 32, *, latent: bool = False, window: int | None = None, layers: int = 32) -> LayerView:
    """A layer of Llama-2-7B, or with fewer KV heads; latent: of DeepSeek (512 + 64 values)."""
    return LayerView(
        index=3,
        layers=layers,
        hidden=4096,
        heads=32,
        kv_heads=1 if latent else kv_heads,
        head_dim=128,
        token_bytes=1152 if latent else 2 * kv_heads * 128 * 2,
        element_bytes=2,
        latent=latent,
        window=window,
        max_context=LONGEST,
        max_seqs=64,
        importance=Halves(),  # type: ignore[arg-type]
    )


def fold(view: LayerView, *policies: SequencePolicy) -> LayerPlan:
    return reduce(lambda plan, policy: policy.plan(view, plan), policies, FULL)
