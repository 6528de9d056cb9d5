"""Fit the L2 knee of `hw_profiles.l2` to public read rates by footprint.

`python -m calibration.fit_l2 DATA [GPU]` prints what the profiles quote. Rows: `measured/l2_footprint` below the data
folder, read from the output of RRZE-HPC/gpu-benches gpu-l2-cache. Method as in `calibration.fitting`: soft-L1 on
log(model / measured) and bootstrap intervals; every second footprint is held out, once the even and once the odd ones.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pyarrow.csv

from calibration.fitting import Array, Fit, Rows, robust_fit, score
from hw_profiles.errors import InputError
from hw_profiles.l2 import L2Model

GPUS: Mapping[str, int] = MappingProxyType({"a100_80": 40 * 2**20, "h100_pcie": 50 * 2**20, "l40": 96 * 2**20})
"""GPUs of the table and the L2 size that each reports, bytes."""
NAMES = ("read", "hbm", "full_hit_bytes", "full_miss_bytes")
STARTS = ((0.6, 1.2), (0.8, 1.2), (0.9, 1.1), (1.0, 1.15))
"""Where the search starts: full_hit_bytes and full_miss_bytes as multiples of the reported size."""
TARGET_MAPE = 0.04
SPLITS: Mapping[str, int] = MappingProxyType({"even": 0, "odd": 1})
"""Which footprints are fitted, counted from the smallest; the others are held out."""


def l2_rows(data: Path, gpu: str) -> tuple[Array, Array]:
    """(footprint in bytes, ascending; seconds per byte read) of one GPU of `GPUS`.

    The benchmark counts in kB of 1,024 bytes: a block reads 64 x 1,024 doubles, which it calls 512 kB.
    """
    if gpu not in GPUS:
        raise InputError("unknown GPU", found=gpu, allowed=GPUS, near=GPUS)
    path = data / "measured" / "l2_footprint" / "l2_bandwidth_vs_footprint.csv"
    if not path.exists():
        raise InputError("file not found", where=path)
    table = pyarrow.csv.read_csv(path)
    keep = table["gpu"].to_numpy(zero_copy_only=False) == gpu
    footprint = table["footprint_kB"].to_numpy().astype(np.float64)[keep] * 1024
    order = np.argsort(footprint)
    return footprint[order], 1e-9 / table["eff_bw_GBps"].to_numpy()[keep][order]


def fit_l2(footprint: Array, seconds_per_byte: Array, l2_bytes: int, split: str = "even", resamples: int = 0) -> Fit:
    """L2Model from read times by footprint (ascending) on a GPU that reports `l2_bytes` of L2.

    The held-out score is that of a fit of the `split` points ("even" or "odd") on the others; resamples 0 skips the
    bootstrap.
    """
    rows = np.arange(len(footprint))
    test = rows % 2 != SPLITS[split]

    def search(fitted: Rows) -> Array:
        return _best(footprint, seconds_per_byte, l2_bytes, fitted)

    best, blind = search(rows), search(rows[~test])
    rng = np.random.Generator(np.random.Philox(0))
    draws = [search(pick) for pick in rng.integers(0, len(rows), (resamples, len(rows)))]
    edges = np.quantile(draws, [0.05, 0.95], axis=0) if draws else np.stack([best, best])
    return Fit(
        params=dict(zip(NAMES, best.tolist(), strict=True)),
        interval={name: (float(edges[0, i]), float(edges[1, i])) for i, name in enumerate(NAMES)},
        score=score(_predict(best, footprint), seconds_per_byte),
        heldout=score(_predict(blind, footprint[test]), seconds_per_byte[test]),
    )


def _predict(x: Array, footprint: Array) -> Array:
    read, hbm, hit, miss = x
    model = L2Model(read, hbm, hit, max(miss, hit * (1 + 1e-6)))
    return model.seconds(np.ones_like(footprint), footprint)


def _best(footprint: Array, seconds_per_byte: Array, l2_bytes: int, rows: Rows) -> Array:
    """The best of several starts: where few points lie on the ramp, the loss has more than one minimum."""
    read, hbm = 1 / float(np.min(seconds_per_byte[rows])), 1 / float(np.max(seconds_per_byte[rows]))
    least = np.array([1e9, 1e9, 1e5, 1e5])
    found = [
        robust_fit(
            lambda x, picked: _predict(x, footprint[picked]),
            np.array([read, hbm, hit * l2_bytes, miss * l2_bytes]),
            least,
            seconds_per_byte,
            rows,
        )
        for hit, miss in STARTS
    ]
    return min(found, key=lambda x: _loss(np.log(_predict(x, footprint[rows]) / seconds_per_byte[rows])))


def _loss(residual: Array) -> float:
    """What `robust_fit` minimises: soft-L1 with scale 0.05."""
    return float(np.sum(np.sqrt(1 + (residual / 0.05) ** 2) - 1))


def main(argv: list[str]) -> None:
    """Print the fit of each GPU with 90 % intervals, the score on all points and on the held-out ones."""
    data = Path(argv[0])
    lines = []
    for gpu in argv[1:] or GPUS:
        rows = l2_rows(data, gpu)
        fits = {split: fit_l2(*rows, GPUS[gpu], split, resamples=200 if split == "even" else 0) for split in SPLITS}
        for name, value in fits["even"].params.items():
            lo, hi = fits["even"].interval[name]
            lines.append(f"{gpu}.{name}: {value:.4g} [{lo:.4g}, {hi:.4g}]")
        lines.append(f"{gpu}: all points {fits['even'].score}")
        lines += [f"{gpu}: held out, {split} points fitted: {fitted.heldout}" for split, fitted in fits.items()]
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
