"""H2O: the tokens with most accumulated attention, and the newest."""

from __future__ import annotations

from dataclasses import replace

from hw_profiles.errors import InputError
from hw_profiles.lines import CONTEXT, Line
from policies.retention.budget import amount, applies, coverage, gather, keeping, of_prompt
from policies.sequence.plan import FULL, LayerPlan, LayerView, SequencePolicy, Work
from policies.sequence.scores import ACTIVATION_BYTES, prompt_flops, prompt_pair_bytes, row_bytes

SUM_BYTES = 4
"""An fp32 sum per kept token and head."""
LAUNCHES = 9
"""Of a step: the newest sum set to 0, scores added, the smallest found (mha_gen); of keys, values and sums the oldest
of the newest tokens copied, and scattered to the place of the least (cache_replace, acc_replace). That the new token is
written then is what any engine does."""
SOURCE = "FMInference/H2O, h2o_flexgen/flexgen/pytorch_backend.py"


class H2O(SequencePolicy):
    """Keeps heavy hitters (tokens with most accumulated attention, per head) and the newest tokens, in a fixed budget.

    A sum of attention (fp32) stays beside each kept token and head. Attention must write its scores, so it runs as
    separate products without a fused kernel, in the prompt over the whole square. When the prompt is complete its
    scores are summed over queries, the best tokens are chosen per head, and what is kept is gathered. A step adds its
    scores to the sums, finds the smallest outside of the newest, and the new token takes that place.

    heavy, recent   tokens kept of either kind: shares of the prompt as in the paper (0.1), or tokens (204); if these
                    hold the longest sequence, nothing is dropped and nothing scored

    Source: Z. Zhang et al., "H2O", NeurIPS 2023 (arXiv 2306.14048), section 4 (10 % and 10 %); repository
    FMInference/H2O, h2o_flexgen (hh_ratio: heavy tokens, and as many recent ones, as a share of the prompt; the A100
    logs are of 0.2, a fifth of prompt and answer). Kernels count their bytes at the profile's rate. With grouped
    queries a KV head's tokens are ranked by the sum over its group.
    """

    assumptions = (
        "h2o: a prompt's scores (2 bytes per query head and pair, a layer at a time) are written and read, but the "
        "memory that they take is not counted",
    )

    def __init__(self, *, heavy: float = 0.1, recent: float = 0.1) -> None:
        self._heavy, self._recent = amount("heavy", heavy), amount("recent", recent)
        if heavy and recent and isinstance(heavy, int) != isinstance(recent, int):
            raise ValueError(f"recent: found {recent!r}, expected tokens or a share, as heavy is ({heavy!r})")
        self._budget = self._heavy + self._recent if heavy and recent else self._heavy or self._recent
        if not self._budget:
            raise ValueError("heavy: found 0 and no recent token, expected a budget")
        if isinstance(self._budget, float) and self._budget > 1:
            raise ValueError(f"recent: found {recent!r}, expected no more than {1 - heavy:g}: shares of the prompt")

    def plan(self, layer: LayerView, before: LayerPlan) -> LayerPlan:
        """The layer's plan, with its budget of tokens."""
        if layer.latent:
            raise InputError("h2o cannot be used with latent attention (MLA): it keeps other tokens for each head")
        if not self._applies(layer):
            return before
        plan = keeping(before, self._kept(before.kept), self._kept(before.attended))
        sums = SUM_BYTES * layer.kv_heads
        step = row_bytes(layer) + ACTIVATION_BYTES * layer.heads + 3 * sums
        works = [Work("scores, sums, place to reuse", plan.attended * step, launches=LAUNCHES, source=SOURCE)]
        chosen = Work("choose heavy hitters", CONTEXT * (2 * sums), launches=3, source=SOURCE)
        once = (chosen, gather(layer, plan, 4, SOURCE))
        return replace(
            plan,
            extra=plan.extra + plan.kept * sums,
            works=(*plan.works, *works),
            after_prompt=(*plan.after_prompt, *once),
            pair_bytes=max(plan.pair_bytes, prompt_pair_bytes(layer)),
            prefill_flops=max(plan.prefill_flops, prompt_flops()),
        )

    def coverage(self, layer: LayerView, context: float, prompt: float) -> float:
        """Share of the attention mass that as many tokens hold at best."""
        return coverage(layer, self._kept(FULL.kept), context, prompt) if self._applies(layer) else 1.0

    def _applies(self, layer: LayerView) -> bool:
        return applies(layer, self._budget if isinstance(self._budget, int) else 0)

    def _kept(self, line: Line) -> Line:
        return line.capped(self._budget) if isinstance(self._budget, int) else of_prompt(line, self._budget)
