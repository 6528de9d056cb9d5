"""Budgets that differ by layer and head: how a total is divided, and what storing uneven parts costs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from hw_profiles.errors import InputError
from hw_profiles.lines import CONTEXT, Line
from policies.options import choice, whole
from policies.retention.budget import applies, gather, keeping, last_queries
from policies.sequence.plan import LayerPlan, LayerView, SequencePolicy, Work
from policies.sequence.shapes import whole_share

Weights = Sequence[float] | None
STORAGE = ("ragged", "heads", "layers")


class DividedBudget(SequencePolicy):
    """Keeps part of a prompt as SnapKV does, with a budget per layer and KV head of one total, and all that follows.

    The total is `budget` tokens x layers x KV heads. Of it every head has the `window` newest tokens of the prompt, and
    the rest is divided in proportion to `weights` over the layers and `head_weights` over the heads of each; whole
    tokens, the largest remainders first, so that the total is met exactly.

    budget        mean tokens of the prompt per layer and head
    window        last queries of the prompt, which vote and are kept
    weights       a number per layer, as a profile of the model measured it; two numbers: those of the first and the
                  last layer, straight in between; none: all layers alike
    head_weights  the same for the KV heads of a layer
    storage       ragged: every head's tokens alone (pages per head). heads: the heads of a layer are padded to the
                  longest. layers: all layers and heads are (one block table). Attention reads what is valid
    """

    title = "budgets"
    """Its name in messages."""
    source = ""
    """Of its kernels."""

    def __init__(
        self,
        *,
        budget: int = 2048,
        window: int = 32,
        weights: Weights = None,
        head_weights: Weights = None,
        storage: str = "ragged",
    ) -> None:
        self._window = whole("window", window, 1, 1 << 20)
        self._budget = whole("budget", budget, 1, 1 << 30)
        if budget < window:
            raise ValueError(f"budget: found {budget}, expected no less than the window, {window}")
        self._weights = _checked("weights", weights)
        self._head_weights = _checked("head_weights", head_weights)
        self._storage = choice("storage", storage, STORAGE)

    def plan(self, layer: LayerView, before: LayerPlan) -> LayerPlan:
        """The layer's plan, with its part of the total."""
        if layer.latent:
            raise InputError(
                f"{self.title} cannot be used with latent attention (MLA): it keeps other tokens for each head"
            )
        if not applies(layer):
            return before
        heads, longest = self._heads(layer), self._longest(layer)
        if min(heads) >= layer.longest_sequence:
            return before
        if before.kept != CONTEXT or before.attended != CONTEXT:
            raise InputError(f"{self.title} keeps part of a whole prompt, and another policy has dropped some of it")
        kept = _kept(heads)
        plan = keeping(before, kept, kept)
        padding = (_kept([longest]) - kept) * (layer.token_bytes * whole_share(before))
        vote = last_queries(layer, self._window, self.source)
        return replace(
            plan,
            extra=plan.extra + padding if longest else plan.extra,
            after_prompt=(*plan.after_prompt, vote, *self.scoring(layer), gather(layer, plan, 4, self.source)),
        )

    def coverage(self, layer: LayerView, context: float, prompt: float) -> float:
        """Share of the attention mass that as many tokens hold at best, the mean over heads."""
        heads = self._heads(layer)
        if not applies(layer) or min(heads) >= layer.longest_sequence:
            return 1.0
        found = {
            b: layer.importance.coverage(min(_kept([b]).at(context, prompt), context), context) for b in set(heads)
        }
        return sum(found[b] for b in heads) / len(heads)

    def budgets(self, layer: LayerView) -> list[int]:
        """Tokens per head of each layer on average, times the heads."""
        weights = _spread("weights", self.worth(layer), layer.layers)
        return allot(self._budget * layer.layers * layer.kv_heads, weights, self._window * layer.kv_heads)

    def worth(self, layer: LayerView) -> tuple[float, ...] | None:
        """Weights of the layers; None: all alike."""
        return self._weights

    def scoring(self, layer: LayerView) -> tuple[Work, ...]:
        """Kernels of its own when a prompt is complete."""
        return ()

    def _heads(self, layer: LayerView, index: int | None = None) -> list[int]:
        """Tokens of each KV head of the layer."""
        total = self.budgets(layer)[layer.index if index is None else index]
        return allot(total, _spread("head_weights", self._head_weights, layer.kv_heads), self._window)

    def _longest(self, layer: LayerView) -> int:
        """Tokens to which heads are padded; 0: to none."""
        if self._storage == "ragged":
            return 0
        if self._storage == "heads":
            return max(self._heads(layer))
        return max(max(self._heads(layer, index)) for index in range(layer.layers))


def allot(total: int, weights: Sequence[float], least: int) -> list[int]:
    """`total` in whole parts: `least` each, and the rest in proportion to `weights`, largest remainders first."""
    rest, whole_weight = total - least * len(weights), sum(weights)
    exact = [rest * w / whole_weight for w in weights]
    parts = [math.floor(x) for x in exact]
    order = sorted(range(len(parts)), key=lambda i: (parts[i] - exact[i], i))
    for i in order[: rest - sum(parts)]:
        parts[i] += 1
    return [least + part for part in parts]


def _kept(budgets: Sequence[int]) -> Line:
    """Mean tokens over heads with these budgets: of the prompt, and all that follows."""
    line = Line(slope=1.0, prompt=-1.0)
    for budget in sorted(set(budgets)):
        line = line + Line(prompt_caps=((budget, budgets.count(budget) / len(budgets)),))
    return line


def _spread(name: str, weights: tuple[float, ...] | None, count: int) -> Sequence[float]:
    if weights is None:
        return [1.0] * count
    if len(weights) == 2 != count:
        first, last = weights
        return [first + (last - first) * i / max(1, count - 1) for i in range(count)]
    if len(weights) != count:
        raise InputError("", path=name, found=f"{len(weights)} numbers", allowed=f"{count} numbers, or 2")
    return weights


def _checked(name: str, weights: Weights) -> tuple[float, ...] | None:
    if weights is None:
        return None
    good = isinstance(weights, list | tuple) and len(weights) > 1 and sum(weights) > 0
    if not good or any(isinstance(w, bool) or not isinstance(w, int | float) or w < 0 for w in weights):
        raise ValueError(f"{name}: found {weights!r}, expected a list of numbers >= 0, not all of them 0")
    return tuple(float(w) for w in weights)
