"""One line through the copies of all block sizes: what a link without copy methods of its own is charged with.

SOURCE of the measurements: one cudaMemcpyAsync per block on an H100, digitised from vLLM's KV-offloading post of
2026-01-08 (`measured/pcie_block_copy` below the data folder).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from calibration.fit_copies import curve
from calibration.fitting import Array, Fit, Rows, fit
from hw_profiles.cost_models import LinkModel


def link_rows(data: Path, direction: str) -> tuple[Array, Array]:
    """(bytes, seconds) of single copies, ascending; `direction` h2d or d2h."""
    nbytes, rate = curve(data, direction, "loop")
    return nbytes, nbytes / rate


def fit_link(nbytes: Array, seconds: Array, resamples: int = 0) -> Fit:
    """LinkModel from single copies of `nbytes`, ascending; held out: every second size."""
    one = np.ones_like(nbytes)

    def predict(x: Array, rows: Rows) -> Array:
        return LinkModel(*x).seconds(nbytes[rows], one[rows])

    test = np.arange(len(nbytes)) % 2 == 1
    start = {"alpha": 3e-6, "beta": 4e10}
    return fit(predict, start, seconds, test=test, resamples=resamples, least={"beta": 1e8})
