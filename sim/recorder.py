"""What a run writes down while it runs: rows appended to columns, aggregated once at the end."""

from __future__ import annotations

import math
from array import array

import numpy as np

from sim.columns import Columns

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
_MOST_HELD = 1 << 16


class Recorder:
    """Collects strides, transfers, samples and token gaps of one run."""

    def __init__(self) -> None:
        self.steps = Columns(STEP_COLUMNS, summed="attention_s")
        self.transfers = Columns(TRANSFER_COLUMNS)
        self.samples = Columns(SAMPLE_COLUMNS)
        self._edges = np.exp(_LOG_MIN + np.arange(1, _ITL_BINS) / ITL_BINS_PER_E)
        """Lower ends of all bins but the first, s."""
        self._itl = np.zeros(_ITL_BINS)
        """Gaps by bin: whole numbers."""
        self._gaps: list[float] = []
        self._gap_weights: list[int] = []
        self._ends: list[np.ndarray] = []
        """Ends of steps that follow one another, stride by stride; those of short strides in one list for all."""
        self._end_weights: list[int] = []
        self._few_ends = array("d")
        self._few_lengths: list[int] = []
        self._few_weights: list[int] = []
        self._held = 0
        """Gaps that are not in their bins yet: many at a time are sorted sooner."""
        self._itl_sum = 0.0
        self._itl_max = 0.0

    def gap(self, seconds: float, weight: int) -> None:
        """`weight` gaps of `seconds` between consecutive tokens."""
        self._gaps.append(seconds)
        self._gap_weights.append(weight)
        self._itl_sum += seconds * weight
        if seconds > self._itl_max:
            self._itl_max = seconds
        self._held += 1
        if self._held > _MOST_HELD:
            self._sort_gaps()

    def gaps(self, ends: list[float] | np.ndarray, weight: int) -> None:
        """`weight` gaps between each two of the ascending times `ends`: n >= 2 of them."""
        if isinstance(ends, list):
            self._few_ends.fromlist(ends)
            self._few_lengths.append(len(ends))
            self._few_weights.append(weight)
        else:
            self._ends.append(ends)
            self._end_weights.append(weight)
        self._itl_sum += float(ends[-1] - ends[0]) * weight
        self._held += len(ends)
        if self._held > _MOST_HELD:
            self._sort_gaps()

    def _sort_gaps(self) -> None:
        """Put the gaps that are held into their bins."""
        if self._gaps:
            self._count(np.array(self._gaps), np.array(self._gap_weights, dtype=np.float64))
        if self._few_lengths:
            self._ends.append(np.array(self._few_ends))
        if self._ends:
            lengths = [*map(len, self._ends[: len(self._end_weights)]), *self._few_lengths]
            weights = np.repeat(np.array(self._end_weights + self._few_weights, dtype=np.float64), lengths)
            between = np.cumsum(lengths)[:-1] - 1  # from the end of one stride to the start of another
            gaps = np.diff(np.concatenate(self._ends))
            gaps[between] = weights[between] = 0
            self._itl_max = max(self._itl_max, float(gaps.max()))
            self._count(gaps, weights[:-1])
        self._gaps, self._gap_weights, self._ends, self._end_weights = [], [], [], []
        self._few_ends, self._few_lengths, self._few_weights = array("d"), [], []
        self._held = 0

    def _count(self, gaps: np.ndarray, weights: np.ndarray) -> None:
        bins = self._edges.searchsorted(gaps, side="right")
        self._itl += np.bincount(bins, weights, _ITL_BINS)

    def itl_quantiles(self, quantiles: list[float]) -> tuple[float, list[float], float]:
        """Mean, quantiles and maximum of the gaps in seconds (NaN when there are none); quantiles to 0.05 %."""
        self._sort_gaps()
        total = int(self._itl.sum())
        if not total:
            return math.nan, [math.nan] * len(quantiles), math.nan
        cumulative = np.cumsum(self._itl)
        bins = np.searchsorted(cumulative, np.asarray(quantiles) * total)
        centres = np.exp(_LOG_MIN + (bins + 0.5) / ITL_BINS_PER_E)
        return self._itl_sum / total, [min(float(c), self._itl_max) for c in centres], self._itl_max
