"""What a run writes down while it runs: rows appended to columns, aggregated once at the end."""

from __future__ import annotations

import math
from bisect import bisect_right

import numpy as np

from sim.columns import Columns
from sim.hierarchy.transfer import Transfer

STEP_COLUMNS: dict[str, str] = {
    "replica": "int16",
    "first_step": "int64",
    "count": "int32",
    "start_s": "float64",
    "end_s": "float64",
    "decode_seqs": "int32",
    "padding_seqs": "int32",
    "prefill_seqs": "int32",
    "prefill_tokens": "int32",
    "context_tokens": "int64",
    "running": "int32",
    "waiting": "int32",
    "linear_s": "float64",
    "attention_s": "float64",
    "exchange_s": "float64",
    "launch_s": "float64",
    "pipeline_s": "float64",
    "works_s": "float64",
    "moves_s": "float64",
    "stall_s": "float64",
    "interference_s": "float64",
    "layer_wait_s": "float64",
}
TRANSFER_COLUMNS: dict[str, str] = {
    "link": "str",
    "replica": "int16",
    "src": "str",
    "dst": "str",
    "bytes": "int64",
    "copies": "int32",
    "queued_s": "float64",
    "start_s": "float64",
    "end_s": "float64",
    "reason": "str",
}
SAMPLE_COLUMNS: dict[str, str] = {
    "time_s": "float64",
    "kind": "str",
    "object": "str",
    "metric": "str",
    "value": "float64",
}

ITL_BINS_PER_E = 1000
"""Bins of the inter-token-latency histogram per factor e: each is 0.1 % wide."""
_ITL_MIN_S = 1e-6
_ITL_BINS = 21 * ITL_BINS_PER_E
_LOG_MIN = math.log(_ITL_MIN_S)


class Recorder:
    """Collects strides, transfers, samples and token gaps of one run."""

    def __init__(self) -> None:
        self.steps = Columns(STEP_COLUMNS)
        self.transfers = Columns(TRANSFER_COLUMNS)
        self.samples = Columns(SAMPLE_COLUMNS)
        edges = np.exp(_LOG_MIN + np.arange(1, _ITL_BINS) / ITL_BINS_PER_E)
        self._edges = edges
        """Lower ends of all bins but the first, s."""
        self._edge_list: list[float] = edges.tolist()
        self._itl = np.zeros(_ITL_BINS, dtype=np.int64)
        self._itl_sum = 0.0
        self._itl_max = 0.0

    def transfer(self, link: str, replica: int, transfer: Transfer, queued: float, start: float, end: float) -> None:
        """One batch of copies over a link; times in seconds."""
        t = transfer
        self.transfers.append(link, replica, t.src, t.dst, t.size, t.copies, queued, start, end, t.reason)

    def gap(self, seconds: float, weight: int) -> None:
        """`weight` gaps of `seconds` between consecutive tokens."""
        self._itl[bisect_right(self._edge_list, seconds)] += weight
        self._itl_sum += seconds * weight
        if seconds > self._itl_max:
            self._itl_max = seconds

    def gaps(self, ends: np.ndarray, weight: int, *, grow: bool) -> None:
        """`weight` gaps between each two of the ascending times `ends`: float64[n], n >= 2.

        grow: no gap is shorter than the one before it, as in a stride that no copy slows.
        """
        first, last = float(ends[1] - ends[0]), float(ends[-1] - ends[-2])
        self._itl_sum += float(ends[-1] - ends[0]) * weight
        self._itl_max = max(self._itl_max, first, last)
        low, high = bisect_right(self._edge_list, first), bisect_right(self._edge_list, last)
        if grow and low >= high:  # or they differ by rounding alone
            self._itl[low] += weight * (len(ends) - 1)
            return
        gaps = ends[1:] - ends[:-1]
        if grow:
            passed = gaps.searchsorted(self._edges[low:high])
            self._itl[low] += weight * passed[0]
            self._itl[low + 1 : high] += weight * (passed[1:] - passed[:-1])
            self._itl[high] += weight * (len(gaps) - passed[-1])
        else:
            np.add.at(self._itl, self._edges.searchsorted(gaps, side="right"), weight)
            self._itl_max = max(self._itl_max, float(gaps.max()))

    def itl_quantiles(self, quantiles: list[float]) -> tuple[float, list[float], float]:
        """Mean, quantiles and maximum of the gaps in seconds (NaN when there are none); quantiles to 0.05 %."""
        total = int(self._itl.sum())
        if not total:
            return math.nan, [math.nan] * len(quantiles), math.nan
        cumulative = np.cumsum(self._itl)
        bins = np.searchsorted(cumulative, np.asarray(quantiles) * total)
        centres = np.exp(_LOG_MIN + (bins + 0.5) / ITL_BINS_PER_E)
        return self._itl_sum / total, [min(float(c), self._itl_max) for c in centres], self._itl_max
