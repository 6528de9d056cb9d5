"""The fitted cost formulas of a profile: the one place where they are written down.

The simulator charges them and the fitting code fits them. Each `seconds` takes scalars or numpy arrays of one
shape, in SI units. SOURCE of the forms: roofline with a smooth maximum for matrix products, linear branch
with a floor for decode attention, quadratic prefill attention, alpha-beta copies; the `sources` of a profile
say how well they fit public measurements.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Number = TypeVar("Number", float, NDArray[np.float64])


@dataclass(frozen=True)
class GemmModel:
    """Matrix product: t0 + ((bytes / bandwidth)^p + (flops / rate)^p)^(1/p), a smooth max(memory, compute).

    t0 in s, bandwidth in bytes/s, flops in FLOP/s, p >= 1 (large p = sharp corner).
    """

    t0: float
    bandwidth: float
    flops: float
    p: float

    def seconds(self, nbytes: Number, flops: Number) -> Number:
        """Time of a product that moves `nbytes` (2 * (m*k + k*n + m*n) in bf16), does `flops` = 2*m*n*k."""
        p = self.p
        smooth: Number = ((nbytes / self.bandwidth) ** p + (flops / self.flops) ** p) ** (1 / p)
        return self.t0 + smooth


@dataclass(frozen=True)
class DecodeModel:
    """Decode attention of one layer, KV cold in L2: max(floor, t0 + per_seq * batch + bytes / bandwidth)."""

    floor: float
    t0: float
    per_seq: float
    bandwidth: float

    def seconds(self, batch: Number, nbytes: Number) -> Number:
        """Time for `batch` sequences whose keys and values in one layer are `nbytes` together."""
        linear = self.t0 + self.per_seq * batch + nbytes / self.bandwidth
        return np.maximum(self.floor, linear) if isinstance(linear, np.ndarray) else max(self.floor, linear)


@dataclass(frozen=True)
class PrefillModel:
    """Prefill attention of one layer and chunk: t0 + per_token * tokens + flops / flops_per_s."""

    t0: float
    per_token: float
    flops: float

    def seconds(self, tokens: Number, flops: Number) -> Number:
        """Time for a chunk of `tokens` new tokens; `flops` from `prefill_flops`."""
        return self.t0 + self.per_token * tokens + flops / self.flops


def prefill_flops(tokens: Number, prefix: Number, heads: int, head_dim: int) -> Number:
    """FLOP of causal attention, S tokens after P cached, one layer: 4 * heads * head_dim * (S*P + S*S/2)."""
    return 4 * heads * head_dim * (tokens * prefix + tokens * tokens / 2)


@dataclass(frozen=True)
class LaunchModel:
    """Seconds per kernel launch: inside a CUDA graph, and on a stream from the host."""

    graph: float
    stream: float


@dataclass(frozen=True)
class LinkModel:
    """One direction of a link, one copy per block: alpha (s) per copy + bytes / beta (bytes/s)."""

    alpha: float
    beta: float

    def seconds(self, nbytes: Number, copies: Number) -> Number:
        """Time for `nbytes` moved as `copies` separate copies, one after the other."""
        return self.alpha * copies + nbytes / self.beta
