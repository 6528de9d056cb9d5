"""From points to a kernel group of a profile: the formula, its table of ratios, its scores on held-out points.

Fitted are only the points that `calibration.split` gives to fits; what is written is what was scored.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from calibration.fitting import Array, Predict, Rows, Score, bootstrap, robust_fit, score
from calibration.points import KernelModel, Points
from calibration.residual_fit import Axes, fit_residual
from hw_profiles.cost_models import BASE_HEADS, AllReduceModel, DecodeModel, GemmModel, PrefillModel
from hw_profiles.kernel_groups import BASE_KV_HEADS

TILE_ROWS = 64
"""Rows of the smallest output tile of matrix products: 64 is what one wgmma instruction of Hopper computes (PTX ISA,
wgmma: M is 64), and tables show a step at every 64 rows on the other machines as well."""
MOE_TILE_ROWS = 16
M_GRID = (1, 4, 16, 32, 64, 128, 192, 256, 512, 768, 1024, 1536, 2048, 3072, 4096, 8192, 16384)
NK_GRID = (256, 512, 1024, 1536, 2048, 3072, 4096, 5120, 6144, 7168, 8192, 10240, 12288, 16384, 65536)
DIGITS = 4
NOTHING = 1e-11
"""Seconds that no kernel takes: a bound of 0 that a search came near to."""


class Value(NamedTuple):
    """A fitted value and its 90 % interval, SI units."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class KernelFit:
    """A kernel group: its values, the model they make with their table of ratios, the scores by split."""

    points: Points
    values: Mapping[str, Value]
    model: KernelModel
    fitted: Score
    scores: Mapping[str, Score]


class _Form(NamedTuple):
    start: Mapping[str, float]
    least: Mapping[str, float]
    build: Callable[..., KernelModel]


_FORMS: Mapping[str, _Form] = MappingProxyType(
    {
        "gemm": _Form(
            {"t0": 4e-6, "bandwidth": 2e12, "flops": 5e14, "p": 3.0},
            {"bandwidth": 1e9, "flops": 1e12, "p": 1.0},
            lambda t0, bandwidth, flops, p: GemmModel(t0, bandwidth, flops, p, tile_rows=TILE_ROWS),
        ),
        "moe": _Form(
            {"t0": 2e-5, "bandwidth": 1e12, "flops": 3e14, "p": 2.0},
            {"bandwidth": 1e9, "flops": 1e12, "p": 1.0},
            lambda t0, bandwidth, flops, p: GemmModel(t0, bandwidth, flops, p, tile_rows=MOE_TILE_ROWS),
        ),
        "decode": _Form(
            {"t0": 1e-5, "per_seq": 1e-7, "bandwidth": 2e12},
            {"bandwidth": 1e9},
            lambda t0, per_seq, bandwidth: DecodeModel(0.0, t0, per_seq, bandwidth),
        ),
        "prefill": _Form(
            {"t0": 1e-5, "per_token": 1e-8, "flops": 3e14, "per_context": 1e-8},
            {"flops": 1e12},
            lambda t0, per_token, flops, span: PrefillModel(t0, per_token, flops, per_context=span),
        ),
        "allreduce": _Form({"alpha": 1e-5, "beta": 1e11}, {"beta": 1e6}, lambda a, b: AllReduceModel(0, a, b)),
    }
)


def fit_kernel(
    points: Points, peak: float = np.inf, resamples: int = 0, start: Mapping[str, float] | None = None
) -> KernelFit:
    """The group that the fitted points give; resamples 0 skips the bootstrap: intervals are points.

    No bandwidth exceeds `peak`, the HBM's (bytes/s): weights and KV that a benchmark reads again come from L2.
    start: where the search starts, for machines that are nothing like a data-centre GPU; rates then stay above a
    thousandth of it.
    """
    form = _FORMS[points.kind]
    if start is not None:
        rates = {name: start[name] / 1e3 for name in ("bandwidth", "flops") if name in start}
        form = form._replace(start={**form.start, **start}, least={**form.least, **rates})
    fitted = points.take(points.fitted)
    seen = fitted.take(fitted.cold)  # little KV is for the table alone: no line goes through both
    low = np.array([form.least.get(name, 0.0) for name in form.start])
    group = _shapes(seen)

    def predict(x: Array, rows: Rows) -> Array:
        return _part(seen, rows).predict(_build(form, seen, x))

    most = np.array([peak if name == "bandwidth" else np.inf for name in form.start])
    first = np.minimum(np.array(list(form.start.values())), most / 2)
    best = _round(robust_fit(predict, first, low, seen.seconds, np.arange(len(seen)), most))
    edges = _intervals(predict, best, (low, most), seen, resamples, group)
    names = list(form.start)
    values = {name: Value(best[i], edges[0][i], edges[1][i]) for i, name in enumerate(names)}
    model = _build(form, seen, best)
    if isinstance(model, DecodeModel) and points.floor is not None:
        floor = Value(*map(float, _round(np.array(points.floor))))
        values = {"floor": floor, **values}
        model = replace(model, floor=floor.value)
    if isinstance(model, GemmModel) and model.tile_rows > 1:
        values["tile_rows"] = Value(model.tile_rows, model.tile_rows, model.tile_rows)
    where, axes = _grid(fitted)
    table = fit_residual(where, fitted.seconds / fitted.predict(model), axes) if axes else None
    if table is not None:
        model = replace(model, residual=table)
    splits = {name: points.take(inside) for name, inside in points.splits.items() if inside.any()}
    scores = {name: score(part.predict(model), part.seconds) for name, part in splits.items()}
    return KernelFit(points, values, model, score(fitted.predict(model), fitted.seconds), scores)


def _build(form: _Form, points: Points, x: Array) -> KernelModel:
    model = form.build(*x)
    if not isinstance(model, PrefillModel):
        return model
    shape = points.shape
    width = np.median(shape["flops"] / (4 * shape["heads"] * shape["tokens"] * shape["context"]))
    return replace(model, head_dim=round(float(width)))


def _part(points: Points, rows: Rows) -> Points:
    """The rows by number, repeats included."""
    shape = {name: values[rows] for name, values in points.shape.items()}
    return replace(points, shape=shape, seconds=points.seconds[rows], fitted=points.fitted[rows], splits={})


def _intervals(
    predict: Predict, best: Array, bounds: tuple[Array, Array], seen: Points, resamples: int, group: Rows | None
) -> tuple[Array, Array]:
    if not resamples:
        return best, best
    lower, upper = bootstrap(predict, best, bounds[0], seen.seconds, resamples, group, bounds[1])
    return np.minimum(_round(lower), best), np.maximum(_round(upper), best)


def _shapes(points: Points) -> Rows | None:
    """Matrix shapes, numbered: the rows of one are drawn together."""
    if points.kind != "gemm":
        return None
    _, number = np.unique(np.stack([points.shape["n"], points.shape["k"]]), axis=1, return_inverse=True)
    return np.asarray(number.reshape(-1), dtype=np.intp)


def _grid(points: Points) -> tuple[list[Array], Axes]:
    """Coordinates of the table of ratios at every point, and its grid; none for experts."""
    shape = points.shape
    if points.kind == "gemm":
        m, n, k = shape["m"], shape["n"], shape["k"]
        rows = np.where(m > TILE_ROWS, -(-m // TILE_ROWS) * TILE_ROWS, m)
        grids = [np.array([x for x in M_GRID if x <= m.max()], dtype=np.float64)]
        sizes = NK_GRID if points.name == "gemm_bf16" else NK_GRID[::2]
        grids += [_within(sizes, axis) for axis in (n, k)]
        return [rows, n, k], list(zip("mnk", grids, strict=True))
    if points.kind == "moe":
        places = [shape[name] for name in "mnk"]
        return places, [(name, _octave_grid(place)) for name, place in zip("mnk", places, strict=True)]
    if points.kind == "decode":
        rows = shape["batch"] * shape["kv_heads"] / BASE_KV_HEADS
        return [rows, shape["bytes"]], [("batch", np.unique(rows)), ("bytes", _bytes_grid(points))]
    if points.kind == "prefill" and not points.name.startswith("mla"):
        tokens = shape["tokens"] * shape["heads"] / BASE_HEADS
        context = np.unique(shape["context"])
        axes = [("heads", np.unique(shape["heads"])), ("tokens", _octave_grid(tokens)), ("context", context)]
        return [shape["heads"], tokens, shape["context"]], axes
    if points.kind == "allreduce":
        return [shape["bytes"]], [("bytes", np.unique(shape["bytes"]))]
    return [], []


def _within(sizes: Sequence[int], values: Array) -> Array:
    """The sizes among the values; the values' ends where there is none."""
    inside = [x for x in sizes if values.min() <= x <= values.max()]
    return np.array(inside, dtype=np.float64) if inside else np.unique([values.min(), values.max()])


def _bytes_grid(points: Points) -> Array:
    """Powers of two where KV is cold, of four below."""
    grid = _octave_grid(points.shape["bytes"])
    cold = grid >= points.l2_bytes
    return np.concatenate([grid[~cold][::2], grid[cold]])


def _octave_grid(values: Array) -> Array:
    """Powers of two that span the values."""
    first, last = np.floor(np.log2(values.min())), np.ceil(np.log2(values.max()))
    return np.asarray(2.0 ** np.arange(first, last + 1))


def _round(values: Array) -> Array:
    """Significant digits as a profile is written with."""
    return np.array([float(f"{value:.{DIGITS}g}") if value > NOTHING else 0.0 for value in values])
