"""Why a policy within a sequence leaves every layer as it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from hw_profiles.errors import InputError
from hw_profiles.lines import CONTEXT, Line, constant, upto
from policies.checks.plan import plan_of
from policies.sequence.plan import FULL, LayerPlan, LayerView, SequencePolicy

FAR = 1 << 31
"""Tokens beyond any budget."""


class _Even:
    """An attention that is the same everywhere: what a policy makes of it does not matter, only whether it acts."""

    name = "even"

    def recalls(self, selected: int, cached: int, page_tokens: int) -> Line:
        return constant(1.0)

    def keys_for(self, mass: float) -> Line:
        return CONTEXT * mass

    def hit_ratio(self, cached_tokens: int, selected_tokens: int, block_tokens: int) -> float:
        return 0.5

    def coverage(self, kept: float, context: float) -> float:
        return min(1.0, kept / context)


def untouched(layer: LayerView) -> LayerPlan:
    """What the engine does with the layer by itself."""
    return FULL if layer.window is None else LayerPlan(kept=CONTEXT, attended=upto(layer.window))


def why_idle(policy: SequencePolicy, layers: Sequence[LayerView], model: str) -> str | None:
    """The reason why `policy` does nothing in these layers, found by asking what it would do with longer sequences and
    without windows; None where it does nothing then either, as its options ask for nothing."""
    layers = [replace(v, importance=_Even()) for v in layers]
    if _would_act(policy, [replace(v, max_context=FAR, longest=FAR, window=v.window and FAR) for v in layers]):
        most = max(min(v.longest_sequence, v.window or v.longest_sequence) for v in layers)
        window = all(v.window and v.window < v.longest_sequence for v in layers)
        what = "the sliding window of all layers" if window else "the longest sequence of the run"
        return f"changes nothing: its budget holds {what}, {most} tokens"
    full = [replace(v, window=None) for v in layers]
    if _would_act(policy, full) or _would_act(policy, [replace(v, max_context=FAR, longest=FAR) for v in full]):
        return f"changes nothing: it leaves layers with a sliding window alone, and {model} has no other"
    return None


def _would_act(policy: SequencePolicy, layers: Sequence[LayerView]) -> bool:
    """Whether it changes any of the layers, or refuses to."""
    try:
        return any(plan_of(policy, "", layer, untouched(layer)) != untouched(layer) for layer in layers)
    except InputError:
        return True
