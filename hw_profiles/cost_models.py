"""The fitted cost formulas of a profile, but for prefill attention (`prefill_cost`).

The simulator charges them and the fitting code fits them. Each `seconds` takes scalars or numpy arrays of one
shape, in SI units (`DeviceLink`: scalars). A kernel model may carry a table of measured / formula
(`hw_profiles.residual`), which its `seconds` multiplies in. SOURCE of the forms: roofline with a smooth maximum for
matrix products, linear branch with a floor for decode attention, alpha-beta copies in up to two
segments by block size, a linear queue-depth ramp for devices; the `sources` of a profile say how well they fit public
measurements.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from hw_profiles.curve import Array, Curve
from hw_profiles.decode_curve import DecodeCurve
from hw_profiles.kernel_groups import BASE_KV_HEADS
from hw_profiles.residual import Number, Residual


def smooth_max(x: Number, y: Number, p: float) -> Number:
    """(x^p + y^p)^(1/p) of times >= 0, p >= 1.

    By the ratio of the smaller to the larger: a time of microseconds to a power of 60 is below the least number.
    """
    if isinstance(x, np.ndarray) or isinstance(y, np.ndarray):
        larger = np.maximum(x, y)
        ratio = np.divide(np.minimum(x, y), larger, out=np.zeros_like(larger), where=larger > 0)
        smooth: Array = larger * (1 + ratio**p) ** (1 / p)
        return smooth
    low, high = (x, y) if x < y else (y, x)
    return high * (1 + (low / high) ** p) ** (1 / p) if low > 0 else high


@dataclass(frozen=True)
class GemmModel:
    """Matrix product: t0 + ((bytes / bandwidth)^p + (flops / rate)^p)^(1/p), a smooth max(memory, compute).

    t0 in s, bandwidth in bytes/s, flops in FLOP/s, p >= 1 (large p = sharp corner). residual: over m, n, k, or
    over area = m * n, which tiles are cut from and so waves of them counted, n and k.
    tile_rows: output rows of the smallest tile; a tile that is not full takes as long as a full one.
    """

    t0: float
    bandwidth: float
    flops: float
    p: float
    residual: Residual | None = None
    tile_rows: int = 1

    def seconds(
        self,
        nbytes: Number,
        flops: Number,
        shape: tuple[Number, Number, Number] | None = None,
        by_rows: Curve | None = None,
    ) -> Number:
        """Time of a product that moves `nbytes` (2 * (m*k + k*n + m*n) in bf16), does `flops` = 2*m*n*k.

        shape: (m, n, k) of [m, k] x [k, n]; without it the formula alone, without tiles and table.
        by_rows: the table at this n and k, from `rows_at`, which is sooner (m is a number then).
        """
        p = self.p
        if shape is None:
            return self.t0 + smooth_max(nbytes / self.bandwidth, flops / self.flops, p)
        m, n, k = shape
        tile = self.tile_rows
        rows = m if tile == 1 else -(-m // tile) * tile
        seconds = self.t0 + smooth_max(nbytes / self.bandwidth, flops * (rows / m) / self.flops, p)
        if self.residual is None:
            return seconds
        large = np.where(m > tile, rows, m) if isinstance(m, np.ndarray) else rows if m > tile else m
        return seconds * (self.ratio(large, n, k) if by_rows is None else by_rows.at(float(large)))

    def ratio(self, m: Number, n: Number, k: Number) -> Number | float:
        """Measured / formula of [m, k] x [k, n], 1 without a table."""
        if self.residual is None:
            return 1.0
        return self.residual.at(m * n if self.residual.names[0] == "area" else m, n, k)

    def rows_at(self, n: float, k: float) -> Curve | None:
        """The table of products with one weight [k, n], by rows; None without a table."""
        if self.residual is None:
            return None
        curve = self.residual.along(0, (n, k))
        return curve.of_multiples(n) if self.residual.names[0] == "area" else curve


@dataclass(frozen=True)
class DecodeModel:
    """Decode attention of one layer, KV cold in L2: max(floor, t0 + per_seq * batch + bytes / bandwidth).

    residual: over batch, bytes, or KV heads before these where kernels differ by them; its batch counts sequences of
    as many KV heads as `kernel_groups.BASE_KV_HEADS`, of which a sequence on this rank has `share`.
    """

    floor: float
    t0: float
    per_seq: float
    bandwidth: float
    residual: Residual | None = None
    share: float = 1.0

    def seconds(self, batch: Number, nbytes: Number) -> Number:
        """Time for `batch` sequences whose keys and values in one layer are `nbytes` together."""
        linear = self.t0 + self.per_seq * batch + nbytes / self.bandwidth
        seconds = np.maximum(self.floor, linear) if isinstance(linear, np.ndarray) else max(self.floor, linear)
        return seconds if self.residual is None else seconds * self.ratio(batch, nbytes)

    def ratio(self, batch: Number, nbytes: Number) -> Number | float:
        """Measured / formula at this work, 1 without a table."""
        if self.residual is None:
            return 1.0
        if len(self.residual.axes) == 2:
            return self.residual.at(batch * self.share, nbytes)
        kv_heads = BASE_KV_HEADS * self.share
        if isinstance(nbytes, np.ndarray):
            return self.residual.at(np.array(kv_heads), batch * self.share, nbytes)
        return self.residual.at(kv_heads, batch * self.share, nbytes)

    def at_batch(self, batch: float) -> DecodeCurve:
        """The same for one batch size, sooner."""
        table = None
        if self.residual is not None:
            last = len(self.residual.axes) - 1
            table = self.residual.along(last, (BASE_KV_HEADS * self.share, batch * self.share)[-last:])
        return DecodeCurve(self.floor, self.t0 + self.per_seq * batch, self.bandwidth, table)


@dataclass(frozen=True)
class AllReduceModel:
    """Sum over `ranks` GPUs of a buffer that each of them holds: alpha + bytes / beta. residual: over bytes."""

    ranks: int
    alpha: float
    beta: float
    residual: Residual | None = None

    def seconds(self, nbytes: Number) -> Number:
        """Time for a buffer of `nbytes` on every rank."""
        seconds = self.alpha + nbytes / self.beta
        return seconds if self.residual is None else seconds * self.residual.at(nbytes)


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


@dataclass(frozen=True)
class CopyModel:
    """One direction of a GPU's link by one copy method: alpha (s) per copy + bytes / beta (bytes/s).

    Copies of at most `cut` bytes take small_alpha and small_beta instead, for methods that work differently on small
    blocks (cudaMemcpyBatchAsync toward the GPU is several times slower below 28 KiB, a copy kernel is bound by round
    trips there). `submit` is host time per copy: submission runs ahead of the copying, so the longer of the two counts.
    `sms`: streaming multiprocessors that are taken while it copies (0 for a copy engine).
    """

    alpha: float
    beta: float
    cut: float = 0.0
    small_alpha: float = 0.0
    small_beta: float = math.inf
    submit: float = 0.0
    sms: int = 0

    def seconds(self, nbytes: Number, copies: Number) -> Number:
        """Time for `nbytes` moved as `copies` separate copies of equal size, one after the other."""
        if isinstance(nbytes, np.ndarray) or isinstance(copies, np.ndarray):
            small = self.small_alpha * copies + nbytes / self.small_beta
            large = self.alpha * copies + nbytes / self.beta
            return np.maximum(np.where(nbytes <= self.cut * copies, small, large), self.submit * copies)
        if nbytes <= self.cut * copies:
            busy = self.small_alpha * copies + nbytes / self.small_beta
        else:
            busy = self.alpha * copies + nbytes / self.beta
        return max(busy, self.submit * copies)

    def rate(self, block: Number) -> Number:
        """Bytes/s of many copies of `block` bytes each."""
        one = np.ones_like(block) if isinstance(block, np.ndarray) else 1.0
        return block / self.seconds(block, one)


@dataclass(frozen=True)
class DeviceLink:
    """One direction of a device behind host memory: an SSD, a network card, memory on another bus.

    latency     s until the first byte, charged when the device was idle; under load it overlaps with the transfers
    bandwidth   bytes/s with enough copies outstanding
    single      share of the bandwidth with one copy outstanding, in (0, 1]
    saturation  outstanding copies from which on the full bandwidth is reached
    per_io      s of software per copy (submission, completion, lookup), which the copies pay one after the other

    SOURCE of the form: latency and linear queue-depth ramp as in the storage tier of BLIS (inference-sim);
    `per_io` is kvsim's addition, from read rates by I/O size (see `sources` of nvme-gen4 and nvme-gen5-raid4).
    """

    latency: float
    bandwidth: float
    single: float = 1.0
    saturation: int = 1
    per_io: float = 0.0

    def rate(self, outstanding: int) -> float:
        """Bytes/s with so many copies outstanding (queued or in service)."""
        if outstanding >= self.saturation:
            return self.bandwidth
        ramp = (max(outstanding, 1) - 1) / (self.saturation - 1)
        return self.bandwidth * (self.single + (1 - self.single) * ramp)

    def seconds(self, nbytes: float, copies: float, outstanding: int = 1, idle: bool = True) -> float:
        """Time for `nbytes` in `copies`, with `outstanding` copies in the device's queue, itself included."""
        return (self.latency if idle else 0.0) + self.per_io * copies + nbytes / self.rate(outstanding)
