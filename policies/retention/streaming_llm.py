"""StreamingLLM: attention sinks and a rolling window."""

from __future__ import annotations

from dataclasses import replace

from policies.options import switch, whole
from policies.retention.budget import applies, gather, keeping
from policies.sequence.plan import LayerPlan, LayerView, SequencePolicy, Work

SOURCE = "mit-han-lab/streaming-llm, streaming_llm/pos_shift/modify_llama.py"


class StreamingLLM(SequencePolicy):
    """Keeps the first `sinks` tokens and the newest `window` ones, whatever their attention: memory without growth.

    Positions are those within the cache, so keys are kept without them and every step sets those of all kept keys. No
    scores are needed. A prompt is attended in full, and cut when it is complete.

    sinks       first tokens kept
    window      newest tokens kept
    fused_rope  true: the attention kernel sets the positions on the way (FlashInfer). false: as the published code, a
                kernel reads all kept keys and writes them with their positions, before attention

    Source: G. Xiao et al., "Efficient streaming language models with attention sinks", ICLR 2024 (arXiv 2309.17453),
    section 3; repository mit-han-lab/streaming-llm (examples/run_streaming_llama.py: 4 and 2000). Fused positions:
    Z. Ye et al., "FlashInfer" (arXiv 2501.01005), section 4. What attention it covers is not in any importance data, as
    the tokens are not chosen by it.
    """

    def __init__(self, *, sinks: int = 4, window: int = 2000, fused_rope: bool = True) -> None:
        self._sinks = whole("sinks", sinks, 0, 1 << 30)
        self._window = whole("window", window, 1, 1 << 30)
        self._fused = switch("fused_rope", fused_rope)

    def plan(self, layer: LayerView, before: LayerPlan) -> LayerPlan:
        """The layer's plan, with sinks and window."""
        tokens = self._sinks + self._window
        if not applies(layer, tokens):
            return before
        plan = keeping(before, before.kept.capped(tokens), before.attended.capped(tokens))
        works = plan.works
        if not self._fused and not layer.latent:  # of a latent, positions are a small part
            works = (*works, Work("positions of keys", plan.attended * layer.token_bytes, source=SOURCE))
        cut = gather(layer, plan, 2, "mit-han-lab/streaming-llm, streaming_llm/kv_cache.py")
        return replace(plan, works=works, after_prompt=(*plan.after_prompt, cut))
