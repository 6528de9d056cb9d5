"""BaKlaVa: cache sizes per head, by a profile of the model taken once."""

from __future__ import annotations

from policies.retention.budgets import DividedBudget


class BaKlaVa(DividedBudget):
    """A total of KV divided over layers and heads by their importance, which is profiled once per model.

    The total decides bytes, whatever the profile, if every head's tokens are stored by themselves; `storage: heads`
    pads a layer's heads to their longest, as one tensor does. No profile is published, so all heads are alike unless
    one is given. Nothing is computed for it while serving: what a head keeps is chosen by the votes of the prompt's
    last queries, as in SnapKV.

    budget        mean tokens of the prompt per layer and head
    window        last queries of the prompt, which vote and are kept
    weights       importance per layer (two numbers: of the first and the last, straight in between)
    head_weights  the same over a layer's KV heads
    storage       ragged, heads or layers: to what uneven parts are padded

    Source: A. Gulhan et al., "BaKlaVa: budgeted allocation of KV cache for long-context inference" (arXiv 2502.13176),
    recalled.
    """

    title = "baklava"
    source = "BaKlaVa (arXiv 2502.13176)"
    assumptions = ("baklava: heads matter as `weights` and `head_weights` say, all alike without them",)
