"""What retention policies share: budgets as tokens or shares, dropping, gathering, attention coverage."""

from __future__ import annotations

from dataclasses import replace

from hw_profiles.errors import InputError
from hw_profiles.lines import CONTEXT, Line
from policies.sequence.plan import LayerPlan, LayerView, Work
from policies.sequence.scores import ACTIVATION_BYTES, PASSES, SUM_PASSES


def amount(name: str, value: float) -> float:
    """`value` if it is a whole number of tokens (int) or a share (float) from 0 to 1."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    if isinstance(value, float) and 0 <= value <= 1:
        return value
    raise ValueError(f"{name}: found {value!r}, expected a whole number of tokens, or a share such as 0.1")


def applies(layer: LayerView, tokens: float = 0) -> bool:
    """False where a budget of `tokens` holds the longest sequence, so that nothing is ever dropped or need be scored;
    and for layers with a sliding window, which published policies leave alone."""
    return layer.window is None and tokens < layer.longest_sequence


def of_prompt(line: Line, share: float) -> Line:
    """`share` of the prompt's tokens. Raises InputError if something else has dropped some already."""
    if line != CONTEXT:
        raise InputError("a share of the prompt cannot be kept of what another policy keeps: give tokens")
    return Line(prompt=share)


def keeping(before: LayerPlan, kept: Line, attended: Line) -> LayerPlan:
    """Only these tokens."""
    return replace(before, kept=kept, attended=attended)


def gather(layer: LayerView, plan: LayerPlan, launches: int, source: str) -> Work:
    """What a prompt leaves is read and written together, once, in the form in which it is kept."""
    moved = plan.form.of(plan.kept.at_prompt()) * (2.0 * layer.token_bytes)
    return Work("gather what is kept", moved, launches=launches, source=source)


def last_queries(layer: LayerView, queries: int, source: str) -> Work:
    """When a prompt is complete, the scores of its last `queries` over all its keys are computed, written, summed and
    ranked, beside the fused kernel that attended it. A latent (MLA) is the key of all heads."""
    keys, width = layer.token_bytes / 2, float(layer.head_dim)
    if layer.latent:
        keys, width = layer.token_bytes, layer.token_bytes / layer.element_bytes
    scores = queries * (PASSES + SUM_PASSES) * ACTIVATION_BYTES * layer.heads
    flops = 2.0 * queries * layer.heads * width
    return Work("votes of the last queries", CONTEXT * (keys + scores), CONTEXT * flops, launches=6, source=source)


def coverage(layer: LayerView, kept: Line, context: float, prompt: float) -> float:
    """Share of the attention mass that the best of as many tokens hold, which bounds what a policy keeps of it."""
    return layer.importance.coverage(min(kept.at(context, prompt), context), context)
