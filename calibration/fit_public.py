"""Fit the kernel and link models of a profile to public measurements.

`python -m calibration.fit_public DATA SYSTEM` prints the numbers that the profiles in `hw_profiles/profiles`
quote; DATA and SYSTEM as in `public_tables`.

Method, all models: least squares on log(model / measured) with soft-L1 loss (scale 0.05), so that a 10 % miss
counts the same at 5 us and at 5 ms and outliers do not steer; parameters bounded below; 90 % intervals by
bootstrap over points (GEMM: over whole (n, k) shapes, whose errors are correlated). Held-out scores come from
a second fit that never saw those rows. All quantities in SI units.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

from calibration import public_tables as tables
from calibration.public_tables import Array
from hw_profiles.cost_models import DecodeModel, GemmModel, LinkModel, PrefillModel, prefill_flops
from hw_profiles.errors import InputError

Rows = NDArray[np.intp]
Predict = Callable[[Array, Rows], Array]  # (parameters, row numbers) -> seconds


@dataclass(frozen=True)
class Score:
    """Relative errors |predicted / measured - 1| over n points; bias is the signed mean."""

    n: int
    mape: float
    p90: float
    max: float
    bias: float


@dataclass(frozen=True)
class Fit:
    """Fitted parameters, their 90 % intervals, the scores on the fitted rows and on held-out rows."""

    params: dict[str, float]
    interval: dict[str, tuple[float, float]]
    score: Score
    heldout: Score


def score(predicted: Array, measured: Array) -> Score:
    """Score of predictions against measurements, both positive, one shape."""
    signed = predicted / measured - 1
    error = np.abs(signed)
    p90 = float(np.quantile(error, 0.9))
    return Score(len(error), float(error.mean()), p90, float(error.max()), float(signed.mean()))


def robust_fit(predict: Predict, start: Array, least: Array, measured: Array, rows: Rows) -> Array:
    """Parameters >= `least` that minimise soft-L1 of log(predict(x, rows) / measured[rows]); start > 0."""

    def residual(z: Array) -> Array:
        return np.log(np.maximum(predict(z * start, rows), 1e-30) / measured[rows])

    # Searched as multiples of the start: finite differences want numbers near 1, not 1e-6 or 1e12.
    bounds = (least / start, np.inf)
    found = least_squares(residual, np.ones_like(start), bounds=bounds, loss="soft_l1", f_scale=0.05)
    return np.asarray(found.x * start, dtype=np.float64)


def fit(
    predict: Predict,
    start: Mapping[str, float],
    measured: Array,
    *,
    test: NDArray[np.bool_],
    resamples: int,
    group: Rows | None = None,
    least: Mapping[str, float] | None = None,
) -> Fit:
    """Fit named parameters from `start` (all > 0).

    test marks the held-out rows; group numbers the rows that the bootstrap draws together (each row alone by
    default); least gives lower bounds (0 by default); resamples 0 skips the bootstrap: intervals are points.
    """
    x0 = np.array(list(start.values()))
    low = np.array([(least or {}).get(name, 0.0) for name in start])
    rows = np.arange(len(measured))
    best = robust_fit(predict, x0, low, measured, rows)
    blind = robust_fit(predict, x0, low, measured, rows[~test])
    members = [rows[group == number] for number in np.unique(group)] if group is not None else list(rows[:, None])
    rng = np.random.Generator(np.random.Philox(0))
    draws = [
        robust_fit(predict, x0, low, measured, np.concatenate([members[i] for i in pick]))
        for pick in rng.integers(0, len(members), (resamples, len(members)))
    ]
    edges = np.quantile(draws, [0.05, 0.95], axis=0) if draws else np.stack([best, best])
    return Fit(
        params={name: float(best[i]) for i, name in enumerate(start)},
        interval={name: (float(edges[0, i]), float(edges[1, i])) for i, name in enumerate(start)},
        score=score(predict(best, rows), measured),
        heldout=score(predict(blind, rows[test]), measured[test]),
    )


def fit_gemm(m: Array, n: Array, k: Array, seconds: Array, resamples: int = 0) -> Fit:
    """GemmModel from bf16 products [m, k] x [k, n]; held out: a seeded random half of the (n, k) shapes."""
    nbytes, flops = tables.BF16 * (m * k + k * n + m * n), 2 * m * n * k
    _, shape = np.unique(np.stack([n, k]), axis=1, return_inverse=True)
    shape = shape.reshape(-1)
    order = np.random.Generator(np.random.Philox(1)).permutation(shape.max() + 1)
    test = np.isin(shape, order[: len(order) // 2])

    def predict(x: Array, rows: Rows) -> Array:
        return GemmModel(*x).seconds(nbytes[rows], flops[rows])

    start = {"t0": 4e-6, "bandwidth": 2e12, "flops": 5e14, "p": 3.0}
    least = {"bandwidth": 1e9, "flops": 1e12, "p": 1.0}
    return fit(predict, start, seconds, test=test, resamples=resamples, group=shape, least=least)


def fit_decode(batch: Array, nbytes: Array, seconds: Array, floor: float, resamples: int = 0) -> Fit:
    """DecodeModel's cold branch from rows whose KV exceeds L2 well; held out: every second batch size."""
    test = np.round(np.log2(batch)).astype(int) % 2 == 1

    def predict(x: Array, rows: Rows) -> Array:
        return DecodeModel(floor, *x).seconds(batch[rows], nbytes[rows])

    start = {"t0": 1e-5, "per_seq": 1e-7, "bandwidth": 2e12}
    return fit(predict, start, seconds, test=test, resamples=resamples, least={"bandwidth": 1e9})


def fit_prefill(tokens: Array, seconds: Array, resamples: int = 0) -> Fit:
    """PrefillModel from one sequence without prefix, `tokens` ascending; held out: every second length."""
    flops = prefill_flops(tokens, np.zeros_like(tokens), tables.HEADS, tables.HEAD_DIM)

    def predict(x: Array, rows: Rows) -> Array:
        return PrefillModel(*x).seconds(tokens[rows], flops[rows])

    start = {"t0": 1e-5, "per_token": 1e-8, "flops": 3e14}
    test = np.arange(len(tokens)) % 2 == 1
    return fit(predict, start, seconds, test=test, resamples=resamples, least={"flops": 1e12})


def fit_link(nbytes: Array, seconds: Array, resamples: int = 0) -> Fit:
    """LinkModel from single copies of `nbytes`, ascending; held out: every second size."""
    one = np.ones_like(nbytes)

    def predict(x: Array, rows: Rows) -> Array:
        return LinkModel(*x).seconds(nbytes[rows], one[rows])

    test = np.arange(len(nbytes)) % 2 == 1
    start = {"alpha": 3e-6, "beta": 4e10}
    return fit(predict, start, seconds, test=test, resamples=resamples, least={"beta": 1e8})


def fit_system(data: Path, system: str, resamples: int = 0) -> dict[str, Fit]:
    """Every fit of one machine by its place in a profile; links only for the H100, the measured host."""
    if system not in tables.SYSTEMS:
        raise InputError("unknown system", found=system, allowed=tables.SYSTEMS, near=tables.SYSTEMS)
    floor, _, _ = tables.decode_floor(data, system)
    fits = {
        "kernels.gemm_bf16": fit_gemm(*tables.gemm_rows(data, system), resamples),
        "kernels.decode_attn": fit_decode(*tables.cold_rows(data, system), floor, resamples),
        "kernels.prefill_attn": fit_prefill(*tables.prefill_rows(data, system), resamples),
    }
    if system == "h100_sxm":
        for direction in ("h2d", "d2h"):
            fits[f"links.pcie_{direction}"] = fit_link(*tables.link_rows(data, direction), resamples)
    return fits


def main(argv: list[str]) -> None:
    """Print every fit of one system with 90 % intervals and scores."""
    data, system = Path(argv[0]), argv[1]
    lines = [f"kernels.decode_attn.floor median, 5 %, 95 %: {tables.decode_floor(data, system)}"]
    for place, fitted in fit_system(data, system, resamples=200).items():
        for name, value in fitted.params.items():
            lo, hi = fitted.interval[name]
            lines.append(f"{place}.{name}: {value:.4g} [{lo:.4g}, {hi:.4g}]")
        lines.append(f"{place}: fitted {fitted.score} held out {fitted.heldout}")
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
