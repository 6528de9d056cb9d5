"""Fit the copy methods of a profile's PCIe links: piecewise alpha-beta by block size, at most two segments.

`python -m calibration.fit_copies DATA` prints the numbers that `hw_profiles/profiles/h100-sxm.yaml` quotes.

SOURCE of the measurements. One copy engine copy per block ("loop") and a copy kernel ("kernel"): the curves of vLLM's
KV-offloading post of 2026-01-08, H100, digitised to 0.5-2 % of full scale (DATA/measured/pcie_block_copy). They are
rates of many blocks in GB/s with GB = 1e9 B. Block sizes are read as KiB, which block sizes of KV caches are; the rates
cannot tell (with KB = 1000 B every alpha comes out 2.3 % smaller and the errors are the same). All blocks in one call
("batch"): `BATCH_H2D` below.

Method: the rate model block / (alpha + block / beta) is fitted to the measured rates by soft-L1 in units of
`tolerance`, since digitising errs by the same GB/s everywhere. The block size at which the segments meet is tried
between all measured sizes. 90 % intervals: refits of the curve with noise of 1 % of full scale, cut held.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.csv
from numpy.typing import NDArray
from scipy.optimize import least_squares

from hw_profiles.cost_models import CopyModel
from hw_profiles.errors import InputError

Array = NDArray[np.float64]

DIRECTIONS = ("h2d", "d2h")
COLUMNS = {"loop": "dma", "kernel": "custom_kernel"}
"""What a copy method is called in the columns of the measured curves."""
FIRST = {("d2h", "kernel"): 8192}
"""Smallest block fitted where it is not the smallest measured: toward the host, the copy kernel takes twice as long for
a block of 4 KiB as for one of 8 KiB, which no alpha-beta model gives."""
RESOLUTION = 0.5e9
"""Error of a digitised rate, bytes/s."""
FASTEST = 55.63e9
"""One long copy over PCIe 5.0 x16, bytes/s: host_to_device_memcpy_ce in NVIDIA's nvbandwidth tutorial. No segment is
faster, unless the curve cannot be met so; then four times that, which leaves hardly a term in bytes: small blocks take
about the same time whatever their size (a copy kernel toward the GPU up to 8 KiB, a copy engine from it up to 64)."""
_NOISE = 0.01

# (block bytes, bytes/s) of cuMemcpyBatchAsync toward the GPU, H100, by pages of 4..64 KiB, 50,000 and 100,000 pages in
# one call (vllm-project/vllm pull request 42212), and of runs merged to 128 KiB (pull request 48434, back to back).
BATCH_H2D = tuple(
    (1024.0 * kib, 1e9 * rate)
    for kib, *rates in (
        (4, 4.0, 3.8),
        (8, 5.2, 5.3),
        (16, 6.3, 6.3),
        (24, 6.7, 6.9),
        (28, 39.9, 44.1),
        (64, 51.4, 51.8),
        (128, 54.1),
    )
    for rate in rates
)


@dataclass(frozen=True)
class CopyFit:
    """A fitted model, its 90 % intervals by parameter, and its errors on the fitted points."""

    model: CopyModel
    interval: dict[str, tuple[float, float]]
    mape: float
    """Mean of |model rate / measured rate - 1|."""
    worst: float
    """Largest |model rate - measured rate| in units of `tolerance`."""


def tolerance(rate: Array) -> Array:
    """The error that a model of a copy curve may have: 0.5 GB/s or 5 % of the rate, whichever is larger (bytes/s)."""
    return np.maximum(RESOLUTION, 0.05 * rate)


def curve(data: Path, direction: str, method: str) -> tuple[Array, Array]:
    """(block bytes ascending, bytes/s) of the measured curve; direction h2d or d2h, method loop or kernel."""
    path = data / "measured" / "pcie_block_copy" / f"{direction}_rate_vs_block_size_h100.csv"
    if not path.exists():
        raise InputError("file not found", where=path)
    table = pyarrow.csv.read_csv(path)
    way = "cpu_to_gpu" if direction == "h2d" else "gpu_to_cpu"
    rate = table[f"{way}_{COLUMNS[method]}_GBps"].to_numpy().astype(np.float64) * 1e9
    return table["block_kb"].to_numpy().astype(np.float64) * 1024, rate


def fit_copies(
    block: Array,
    rate: Array,
    *,
    segments: int = 2,
    fastest: float = FASTEST,
    cliff: bool = False,
    resamples: int = 0,
) -> CopyFit:
    """CopyModel of a curve (block bytes ascending, bytes/s) with one or two segments of at least two sizes each.

    No beta exceeds `fastest` (bytes/s). Unless the curve has a `cliff`, a longer block never takes less time: small
    differences that digitising makes do not become jumps. resamples 0 skips the intervals: they are points.
    """
    sizes = np.unique(block)
    cuts = [0.0, *map(float, sizes[1:-2])] if segments == 2 else [0.0]
    model, _ = min((_fit(block, rate, cut, fastest, cliff) for cut in cuts), key=lambda fitted: fitted[1])
    error = np.abs(model.rate(block) - rate)
    rng = np.random.Generator(np.random.Philox(0))
    noise = rng.normal(0.0, _NOISE * rate.max(), (resamples, len(rate)))
    noisy = [np.maximum(rate + shift, 0.1 * rate) for shift in noise]
    drawn = [_fit(block, one, model.cut, fastest, cliff)[0] for one in noisy] or [model]
    interval = {}
    for name in ("alpha", "beta", "small_alpha", "small_beta") if model.cut else ("alpha", "beta"):
        lo, hi = np.quantile([getattr(one, name) for one in drawn], [0.05, 0.95])
        interval[name] = (float(lo), float(hi))
    if model.cut:
        interval["cut"] = (model.cut, float(sizes[sizes > model.cut].min()))
    return CopyFit(model, interval, float((error / rate).mean()), float((error / tolerance(rate)).max()))


def _fit(block: Array, rate: Array, cut: float, fastest: float, cliff: bool) -> tuple[CopyModel, float]:
    """(model, loss) with the segments meeting at `cut` bytes (0: one segment)."""
    small = block <= cut
    least = 1e12 / fastest

    # z: microseconds and picoseconds per byte, of the long segment and of the small one
    def seconds(z: Array) -> Array:
        line: Array = z[0] * 1e-6 + block * (z[1] * 1e-12)
        return np.where(small, z[2] * 1e-6 + block * (z[3] * 1e-12), line) if cut else line

    def residual(z: Array) -> Array:
        error: Array = (block / seconds(z) - rate) / tolerance(rate)
        if not cut or cliff:
            return error
        at = cut * 1e-6  # picoseconds per byte -> microseconds
        drop = max(0.0, (z[2] + z[3] * at) / (z[0] + z[1] * at) - 1)
        return np.append(error, 1e3 * drop)

    start = [*_ends(block[~small], rate[~small], least), *(_ends(block[small], rate[small], least) if cut else ())]
    bounds = ([0.0, least] * (2 if cut else 1), np.inf)
    found = least_squares(residual, start, bounds=bounds, loss="soft_l1", f_scale=0.3, x_scale=start)
    x = [float(value) for value in found.x]
    model = CopyModel(x[0] * 1e-6, 1e12 / x[1])
    if cut:
        model = CopyModel(model.alpha, model.beta, cut, x[2] * 1e-6, 1e12 / x[3])
    return model, float(found.cost)


def _ends(block: Array, rate: Array, least: float) -> tuple[float, float]:
    """Where a search starts: the line through the ends of a segment, in microseconds and picoseconds per byte."""
    seconds = block / rate
    slope = max((seconds[-1] - seconds[0]) / (block[-1] - block[0]) * 1e12, 1.01 * least)
    return max(seconds[0] * 1e6 - slope * block[0] * 1e-6, 1e-3), slope


def fit_method(data: Path, direction: str, method: str, resamples: int = 0) -> CopyFit:
    """The fit of one method and direction on an H100: "loop" and "kernel" from DATA, "batch" (h2d only) as quoted."""
    if method == "batch":
        block, rate = np.array(BATCH_H2D).T
        return fit_copies(block, rate, cliff=True, resamples=resamples)
    block, rate = curve(data, direction, method)
    kept = block >= FIRST.get((direction, method), 0)
    block, rate = block[kept], rate[kept]
    met = fit_copies(block, rate).worst <= 1
    return fit_copies(block, rate, fastest=FASTEST if met else 4 * FASTEST, resamples=resamples)


def fit_all(data: Path, resamples: int = 0) -> dict[str, CopyFit]:
    """Every fit by its place in a profile."""
    pairs = [(direction, method) for direction in DIRECTIONS for method in COLUMNS] + [("h2d", "batch")]
    return {f"links.pcie_{d}.{m}": fit_method(data, d, m, resamples) for d, m in pairs}


def main(argv: list[str]) -> None:
    """Print every fit with 90 % intervals and errors."""
    lines = []
    for place, fitted in fit_all(Path(argv[0]), resamples=200).items():
        for name, (lo, hi) in fitted.interval.items():
            lines.append(f"{place}.{name}: {getattr(fitted.model, name):.4g} [{lo:.4g}, {hi:.4g}]")
        lines.append(f"{place}: MAPE {fitted.mape:.1%}, worst {fitted.worst:.2f} of max(0.5 GB/s, 5 %)")
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
