"""Kernel groups of a profile: matrix products, decode attention by format and heads, MLA, prefill attention.

Fitted like public tables (`calibration.kernel_fits`): the formulas that the simulator charges and, where it helps, a
table of ratios. Held-out points are never fitted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from calibration.fitting import Array
from calibration.kernel_fits import KernelFit, fit_kernel
from calibration.points import Points
from calibration.suite.parts import RESAMPLES, TARGETS, HeldOut, Part, median_interval
from calibration.suite.plan_attention import HEAD_DIM
from calibration.suite.reduce import Reading, Readings, columns
from hw_profiles.kernel_groups import BASE_KV_HEADS, decode_name, group_form

HELD_OUT = "held out"
FEWEST = 4


def kernels_part(readings: Readings, peak: float, resamples: int = RESAMPLES) -> Part:
    """Every kernel group that was measured. peak: datasheet rate of the memory, 0 if unknown (bytes/s)."""
    part = Part()
    most = peak or np.inf
    for dtype in ("bf16", "fp8"):
        points = _gemm(readings, dtype)
        _fit(part, points, most, TARGETS["gemm"] if dtype == "bf16" else None, resamples)
    decode = readings.of("decode")
    for form, group in sorted({(r.key["format"], r.key["heads"] // r.key["kv_heads"]) for r in decode}):
        rows = [r for r in decode if (r.key["format"], r.key["heads"] // r.key["kv_heads"]) == (form, group)]
        _fit(part, _decode(rows, form, group), most, TARGETS["decode" if form == "bf16" else "other"], resamples)
    _fit(part, _mla(readings), np.inf, TARGETS["decode"], resamples)
    _fit(part, _prefill(readings), np.inf, TARGETS["prefill"], resamples)
    _beside(part, readings)
    return part


def _gemm(readings: Readings, dtype: str) -> Points | None:
    rows = readings.of("gemm", dtype=dtype, impl="torch")
    shape = _shape(rows, "m", "n", "k", bytes="nbytes", flops="flops")
    shapes = len({(r.key["n"], r.key["k"]) for r in rows if not r.heldout})
    return _points(
        f"gemm_{dtype}", rows, shape, "matrix products by torch", f"products of {shapes} shapes (n, k), cold"
    )


def _decode(rows: Sequence[Reading], form: str, group: int) -> Points | None:
    """Pages of the smallest size that there is."""
    page = min(reading.key["page"] for reading in rows)
    rows = [reading for reading in rows if reading.key["page"] == page]
    shape = _shape(rows, "batch", "kv_heads", "seq", bytes="nbytes")
    what = f"batches over {form} KV, {group} query heads per KV head, pages of {page}, cold in L2"
    points = _points(decode_name(form, group, HEAD_DIM), rows, shape, "kvsim Triton paged decode attention", what)
    return points and _with_floor(points, rows)


def _mla(readings: Readings) -> Points | None:
    rows = readings.of("mla")
    if not rows:
        return None
    heads = rows[0].key["heads"]
    shape = _shape(rows, "batch", "seq", bytes="nbytes")
    shape["kv_heads"] = np.full(len(rows), float(BASE_KV_HEADS))
    what = f"batches of {heads} query heads over a latent of 512 + 64 numbers, cold in L2"
    points = _points(f"mla_decode_bf16_h{heads}", rows, shape, "kvsim Triton MLA decode attention", what)
    return points and _with_floor(points, rows)


def _prefill(readings: Readings) -> Points | None:
    rows = readings.of("prefill", impl="triton")
    if not rows:
        return None
    shape = _shape(rows, "tokens", "heads", "kv_heads", flops="flops")
    (prefix,) = columns(rows, "prefix")
    shape["context"] = prefix + shape["tokens"] / 2
    what = f"chunks of {_range(rows, 'tokens')} tokens after {_range(rows, 'prefix')}"
    return _points(
        "prefill_attn",
        rows,
        shape,
        "kvsim Triton prefill attention",
        what,
        prefix=(int(prefix.min()), int(prefix.max())),
    )


def _points(
    name: str,
    rows: Sequence[Reading],
    shape: Mapping[str, Array],
    family: str,
    what: str,
    prefix: tuple[int, int] = (0, 0),
) -> Points | None:
    """None where there are too few."""
    held = np.array([reading.heldout for reading in rows], dtype=bool)
    if (~held).sum() < FEWEST:
        return None
    (seconds,) = columns(rows, "seconds")
    said = f"{int((~held).sum())} {what}"
    return Points(name, shape, seconds, ~held, {HELD_OUT: held}, family, said, table="samples", prefix=prefix)


def _with_floor(points: Points, rows: Sequence[Reading]) -> Points:
    """The shortest time is what a launch takes that neither bytes nor sequences bound."""
    fastest = min(rows, key=lambda reading: reading.seconds)
    return replace(points, floor=median_interval(fastest.passes))


def _shape(rows: Sequence[Reading], *keys: str, **own: str) -> dict[str, Array]:
    found = dict(zip(keys, columns(rows, *keys), strict=True)) if rows else {}
    return found | {name: columns(rows, source)[0] for name, source in own.items()}


def _fit(part: Part, points: Points | None, peak: float, target: float | None, resamples: int) -> None:
    """Fit a group; where profiles have no place for it, keep a summary."""
    if points is None:
        return
    fit = fit_kernel(points, peak, resamples, start=_start(points))
    name = points.name
    if group_form(name) is not None:
        part.kernels.append(fit)
        part.sources[f"fit_{name}"] = _what(fit)
    values = {key: float(f"{value.value:.4g}") for key, value in fit.values.items()}
    part.extras[f"fit_{name}"] = {**values, "mape": round(fit.fitted.mape, 4), "points": fit.fitted.n}
    if HELD_OUT in fit.scores:
        part.heldout.append(HeldOut(name, fit.scores[HELD_OUT], target))


def _what(fit: KernelFit) -> str:
    table = " with a table of ratios" if fit.model.residual is not None else ""
    score = fit.fitted
    return (
        f"{fit.points.family}: {fit.points.what}; soft-L1 on log residuals{table}, MAPE {score.mape:.1%}, "
        f"p90 {score.p90:.1%}; interval by bootstrap"
    )


def _start(points: Points) -> dict[str, float]:
    """Where the search starts: rates are the best that were seen, fixed times half the shortest."""
    seconds, shape = points.seconds[points.fitted], {k: v[points.fitted] for k, v in points.shape.items()}
    start = {"t0": 0.5 * float(seconds.min())}
    for name, amount in (("bandwidth", "bytes"), ("flops", "flops")):
        if amount in shape and (points.kind, name) != ("prefill", "bandwidth"):
            start[name] = float((shape[amount] / seconds).max())
    for name, count in (("per_seq", "batch"), ("per_token", "tokens")):
        if count in shape:
            start[name] = 0.1 * float((seconds / shape[count]).min())
    if points.kind == "prefill":
        start["per_context"] = 0.1 * float((seconds / shape["context"]).min())
    return start


def _beside(part: Part, readings: Readings) -> None:
    """What is timed beside: torch's prefill, larger pages, our matrix product; as multiples of what is fitted."""
    sdpa, ours = readings.of("prefill", impl="sdpa"), readings.of("prefill", impl="triton")
    _ratio(part, "torch_sdpa_per_ours", sdpa, ours, "tokens", "prefix")
    decode = readings.of("decode", format="bf16", heads=32, kv_heads=8)
    small = [reading for reading in decode if reading.key["page"] == 16]
    for page in sorted({reading.key["page"] for reading in decode} - {16}):
        larger = [reading for reading in decode if reading.key["page"] == page]
        _ratio(part, f"decode_page_{page}_per_16", larger, small, "batch", "seq")
    own, torch = (readings.of("gemm", dtype="bf16", impl=impl) for impl in ("triton", "torch"))
    _ratio(part, "triton_gemm_per_torch", own, torch, "m", "n", "k")


def _ratio(part: Part, name: str, readings: Sequence[Reading], beside: Sequence[Reading], *keys: str) -> None:
    """Median of the seconds of readings per those of others at the same keys."""
    base = {tuple(r.key[key] for key in keys): r.seconds for r in beside}
    ratios = [r.seconds / base[at] for r in readings if (at := tuple(r.key[key] for key in keys)) in base]
    if ratios:
        part.extras[name] = round(float(np.median(ratios)), 3)


def _range(readings: Sequence[Reading], name: str) -> str:
    (values,) = columns(readings, name)
    return f"{values.min():.0f}..{values.max():.0f}"
