"""A layer as policies within a sequence see it."""

from __future__ import annotations

from dataclasses import replace
from functools import reduce
from typing import Any

from policies.sequence.plan import FULL, LayerPlan, LayerView, SequencePolicy


class NoImportance:
    """Nobody asks for any."""

    name = "none"


LLAMA_2_7B = LayerView(
    index=3,
    layers=32,
    hidden=4096,
    heads=32,
    kv_heads=32,
    head_dim=128,
    token_bytes=2 * 32 * 128 * 2,
    element_bytes=2,
    latent=False,
    window=None,
    max_context=4096,
    max_seqs=64,
    importance=NoImportance(),  # type: ignore[arg-type]
)


def layer_of(
    importance: Any = LLAMA_2_7B.importance, *, kv_heads: int = 32, latent: bool = False, **changes: Any
) -> LayerView:
    """A layer of Llama-2-7B, or with fewer KV heads; latent: of DeepSeek (512 + 64 values)."""
    element = changes.get("element_bytes", 2)
    return replace(
        LLAMA_2_7B,
        importance=importance,
        kv_heads=1 if latent else kv_heads,
        latent=latent,
        token_bytes=576 * element if latent else 2 * kv_heads * 128 * element,
        **changes,
    )


def fold(view: LayerView, *policies: SequencePolicy, before: LayerPlan = FULL) -> LayerPlan:
    """The plan of policies one after the other."""
    return reduce(lambda plan, policy: policy.plan(view, plan), policies, before)
