"""From points to a kernel group of a profile: the formula, its table of ratios, its scores on held-out points.

Fitted are only the points that `calibration.split` gives to fits; what is written is what was scored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields, replace
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from calibration.fitting import Array, Predict, Rows, Score, bootstrap, robust_fit, score
from calibration.points import KernelModel, Points
from calibration.residual_fit import best_residual
from calibration.table_layouts import TILE_ROWS, layouts
from hw_profiles.cost_models import AllReduceModel, DecodeModel, GemmModel
from hw_profiles.prefill_cost import PrefillMemory, PrefillModel

MOE_TILE_ROWS = 16
DIGITS = 4
ALL_COLD = 0.98
"""A share from which on L2 is taken to spare nothing."""
WARM_SHARES = (0.25, 0.5, 1.0)
"""Shares of L2 at which what a prefill launch touches may begin not to fit: caches are split among partitions."""
OPTIONAL = ("per_kv", "per_write", "split", "per_split")
"""Values of prefill attention that are left out where they came out as 0."""
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
    """Values to search from, their least and most, the model that they make, and values that are given to it."""

    start: Mapping[str, float]
    least: Mapping[str, float]
    build: Callable[..., KernelModel]
    most: Mapping[str, float] = MappingProxyType({})
    given: Mapping[str, float] = MappingProxyType({})


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
    fitted = points.take(points.fitted)
    seen = fitted.take(fitted.cold)  # little KV is for the table alone: no line goes through both
    form, values = min((_search(form, seen, peak) for form in _forms(points, start)), key=lambda found: found[2])[:2]
    if resamples:
        values = _intervals(form, values, seen, peak, resamples)
    model = _build(form, seen, [value.value for value in values.values()])
    if isinstance(model, PrefillModel):
        values = _needed({**values, **{name: Value(given, given, given) for name, given in form.given.items()}})
        moved = {field.name: values[field.name].value for field in fields(PrefillMemory) if field.name in values}
        model = replace(model, memory=PrefillMemory(**moved))
    if isinstance(model, DecodeModel) and points.floor is not None:
        floor = Value(*map(float, _round(np.array(points.floor))))
        values = {"floor": floor, **values}
        model = replace(model, floor=floor.value)
    if isinstance(model, GemmModel) and model.tile_rows > 1:
        values["tile_rows"] = Value(model.tile_rows, model.tile_rows, model.tile_rows)
    table = best_residual(layouts(fitted), fitted.seconds / fitted.predict(model))
    if table is not None:
        model = replace(model, residual=table)
    splits = {name: points.take(inside) for name, inside in points.splits.items() if inside.any()}
    scores = {name: score(part.predict(model), part.seconds) for name, part in splits.items()}
    return KernelFit(points, values, model, score(fitted.predict(model), fitted.seconds), scores)


def _forms(points: Points, start: Mapping[str, float] | None) -> list[_Form]:
    """What may be fitted, searched from `start`."""
    forms = _forms_of(points)
    if start is None:
        return forms
    rates = {name: start[name] / 1e3 for name in ("bandwidth", "flops") if name in start}
    return [form._replace(start={**form.start, **start}, least={**form.least, **rates}) for form in forms]


def _forms_of(points: Points) -> list[_Form]:
    """Several where L2 may begin to overflow at one footprint or another."""
    if points.kind != "prefill":
        return [_FORMS[points.kind]]
    start = {"t0": 1e-5, "per_token": 1e-8, "flops": 3e14, "per_context": 1e-8}
    if len(np.unique(points.shape["heads"] / points.shape["kv_heads"])) > 1:
        start |= {"per_kv": 4e-10, "per_write": 1e-9}
    given: dict[str, float] = {}
    if points.split_tiles:
        start |= {"split": 5e-6, "per_split": 5e-8}
        given["split_tiles"] = points.split_tiles
    if not points.l2_bytes:
        return [_prefill_form(start, given)]
    start["warm"] = 0.5
    return [_prefill_form(start, {**given, "warm_bytes": round(points.l2_bytes * share)}) for share in WARM_SHARES]


def _prefill_form(start: Mapping[str, float], given: Mapping[str, float]) -> _Form:
    names = tuple(start)

    def build(*x: float) -> KernelModel:
        values = {**dict(zip(names, x, strict=True)), **given}
        t0, per_token, flops, span = (values.pop(name) for name in ("t0", "per_token", "flops", "per_context"))
        return PrefillModel(t0, per_token, flops, per_context=span, memory=PrefillMemory(**values))

    return _Form(start, {"flops": 1e12}, build, {"warm": 1.0}, given)


def _needed(values: Mapping[str, Value]) -> dict[str, Value]:
    """Without what came out as nothing."""
    warm = "warm" in values and values["warm"].value < ALL_COLD
    drop = {name for name in OPTIONAL if name in values and not values[name].value}
    split = any(name in values and name not in drop for name in ("split", "per_split"))
    drop |= set() if warm else {"warm", "warm_bytes"}
    drop |= set() if split else {"split_tiles"}
    return {name: value for name, value in values.items() if name not in drop}


def _search(form: _Form, seen: Points, peak: float) -> tuple[_Form, dict[str, Value], float]:
    """The form, its best values and how far they are from the points."""
    start, least, most = _bounds(form, peak)
    rows = np.arange(len(seen))
    best = _round(robust_fit(_predict(form, seen), start, least, seen.seconds, rows, most))
    left = np.log(_predict(form, seen)(best, rows) / seen.seconds)
    values = {name: Value(value, value, value) for name, value in zip(form.start, best.tolist(), strict=True)}
    return form, values, float(np.sqrt(1.0 + (left / 0.05) ** 2).mean())


def _bounds(form: _Form, peak: float) -> tuple[Array, Array, Array]:
    """Where to start, least and most."""
    most = np.array([peak if name == "bandwidth" else form.most.get(name, np.inf) for name in form.start])
    least = np.array([form.least.get(name, 0.0) for name in form.start])
    return np.minimum(np.array(list(form.start.values())), most / 2), least, most


def _predict(form: _Form, seen: Points) -> Predict:
    return lambda x, rows: _part(seen, rows).predict(_build(form, seen, x))


def _build(form: _Form, points: Points, x: Iterable[float]) -> KernelModel:
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


def _intervals(form: _Form, values: dict[str, Value], seen: Points, peak: float, resamples: int) -> dict[str, Value]:
    best = np.array([value.value for value in values.values()])
    _, least, most = _bounds(form, peak)
    edges = bootstrap(_predict(form, seen), best, least, seen.seconds, resamples, _shapes(seen), most)
    lower, upper = np.minimum(_round(edges[0]), best), np.maximum(_round(edges[1]), best)
    return {name: Value(best[i], lower[i], upper[i]) for i, name in enumerate(values)}


def _shapes(points: Points) -> Rows | None:
    """Matrix shapes, numbered: the rows of one are drawn together."""
    if points.kind != "gemm":
        return None
    _, number = np.unique(np.stack([points.shape["n"], points.shape["k"]]), axis=1, return_inverse=True)
    return np.asarray(number.reshape(-1), dtype=np.intp)


def _round(values: Array) -> Array:
    """Significant digits as a profile is written with."""
    return np.array([float(f"{value:.{DIGITS}g}") if value > NOTHING else 0.0 for value in values])
