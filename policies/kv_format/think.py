"""ThinK: channels of keys that matter little to the last queries of the prompt are dropped."""

from __future__ import annotations

from dataclasses import replace

from hw_profiles.lines import CONTEXT, constant
from policies.kv_format.stored import needs_heads
from policies.options import number, whole
from policies.sequence.plan import LayerPlan, LayerView, SequencePolicy, Work
from policies.sequence.scores import ACTIVATION_BYTES

SOURCE = "SalesforceAIResearch/ThinK, ThinK_eager/src/kv_pruning_utils.py"


class ThinK(SequencePolicy):
    """Drops `ratio` of the channels of each head's keys, chosen at the end of the prompt; values stay whole.

    Keys take 1 - ratio of their bytes, so KV 1 - ratio/2; the newest `window` tokens keep all channels. A mask of a bit
    per channel and head stays beside the cache. When the prompt is complete its keys are read for their norms, read
    again, and written without the channels. A step gathers the channels of its queries, and adds a product for the
    newest tokens. It can be combined with quantised formats (shares of keys multiply) and with retention.

    ratio    channels dropped
    window   newest tokens whose keys stay whole

    Source: Y. Xu et al., "ThinK", ICLR 2025 (arXiv 2407.21018), section 3; repository SalesforceAIResearch/ThinK (its
    defaults: ratio 0.4, 32 recent tokens, the last 32 queries vote). Attention over fewer channels is assumed to reach
    the bandwidth of plain attention. Combined with a residual of a quantised format, the newest tokens that either
    keeps whole are counted whole.
    """

    assumptions = ("think: attention over fewer channels of keys reaches the bandwidth of plain attention",)

    def __init__(self, *, ratio: float = 0.4, window: int = 32) -> None:
        self._ratio = number("ratio", ratio, 0, 0.99)
        self._window = whole("window", window, 0, 1 << 20)

    def plan(self, layer: LayerView, before: LayerPlan) -> LayerPlan:
        """The layer's plan, with `ratio` of the channels of its keys gone."""
        needs_heads(layer, "think", "it drops channels of each head's keys, and all heads share a latent")
        if not self._ratio:
            return before
        kept = 1.0 - self._ratio
        form = before.form
        form = replace(form, key=form.key * kept, key_full=max(form.key_full, self._window))
        keys = layer.token_bytes / 2
        query = 2.0 * layer.heads * layer.head_dim * ACTIVATION_BYTES
        step = Work("channels of queries", constant(query), launches=3, source=SOURCE)
        prune = Work("prune channels of keys", CONTEXT * (keys * (2.0 + kept)), launches=8, source=SOURCE)
        mask = constant(layer.kv_heads * layer.head_dim / 8)
        plan = before.plus(works=[step], extra=mask)
        return replace(plan, form=form, after_prompt=(*plan.after_prompt, prune))
