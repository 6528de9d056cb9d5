"""XKV: cache sizes per layer, by what each layer's cache is worth to the answer."""

from __future__ import annotations

from policies.retention.budgets import DividedBudget


class XKV(DividedBudget):
    """A total of KV divided over the layers by how much accuracy depends on each (`weights`, from an optimiser).

    The total decides bytes and time, whatever the weights, unless rows are padded (`storage`). Which weights the paper
    found is not in the notes on it, so all layers are alike unless a profile is given. What a layer keeps is chosen by
    the votes of the prompt's last queries, as in SnapKV; per-request sizes are means here.

    budget        mean tokens of the prompt per layer and head
    window        last queries of the prompt, which vote and are kept
    weights       worth per layer (two numbers: of the first and the last, straight in between)
    head_weights  the same over a layer's KV heads
    storage       ragged, heads or layers: to what uneven parts are padded

    Source: W. Li et al., "XKV: personalized KV cache memory reduction for long-context LLM inference"
    (arXiv 2412.05896), from notes on it.
    """

    title = "xkv"
    source = "XKV (arXiv 2412.05896), section 4"
    assumptions = ("xkv: layers are worth what `weights` says, all alike without it",)
