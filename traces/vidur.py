"""Reader of Vidur's processed traces of lengths: CSV, plain or gzip; neither times nor prefix information.

`num_prefill_tokens`, `num_decode_tokens`; `num_total_tokens` and `pd_ratio` follow from them.
SOURCE: microsoft/vidur, data/processed_traces/.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from traces.arrivals import NO_TIMES
from traces.request import Trace
from traces.table import Layout, read_table

KEYS = ("num_prefill_tokens", "num_decode_tokens")


def read_vidur(path: str | Path, *, strict: bool = False, name: str | None = None) -> Trace:
    """Reads `path` into a Trace whose requests all arrive at 0 s, and says so in `Trace.warnings`.

    Times come from `arrivals.poisson_arrivals` (`arrival_rate` in a scenario). Raises InputError.
    """
    layout = Layout(None, "num_prefill_tokens", "num_decode_tokens")
    trace = read_table(Path(path), layout, strict=strict, name=name)
    return replace(trace, warnings=(*trace.warnings, f"{path}: {NO_TIMES}"))
