"""Prefetch of KV into L2: what decode attention gains by it, and what too much of it costs.

`lookahead` bytes per layer are requested before they are used, in two places:

1. While the linear kernels before the attention run (W seconds, G bytes of weights and activations). Of the K bytes
   that the attention will read, P = min(lookahead, K) are fetched; the HBM has I = max(0, W - G / B_HBM) seconds to
   spare in that window, and what P takes beyond them delays the linear kernels by max(0, P / B_HBM - I). The fetch
   keeps to the end of the window, during which y = G min(1, P / (B_HBM I)) other bytes pass through L2. The knee of
   the profile (`hw_profiles.l2`) says what is still there: hot = P h(P + y), read at B_L2.
2. Inside the attention kernel, which reads the cold rest, K - hot. A kernel that keeps too few bytes in flight to
   saturate the HBM gets nearer to it (Little's law): B = max(B_attn, min(B_HBM, B_attn + lookahead / latency)).
   Beyond the knee, lines are evicted before their use and read twice: (1 - h(min(lookahead, K - hot))) of the rest.

time of a layer = max(floor, t0 + c seqs + hot / B_L2 + (rest + reread) / B) + delay

SOURCE of the mechanism: arXiv 2504.06319 (asynchronous KV prefetch into L2, an attention kernel whose HBM utilisation
was 47 %); of the knee: `calibration.fit_l2`. The formula is kvsim's own, and no part of it but the knee was fitted: L2
is taken as least-recently-used over all traffic (no eviction hints), and hot KV as read at the rate of a plain read
kernel, which flatters it (the L2-warm rows of the public H100 attention table give 0.6 of that rate).

Not modelled: reuse of a line by the query heads of a group is part of the kernel (their KV is read once, as fitted);
a prefix that sequences of a batch share is read once per sequence.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from hw_profiles.cost_models import DecodeModel
from hw_profiles.l2 import L2Model

Floats = npt.NDArray[np.float64]


class Window(NamedTuple):
    """The linear kernels of a layer: their time in s and the bytes that they move over HBM."""

    seconds: float
    nbytes: float


@dataclass(frozen=True)
class L2Prefetch:
    """lookahead: bytes per layer, > 0; latency: of an HBM access, s; decode: attention with KV cold in L2."""

    lookahead: int
    l2: L2Model
    decode: DecodeModel
    latency: float

    def hot(self, nbytes: Floats, window: Window) -> Floats:
        """Bytes of the `nbytes` of KV that are in L2 when the attention begins: float64[steps]."""
        ahead = np.minimum(self.lookahead, nbytes)
        needed, spare = ahead / self.l2.hbm, self._spare(window)
        other = window.nbytes * (np.minimum(1.0, needed / spare) if spare else 1.0)
        return ahead * self.l2.hit(ahead + other)

    def reread(self, cold: Floats) -> Floats:
        """Bytes that are evicted between their prefetch by the attention kernel and their use, of `cold` bytes."""
        return cold * (1.0 - self.l2.hit(np.minimum(self.lookahead, cold)))

    @property
    def rate(self) -> float:
        """Bytes/s at which the attention kernel reads KV from HBM."""
        own = self.decode.bandwidth
        return max(own, min(self.l2.hbm, own + self.lookahead / self.latency))

    def seconds(self, seqs: float, nbytes: Floats, window: Window) -> Floats:
        """Decode attention of one layer over `nbytes` of KV (float64[steps]), with the delay of the linear kernels."""
        hot = self.hot(nbytes, window)
        cold = nbytes - hot
        rate = self.rate
        reading = hot / max(self.l2.read, rate) + (cold + self.reread(cold)) / rate
        kernel = np.maximum(self.decode.floor, self.decode.t0 + self.decode.per_seq * seqs + reading)
        kernel = kernel * self.decode.ratio(np.array(float(seqs)), nbytes)
        return kernel + np.maximum(0.0, np.minimum(self.lookahead, nbytes) / self.l2.hbm - self._spare(window))

    def _spare(self, window: Window) -> float:
        return max(0.0, window.seconds - window.nbytes / self.l2.hbm)
