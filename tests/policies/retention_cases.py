"""A layer for tests of retention, and places in its sequences."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from hw_profiles.lines import Line, constant
from policies.sequence.plan import LayerView
from tests.policies.layer_cases import layer_of

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


def layer(kv_heads: int = 32, **changes: Any) -> LayerView:
    """A layer of Llama-2-7B, or with fewer KV heads; latent: of DeepSeek (512 + 64 values)."""
    return layer_of(Halves(), kv_heads=kv_heads, max_context=LONGEST, **changes)
