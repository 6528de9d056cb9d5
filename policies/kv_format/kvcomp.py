"""KVComp: quantised with a bounded error, then entropy-coded."""

from __future__ import annotations

import heapq
import math
from itertools import pairwise
from statistics import NormalDist

from policies.kv_format.stored import as_it_goes, needs_heads, packing, quantised
from policies.options import number, whole
from policies.sequence.plan import LayerPlan, LayerView, SequencePolicy

SCALE_BITS = 32
"""An fp16 minimum and an fp16 step of each unit."""
OFFSET_BITS = 16
"""Where a unit's code begins within its block: codes have no fixed length."""
SOURCE = "KVComp (arXiv 2509.00579), section 3"
_NORMAL = NormalDist()


class KVComp(SequencePolicy):
    """Values in steps of a share of their unit's range, Huffman-coded: as few bits as their distribution has.

    A unit is a channel of `block` tokens (keys), or a head's vector of one token (values). Bits per value: the mean
    length of a Huffman code for normal values in steps of `key_step` (`value_step`) x the range of a unit, and per unit
    a minimum, a step (fp16) and an offset (2 bytes). The newest tokens wait until they fill a block, half of one on
    average. Attention decompresses on the way; it takes the longer of reading the coded bytes and of decompressing
    (`speed`).

    key_step, value_step  step of the quantiser as a share of the unit's range: twice the bound of the error
    block                 tokens of a block
    speed                 decompressed bytes/s of the attention kernel over those of the plain one at its reading: 1 as
                          fast as attention over plain KV

    Source: B. Jiang et al., "KVComp" (arXiv 2509.00579), abstract and section 3, from notes on it: block-wise
    quantisation, Huffman codes, decompression in the matrix-vector kernels, which now and then outrun cuBLAS'. Its
    error bounds are set by accuracy, which is not simulated: the defaults are assumed, and so are normal values.
    """

    assumptions = (
        "kvcomp: values are taken to be normal within a unit, and error bounds are assumed; attention over coded KV "
        "takes what its option `speed` says",
    )

    def __init__(self, *, key_step: float = 0.1, value_step: float = 0.2, block: int = 64, speed: float = 1.0) -> None:
        self._key_step = number("key_step", key_step, 0.001, 1)
        self._value_step = number("value_step", value_step, 0.001, 1)
        self._block = whole("block", block, 2, 1 << 20)
        self._speed = number("speed", speed, 0, 100, above=True)

    def plan(self, layer: LayerView, before: LayerPlan) -> LayerPlan:
        """The layer's plan, its keys and values coded but for the newest block."""
        needs_heads(layer, "kvcomp", "it codes keys by channel and values by token, and a latent is both")
        plain = 8 * layer.element_bytes
        key, value = (
            (code_bits(step, unit) + (SCALE_BITS + OFFSET_BITS) / unit) / plain
            for step, unit in ((self._key_step, self._block), (self._value_step, layer.head_dim))
        )
        share = (key + value) / 2
        rest = self._block // 2
        form = quantised(
            layer, before, "kvcomp", key=key, value=value, key_full=rest, value_full=rest,
            efficiency=min(1.0, share * self._speed),
        )  # fmt: skip
        return packing(layer, as_it_goes(before, form), share, 4, f"{SOURCE}: one token per step, in bursts")


def code_bits(step: float, unit: int) -> float:
    """Mean length of the Huffman code of normal values, in steps of `step` x the range of `unit` of them.

    The mean range of `unit` normal values is twice the quantile of (unit - 3/8) / (unit + 1/4) (Blom, 1958).
    """
    width = step * 2 * _NORMAL.inv_cdf((unit - 0.375) / (unit + 0.25))
    most = math.ceil(6 / width)
    bounds = [_NORMAL.cdf((level - 0.5) * width) for level in range(-most, most + 2)]
    shares = [high - low for low, high in pairwise(bounds)]
    heapq.heapify(shares)
    total = 0.0
    while len(shares) > 1:
        both = heapq.heappop(shares) + heapq.heappop(shares)
        total += both
        heapq.heappush(shares, both)
    return total
