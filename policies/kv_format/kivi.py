"""KIVI: keys quantised per channel, values per token, the newest tokens left as they are."""

from __future__ import annotations

from policies.kv_format.stored import FUSED, as_it_goes, kernel_share, needs_heads, packing, quantised
from policies.options import whole
from policies.sequence.plan import LayerPlan, LayerView, SequencePolicy, Work
from policies.sequence.scores import row_bytes

BITS = (2, 4, 8, 16)
SCALE_BITS = 32
"""An fp16 scale and an fp16 minimum per group."""
SOURCE = "jy-yuan/KIVI, models/llama_kivi.py"


class KIVI(SequencePolicy):
    """2-bit KV: keys in groups along tokens per channel, values in groups along channels per token, a 16-bit residual.

    Bytes per value: bits/8 + 4/group. The newest tokens stay in the engine's format: of the keys up to `residual`,
    which are then quantised at once (on average half of them wait), of the values always `residual`.
    A step reads packed bytes (products with the packed cache unpack on the way), but its scores pass through memory, as
    products with packed and plain tokens are kernels of their own. Each step quantises one token's keys and values, on
    average over the burst of keys. A prompt is attended in 16 bits and quantised behind it.

    bits        of keys and values, or of each by `key_bits` and `value_bits`: 2, 4, 8, or 16 (not quantised)
    group       values that share a scale and a minimum
    residual    newest tokens in the engine's format; a multiple of `group`
    efficiency  bandwidth of the attention kernel over the packed cache, as a share of the plain kernel's

    Source: Z. Liu et al., "KIVI", ICML 2024 (arXiv 2402.02750), section 3; repository jy-yuan/KIVI (defaults: its
    README, 2 bits, group 32, residual 128). The repository's kernels take a model without grouped queries; the same is
    assumed of GQA. That its products reach the bandwidth of plain attention is assumed.
    """

    assumptions = (f"kivi: {FUSED}",)

    def __init__(
        self,
        *,
        bits: int = 2,
        key_bits: int | None = None,
        value_bits: int | None = None,
        group: int = 32,
        residual: int = 128,
        efficiency: float = 1.0,
    ) -> None:
        self._efficiency = kernel_share(efficiency)
        both = self._allowed("bits", bits)
        self._key_bits = both if key_bits is None else self._allowed("key_bits", key_bits)
        self._value_bits = both if value_bits is None else self._allowed("value_bits", value_bits)
        self._group = whole("group", group, 2, 1024)
        self._residual = whole("residual", residual, 0, 1 << 20)
        if residual % group:
            raise ValueError(f"residual: found {residual}, expected a multiple of the group, {group}")

    def plan(self, layer: LayerView, before: LayerPlan) -> LayerPlan:
        """The layer's plan, packed but for the newest tokens."""
        if self._key_bits == self._value_bits == 16:
            return before
        needs_heads(layer, "kivi", "it quantises keys by channel and values by token, and a latent is both")
        key, value = (self._share(layer, bits) for bits in (self._key_bits, self._value_bits))
        form = quantised(
            layer,
            before,
            "kivi",
            key=key,
            value=value,
            key_full=self._residual // 2,
            value_full=self._residual,
            beside=row_bytes(layer) / layer.token_bytes,
            efficiency=self._efficiency,
        )
        source = f"{SOURCE}: one token per step, keys in bursts"
        plan = packing(layer, as_it_goes(before, form), (key + value) / 2, 3, source)
        return plan.plus(works=[Work("products and softmax apart", launches=4, source=SOURCE)])

    def _share(self, layer: LayerView, bits: int) -> float:
        return (bits + SCALE_BITS / self._group) / (8 * layer.element_bytes) if bits < 16 else 1.0

    @staticmethod
    def _allowed(name: str, bits: int) -> int:
        if isinstance(bits, bool) or bits not in BITS:
            raise ValueError(f"{name}: found {bits!r}, expected one of {', '.join(str(b) for b in BITS)}")
        return bits
