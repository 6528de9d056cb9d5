"""ZipCache: salient tokens in more bits than the others, found by a sample of the queries."""

from __future__ import annotations

from dataclasses import replace

from hw_profiles.lines import CONTEXT, constant
from policies.kv_format.stored import FUSED, UNPACKED, kernel_share, needs_heads, quantised
from policies.options import number, switch, whole
from policies.sequence.plan import LayerPlan, LayerView, SequencePolicy, Work
from policies.sequence.scores import prompt_flops, prompt_pair_bytes, row_bytes

SCALE_BITS = 32
"""An fp16 minimum and an fp16 step."""
SALIENT_BIT = 1
"""Which tokens are salient: one bit per token, not read by attention. (The published code keeps their numbers.)"""
SOURCE = "ThisisBillhe/ZipCache, zipcache/models/CompressUtils/compress_class.py"


class ZipCache(SequencePolicy):
    """Salient tokens in 4 bits and the others in 2, with next to no scales: 4.98 times smaller at 60 % salient.

    Bits per value: salient high + (1 - salient) low. Keys are quantised per channel (a scale per channel for either
    kind of token, kept once), values per token with the channels' scales taken out (one scale per token over all
    heads). The newest tokens, up to `gap`, wait in the engine's format, on average half of them.
    Saliency is the normalised attention of `probes` of the prompt's queries: only their scores are computed apart and
    written, the fused attention kernel runs as ever. The prompt's KV is quantised when it is complete. In decoding the
    same share of steps has its scores written.

    salient  share of tokens in `high` bits
    high, low   bits of salient and other tokens
    probes   share of the queries that probe: half of them the newest, half at random
    gap      steps between two compressions
    fused    true: attention reads the packed cache and unpacks on the way, and a compression touches the newest tokens
             alone. false: as the published code does it, every step unpacks the cache to 16 bits before plain attention
             reads it, and a compression packs all of it anew
    efficiency  bandwidth of the attention kernel over the packed cache, as a share of the plain kernel's

    Source: Y. He et al., "ZipCache", NeurIPS 2024 (arXiv 2405.14256), sections 4 and 5; repository
    ThisisBillhe/ZipCache (its demo: 0.4 of the tokens not salient, 4 and 2 bits, streaming_gap 100). A fused kernel is
    assumed to reach the bandwidth of plain attention.
    """

    def __init__(
        self,
        *,
        salient: float = 0.6,
        high: int = 4,
        low: int = 2,
        probes: float = 0.1,
        gap: int = 100,
        fused: bool = True,
        efficiency: float = 1.0,
    ) -> None:
        self._efficiency = kernel_share(efficiency)
        self._high = whole("high", high, 1, 8)
        self._low = whole("low", low, 0, high)
        self._bits = number("salient", salient, 0, 1) * high + (1 - salient) * low
        self._probes = number("probes", probes, 0, 1)
        self._gap = whole("gap", gap, 1, 1 << 20)
        self._fused = switch("fused", fused)
        self.assumptions = (f"zipcache: {FUSED}",) if fused else ()

    def plan(self, layer: LayerView, before: LayerPlan) -> LayerPlan:
        """The layer's plan, packed by saliency but for the newest tokens."""
        needs_heads(layer, "zipcache", "it quantises keys by channel and values by token, and a latent is both")
        plain = 8 * layer.element_bytes
        width = layer.kv_heads * layer.head_dim
        key = self._bits / plain
        value = (self._bits + SCALE_BITS / width) / plain
        share = (key + value) / 2
        beside = self._probes * row_bytes(layer) / layer.token_bytes
        if not self._fused:
            beside += UNPACKED + (1.0 + share) / self._gap
        tail = self._gap // 2
        form = quantised(
            layer,
            before,
            "zipcache",
            key=key,
            value=value,
            key_full=tail,
            value_full=tail,
            beside=beside,
            efficiency=self._efficiency,
        )
        once = layer.token_bytes * (1.0 + share)
        channels = (2 * SCALE_BITS + SCALE_BITS / 2) / 8 * width
        step = Work("compress the newest", constant(once), launches=2, source=SOURCE)
        if not self._fused:
            step = Work("unpack, compress all", launches=8, source=SOURCE)  # its bytes are `beside`, per attended token
        prompt = Work("saliency, compress the prompt", CONTEXT * once, launches=14, source=SOURCE)
        return replace(
            before,
            form=form,
            extra=before.extra + constant(channels) + CONTEXT * (SALIENT_BIT / 8),
            works=(*before.works, step),
            after_prompt=(*before.after_prompt, prompt),
            pair_bytes=max(before.pair_bytes, prompt_pair_bytes(layer, self._probes)),
            prefill_flops=max(before.prefill_flops, prompt_flops(self._probes)),
        )
