"""What a batch adds to attention, from LLMServingSim's layer profiles: prompts beside decoding, unequal lengths.

Columns (casys-kaist/LLMServingSim, MIT, profiler of vLLM layers): `attention.csv` prefill_chunk, kv_prefill, n_decode,
kv_decode, time_us of one layer's attention for one chunk after kv_prefill tokens and n_decode sequences of kv_decode
tokens; `skew.csv` n sequences of which some have kv_big tokens, kv_mean on average, t_skew_us, and t_mean_us where all
have kv_mean.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np

from calibration.fitting import Array, Mask, Rows, Score, bootstrap, robust_fit, score
from calibration.profile_text import residual_lines
from calibration.split import fitted_on
from calibration.tables import read_table
from hw_profiles.batch_effects import ImbalanceModel, MixedModel
from hw_profiles.kernel_groups import BASE_KV_HEADS
from hw_profiles.residual import Residual, octaves

PARTS = tuple(float(2.0**k) for k in range(-5, 6))
"""Seconds of the prompts' launch per second of the decoding launch, at which the table has ratios."""
SPREAD = 0.5
"""Octaves within which points count toward a ratio of the table, as the standard deviation of a Gaussian."""
TILES_PER_SM = 1.6
"""Tiles (sequences x KV heads) per SM from which the kernel splits no sequence; hw_profiles.batch_effects has why."""


RESAMPLES = 100
Interval = tuple[float, float]


@dataclass(frozen=True)
class MixedFit:
    """The model, its scores on the points that it was fitted to and on the others; `without`: no model, the others."""

    model: MixedModel
    fitted: Score
    heldout: Score
    without: Score
    interval: Interval
    """90 % interval of the factor, by bootstrap over the fitted points."""


@dataclass(frozen=True)
class ImbalanceFit:
    """The same for sequences of unequal length."""

    model: ImbalanceModel
    fitted: Score
    heldout: Score
    without: Score
    share: Interval
    sharpness: Interval


def fit_mixed(folder: Path, kv_heads_share: float = 1.0) -> MixedFit:
    """From `attention.csv` in a folder. kv_heads_share: KV heads of the rank per 8."""
    rows = _attention(folder)
    seconds, parts, batch, context = rows["both"], rows["prefill"] / rows["decode"], rows["batch"], rows["context"]
    apart = rows["prefill"] + rows["decode"]
    seen = fitted_on(batch, context, rows["chunk"])
    ratio = seconds / apart
    factor = float(np.exp(np.mean(np.log(ratio[seen]))))
    batches, contexts = np.unique(batch[seen]), np.unique(context[seen])
    table = [
        _local(parts, ratio / factor, seen & (batch == b) & (context == c), part)
        for part, b, c in product(PARTS, batches, contexts)
    ]
    grids = [tuple(map(float, grid)) for grid in (batches * kv_heads_share, contexts)]
    axes = (("prefill_per_decode", PARTS), ("batch", grids[0]), ("context", grids[1]))
    model = MixedModel(round(factor, 4), Residual(axes, tuple(round(x, 3) for x in table)))
    assert model.residual is not None
    predicted = apart * model.factor * model.residual.at(parts, batch * kv_heads_share, context)
    return MixedFit(
        model,
        score(predicted[seen], seconds[seen]),
        score(predicted[~seen], seconds[~seen]),
        score(apart[~seen], seconds[~seen]),
        _mean_interval(ratio[seen]),
    )


def fit_imbalance(folder: Path, kv_heads: int, sms: int) -> ImbalanceFit:
    """From `skew.csv` in a folder: decoding without prompts, batches whose sequences the kernel does not split."""
    table = read_table(folder / "skew.csv", ("regime", "n", "kv_big", "kv_mean", "t_mean_us", "t_skew_us"))
    tiles = round(TILES_PER_SM * sms)
    table = table.equal(regime="pure")
    table = table.where(table.numbers("n") * kv_heads >= tiles)
    n, longest, mean = (table.numbers(key) for key in ("n", "kv_big", "kv_mean"))
    ratio = table.times("t_skew_us", 1e-6) / table.times("t_mean_us", 1e-6)
    seen = fitted_on(longest)

    def predict(x: Array, rows: Rows | Mask) -> Array:
        share, sharpness = x
        uneven = 1 + (longest[rows] / (share * n[rows] * mean[rows])) ** sharpness
        return np.asarray((uneven / (1 + (1 / (share * n[rows])) ** sharpness)) ** (1 / sharpness))

    rows, least = np.flatnonzero(seen), np.array([0.01, 1.0])
    best = robust_fit(predict, np.array([0.2, 2.0]), least, ratio, rows)
    low, high = bootstrap(lambda x, picked: predict(x, rows[picked]), best, least, ratio[rows], RESAMPLES)
    share, sharpness = (round(float(x), 4) for x in best)
    found = np.array([share, sharpness])
    return ImbalanceFit(
        ImbalanceModel(share, sharpness, tiles),
        score(predict(found, seen), ratio[seen]),
        score(predict(found, ~seen), ratio[~seen]),
        score(np.ones_like(ratio[~seen]), ratio[~seen]),
        share=(float(low[0]), float(high[0])),
        sharpness=(float(low[1]), float(high[1])),
    )


def _attention(folder: Path) -> dict[str, Array]:
    """Mixed rows with what their two halves take alone, seconds; rows without both halves in the table are left out."""
    names = ("prefill_chunk", "kv_prefill", "n_decode", "kv_decode", "time_us")
    table = read_table(folder / "attention.csv", names)
    chunk, prefix, batch, context = (table.numbers(name) for name in names[:4])
    seconds = table.times("time_us", 1e-6)
    alone = {
        (chunk[i], prefix[i], batch[i], context[i]): seconds[i] for i in np.flatnonzero((chunk == 0) | (batch == 0))
    }
    mixed = np.flatnonzero((chunk > 0) & (batch > 0))
    prefill = np.array([alone.get((chunk[i], prefix[i], 0.0, 0.0), np.nan) for i in mixed])
    decode = np.array([alone.get((0.0, 0.0, batch[i], context[i]), np.nan) for i in mixed])
    whole = np.isfinite(prefill) & np.isfinite(decode)
    rows = mixed[whole]
    return {
        "chunk": chunk[rows],
        "batch": batch[rows],
        "context": context[rows],
        "both": seconds[rows],
        "prefill": prefill[whole],
        "decode": decode[whole],
    }


def _local(parts: Array, ratio: Array, rows: Mask, part: float) -> float:
    """The mean ratio of the rows around `part`; of the nearest one where there are none around it."""
    distance = octaves(parts[rows]) - octaves(part)
    if not len(distance):
        return 1.0
    weight = np.exp(-0.5 * (distance / SPREAD) ** 2)
    if weight.sum() < 1e-3:
        return float(ratio[rows][np.argmin(np.abs(distance))])
    return float(np.exp(np.average(np.log(ratio[rows]), weights=weight)))


def batching_lines(folder: Path, kv_heads: int, sms: int) -> tuple[list[str], list[str]]:
    """(what to say of the sources, the groups below `kernels:`) of a profile, from a folder with both tables."""
    mixed, uneven = fit_mixed(folder, kv_heads / BASE_KV_HEADS), fit_imbalance(folder, kv_heads, sms)
    assert mixed.model.residual is not None
    table, model = mixed.model.residual, uneven.model
    what = [
        f"kvsim fit of attention.csv: one launch with a prompt's chunk and decoding sequences as a multiple of two, "
        f"{_told(mixed)}",
        f"kvsim fit of skew.csv: decode attention over sequences of unequal length, {_told(uneven)}; min_tiles is "
        f"FlashAttention-2's rule (0.8 tiles per SM of twice the SMs), not a fit",
    ]
    lines = [
        "  mixed_attn:",
        _value("factor", mixed.model.factor, mixed.interval, "fit_mixed_attn"),
        f"    heldout: {_scores(mixed.heldout)}",
        *residual_lines(table),
        "  decode_imbalance:",
        _value("share", model.share, uneven.share, "fit_decode_imbalance"),
        _value("sharpness", model.sharpness, uneven.sharpness, "fit_decode_imbalance"),
        f'    min_tiles: {{v: {model.min_tiles:.0f}, unit: "1", src: fit_decode_imbalance, rel: 0.25}}',
        f"    heldout: {_scores(uneven.heldout)}",
    ]
    return what, lines


def _value(name: str, value: float, interval: Interval, source: str) -> str:
    low, high = min(value, interval[0]), max(value, interval[1])
    return f'    {name}: {{v: {value:.4g}, unit: "1", src: {source}, lo: {low:.4g}, hi: {high:.4g}}}'


def _mean_interval(ratio: Array) -> Interval:
    """5 and 95 % of the geometric mean over resampled points."""
    rng = np.random.Generator(np.random.Philox(0))
    means = [np.log(ratio[rng.integers(0, len(ratio), len(ratio))]).mean() for _ in range(RESAMPLES)]
    low, high = np.exp(np.quantile(means, [0.05, 0.95]))
    return float(low), float(high)


def _told(fit: MixedFit | ImbalanceFit) -> str:
    fitted, held = fit.fitted, fit.heldout
    return (
        f"{fitted.n} points fitted, MAPE {fitted.mape:.1%}; held out: MAPE {held.mape:.1%} of {held.n}, where no model "
        f"has {fit.without.mape:.1%}"
    )


def _scores(score: Score) -> str:
    numbers = ", ".join(f"{name}: {getattr(score, name):.4f}" for name in ("mape", "p90", "max", "bias"))
    return f'{{{numbers}, n: {score.n}, what: "points between the fitted ones"}}'
