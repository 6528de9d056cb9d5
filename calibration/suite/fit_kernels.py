"""Kernel groups of a profile: matrix products, decode attention by format and heads, MLA, prefill attention.

The formulas are those that the simulator charges (`hw_profiles.cost_models`); held-out points are never fitted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from calibration.fitting import Predict, robust_fit, score
from calibration.suite.parts import RESAMPLES, TARGETS, Floats, Part, median_interval
from calibration.suite.plan_attention import HEAD_DIM
from calibration.suite.reduce import Reading, Readings, columns
from hw_profiles.cost_models import DecodeModel, GemmModel, PrefillModel
from hw_profiles.kernel_groups import BASE_KV_HEADS, decode_name, group_form

BASE_HEADS = 32
"""Query heads that a profile's prefill attention is for."""
MLA_GROUPS = ("mla_decode_bf16_h128", "mla_decode_bf16")
"""What profiles may call decode attention over a latent; the first that they know."""


@dataclass(frozen=True)
class Form:
    """Names and starts of parameters, lower bounds, the formula over rows of `inputs`."""

    start: Mapping[str, float]
    least: Mapping[str, float]
    predict: Predict


def kernels_part(readings: Readings, resamples: int = RESAMPLES) -> Part:
    """Every kernel group that was measured."""
    part = Part()
    for dtype in ("bf16", "fp8"):
        _gemm(part, readings, dtype, resamples)
    decode = readings.of("decode")
    for form, group in sorted({(r.key["format"], r.key["heads"] // r.key["kv_heads"]) for r in decode}):
        _decode(part, [r for r in decode if _is(r, form, group)], form, group, resamples)
    _mla(part, readings, resamples)
    _prefill(part, readings, resamples)
    _pages(part, readings)
    return part


def _is(reading: Reading, form: str, group: int) -> bool:
    return bool(reading.key["format"] == form) and reading.key["heads"] // reading.key["kv_heads"] == group


def _gemm(part: Part, readings: Readings, dtype: str, resamples: int) -> None:
    fitted = readings.of("gemm", heldout=False, dtype=dtype, impl="torch")
    if len(fitted) < 8:
        return

    def formula(rows: Sequence[Reading]) -> Predict:
        nbytes, flops = columns(rows, "nbytes", "flops")
        return lambda x, pick: GemmModel(*x).seconds(nbytes[pick], flops[pick])

    start = {"t0": _least(fitted), "bandwidth": _best_rate(fitted, "nbytes"), "flops": _best_rate(fitted, "flops")}
    start["p"] = 3.0
    least = {"bandwidth": 1e7, "flops": 1e8, "p": 1.0}
    n, k = columns(fitted, "n", "k")
    _, shape = np.unique(np.stack([n, k]), axis=1, return_inverse=True)
    what = f"{len(fitted)} products of {shape.max() + 1} shapes (n, k), cold, by torch: p-norm roofline"
    held = readings.of("gemm", heldout=True, dtype=dtype, impl="torch")
    target = TARGETS["gemm"] if dtype == "bf16" else None
    group = f"gemm_{dtype}"
    _fit(part, group, start, least, formula, fitted, held, what, target, resamples, members=shape.reshape(-1))


def _decode(part: Part, readings: Sequence[Reading], form: str, group: int, resamples: int) -> None:
    """Pages of 16 alone, or of the smallest size that there is."""
    page = min(reading.key["page"] for reading in readings)
    readings = [reading for reading in readings if reading.key["page"] == page]
    fitted = [reading for reading in readings if not reading.heldout]
    if len(fitted) < 4:
        return
    fastest = min(readings, key=lambda reading: reading.seconds)
    floor, low, high = median_interval(fastest.passes)

    def formula(rows: Sequence[Reading]) -> Predict:
        batch, kv_heads, nbytes = columns(rows, "batch", "kv_heads", "nbytes")
        return lambda x, pick: DecodeModel(floor, *x).seconds((batch * (kv_heads / BASE_KV_HEADS))[pick], nbytes[pick])

    start = {"t0": _least(fitted), "per_seq": _per(fitted, "batch"), "bandwidth": _best_rate(fitted, "nbytes")}
    # 2-bit KV has no name in profiles, which know no such format
    name = decode_name(form, group, HEAD_DIM) if form != "int2" else ""
    what = f"{len(fitted)} batches, pages of {page}, KV cold in L2: max(floor, t0 + c*sequences + bytes/B)"
    held = [reading for reading in readings if reading.heldout]
    target = TARGETS["decode"] if form == "bf16" else TARGETS["other"]
    label = name or f"decode_attn_{form}_g{group}_d{HEAD_DIM}"
    if name:
        part.add(f"kernels.{name}.floor", floor, low, high, f"fit_{name}")
    _fit(part, label, start, {"bandwidth": 1e7}, formula, fitted, held, what, target, resamples, known=bool(name))


def _mla(part: Part, readings: Readings, resamples: int) -> None:
    fitted = readings.of("mla", heldout=False)
    if len(fitted) < 4:
        return
    floor = min(reading.seconds for reading in fitted)

    def formula(rows: Sequence[Reading]) -> Predict:
        batch, nbytes = columns(rows, "batch", "nbytes")
        return lambda x, pick: DecodeModel(floor, *x).seconds(batch[pick], nbytes[pick])

    start = {"t0": _least(fitted), "per_seq": _per(fitted, "batch"), "bandwidth": _best_rate(fitted, "nbytes")}
    name = next(name for name in MLA_GROUPS if group_form(name) is not None)
    part.add(f"kernels.{name}.floor", floor, floor, floor, f"fit_{name}")
    what = f"{len(fitted)} batches, {fitted[0].key['heads']} heads over a latent of 512 + 64, cold"
    held = readings.of("mla", heldout=True)
    _fit(part, name, start, {"bandwidth": 1e7}, formula, fitted, held, what, TARGETS["decode"], resamples)


def _prefill(part: Part, readings: Readings, resamples: int) -> None:
    fitted = readings.of("prefill", heldout=False, impl="triton")
    if len(fitted) < 4:
        return

    def formula(rows: Sequence[Reading]) -> Predict:
        tokens, heads, flops = columns(rows, "tokens", "heads", "flops")
        return lambda x, pick: PrefillModel(*x).seconds((tokens * (heads / BASE_HEADS))[pick], flops[pick])

    start = {"t0": _least(fitted), "per_token": _per(fitted, "tokens"), "flops": _best_rate(fitted, "flops")}
    sizes = f"{_range(fitted, 'tokens')} tokens after {_range(fitted, 'prefix')}"
    what = f"{len(fitted)} chunks of {sizes}: t0 + a*S + flops/F"
    held = readings.of("prefill", heldout=True, impl="triton")
    _fit(part, "prefill_attn", start, {"flops": 1e8}, formula, fitted, held, what, TARGETS["prefill"], resamples)
    beside = {(r.key["tokens"], r.key["prefix"]): r.seconds for r in readings.of("prefill", impl="sdpa")}
    ratio = [beside[at] / r.seconds for r in fitted if (at := (r.key["tokens"], r.key["prefix"])) in beside]
    if ratio:
        part.extras["torch_sdpa_per_ours"] = round(float(np.median(ratio)), 3)


def _pages(part: Part, readings: Readings) -> None:
    """Larger pages: seconds as a multiple of those with pages of 16."""
    base = {(r.key["batch"], r.key["seq"]): r.seconds for r in readings.of("decode", format="bf16", heads=32, page=16)}
    table: dict[str, list[float]] = {}
    for reading in readings.of("decode", format="bf16", heads=32):
        at = (reading.key["batch"], reading.key["seq"])
        if reading.key["page"] != 16 and at in base:
            table.setdefault(str(reading.key["page"]), []).append(reading.seconds / base[at])
    if table:
        part.extras["decode_by_page"] = {page: round(float(np.median(ratios)), 3) for page, ratios in table.items()}


def _fit(
    part: Part,
    group: str,
    start: Mapping[str, float],
    least: Mapping[str, float],
    formula: object,
    fitted: Sequence[Reading],
    held: Sequence[Reading],
    what: str,
    target: float | None,
    resamples: int,
    *,
    members: NDArray[np.intp] | None = None,
    known: bool = True,
) -> None:
    """Fit a formula and add its values, or only its scores and a summary where profiles do not know the group."""
    assert callable(formula)
    (seconds,) = columns(fitted, "seconds")
    predict = formula(fitted)
    x0 = np.array(list(start.values()))
    low = np.array([least.get(name, 0.0) for name in start])
    rows = np.arange(len(seconds))
    best = robust_fit(predict, x0, low, seconds, rows)
    own = score(predict(best, rows), seconds)
    edges = _bootstrap(predict, best, x0, low, seconds, members, resamples)
    source = f"fit_{group}"
    summary: dict[str, object] = {"mape": round(own.mape, 4), "points": len(fitted)}
    if known:
        part.sources[source] = (
            f"{what}; soft-L1 on log residuals, MAPE {own.mape:.1%}, p90 {own.p90:.1%}; interval by bootstrap"
        )
        for i, name in enumerate(start):
            part.add(f"kernels.{group}.{name}", float(best[i]), float(edges[0][i]), float(edges[1][i]), source)
    else:
        summary |= {name: float(f"{best[i]:.4g}") for i, name in enumerate(start)}
    part.extras[f"fit_{group}"] = summary
    if held:
        (measured,) = columns(held, "seconds")
        part.judge(group, formula(held)(best, np.arange(len(held))), measured, target)


def _bootstrap(
    predict: Predict,
    best: Floats,
    start: Floats,
    least: Floats,
    seconds: Floats,
    members: NDArray[np.intp] | None,
    resamples: int,
) -> tuple[Floats, Floats]:
    rows = np.arange(len(seconds))
    groups = [rows[members == i] for i in np.unique(members)] if members is not None else list(rows[:, None])
    rng = np.random.Generator(np.random.Philox(0))
    again = np.maximum(best, 1e-3 * start)
    draws = [
        robust_fit(
            predict, np.maximum(again, least * (1 + 1e-9)), least, seconds, np.concatenate([groups[i] for i in pick])
        )
        for pick in rng.integers(0, len(groups), (resamples, len(groups)))
    ]
    if not draws:
        return best, best
    low, high = np.quantile(draws, [0.05, 0.95], axis=0)
    return np.minimum(low, best), np.maximum(high, best)


def _least(readings: Sequence[Reading]) -> float:
    """Where the search for a fixed time starts."""
    return 0.5 * min(reading.seconds for reading in readings)


def _per(readings: Sequence[Reading], name: str) -> float:
    """Where the search for a time per item starts."""
    counts, seconds = columns(readings, name, "seconds")
    return float(0.1 * (seconds / counts).min())


def _best_rate(readings: Sequence[Reading], name: str) -> float:
    amounts, seconds = columns(readings, name, "seconds")
    return float((amounts / seconds).max())


def _range(readings: Sequence[Reading], name: str) -> str:
    (values,) = columns(readings, name)
    return f"{values.min():.0f}..{values.max():.0f}"
