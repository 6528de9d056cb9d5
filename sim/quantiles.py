"""Percentiles and summaries of latency columns."""

from __future__ import annotations

from typing import Any

import numpy as np

STATISTICS = ("mean", "p50", "p90", "p95", "p99", "max")


def latency_ms(seconds: np.ndarray) -> dict[str, float | None]:
    """mean, p50, p90, p95, p99 and max in ms of a column in seconds; NaN rows are left out, None if none is left.

    Percentiles interpolate linearly between order statistics (numpy's default).
    """
    values = seconds[~np.isnan(seconds)] * 1e3
    if not len(values):
        return dict.fromkeys(STATISTICS)
    p50, p90, p95, p99 = (float(v) for v in np.percentile(values, [50, 90, 95, 99]))
    return {"mean": float(values.mean()), "p50": p50, "p90": p90, "p95": p95, "p99": p99, "max": float(values.max())}


def pick(summary: dict[str, Any], key: str) -> float | None:
    """The value in ms that an SLO key such as "ttft_p99" names."""
    metric, _, statistic = key.rpartition("_")
    value: float | None = summary[f"{metric}_ms"][statistic]
    return value
