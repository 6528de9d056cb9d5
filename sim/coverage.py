"""What policies on top of one another keep of the attention."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from policies.sequence.plan import LayerPlan, LayerView, SequencePolicy
from policies.sequence.shapes import context_of
from sim.idle import untouched

Covers = Callable[[float, float], float]


def coverages(policies: Sequence[SequencePolicy], layer: LayerView) -> tuple[tuple[str, Covers], ...]:
    """By policy that says what share of the attention mass it keeps: that share, of (context, prompt), in this layer.

    A policy chooses among what those before it leave: it covers no more than they do, nor than the best of as many
    tokens as they have a step attend.
    """
    found: list[tuple[str, Covers]] = []
    earlier: list[Covers] = []
    plan = untouched(layer)
    for policy in policies:
        own: Any = getattr(policy, "coverage", None)
        before = plan
        plan = policy.plan(layer, before)
        if own is None:
            continue
        limits = list(earlier)
        if before.attended != untouched(layer).attended:
            limits.append(partial(_best, layer, before))
        earlier.append(partial(own, layer))
        found.append((type(policy).__name__, partial(_least, (partial(own, layer), *limits))))
    return tuple(found)


def _least(shares: Sequence[Covers], context: float, prompt: float) -> float:
    return min(share(context, prompt) for share in shares)


def _best(layer: LayerView, plan: LayerPlan, context: float, prompt: float) -> float:
    """Of the best as many tokens as a step attends."""
    seen = context_of(layer).at(context, prompt)
    return layer.importance.coverage(min(plan.attended.at(context, prompt), seen), seen)
