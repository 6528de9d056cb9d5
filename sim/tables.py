"""The tables of a run directory, from sequences and recorded rows."""

from __future__ import annotations

from collections.abc import Sequence as Seq

import numpy as np
import pyarrow as pa

from sim.engine.sequence import Sequence
from sim.recorder import Columns


def requests_table(sequences: Seq[Sequence], tiers: Seq[str]) -> pa.Table:
    """One row per request in order of arrival; times in seconds, NaN if never.

    queue_s + load_s + prefill_s = ttft_s.
    """
    count = len(sequences)

    def column(name: str, kind: str) -> np.ndarray:
        return np.fromiter((getattr(s, name) for s in sequences), dtype=kind, count=count)

    arrival, admit, load_done = column("arrival_s", "f8"), column("admit_s", "f8"), column("load_done_s", "f8")
    chunk, first, finish = column("chunk_s", "f8"), column("first_token_s", "f8"), column("finish_s", "f8")
    inputs, outputs = column("input_tokens", "i8"), column("output_tokens", "i8")
    hits = np.array([s.hit_tokens for s in sequences], dtype=np.int64).reshape(count, len(tiers))
    computed = column("prefilled", "i8")
    finished = ~np.isnan(finish)
    ttft, load, prefill = first - arrival, load_done - admit, first - chunk
    with np.errstate(invalid="ignore", divide="ignore"):
        tpot = np.where(outputs > 1, (finish - first) / (outputs - 1), np.nan)
    data: dict[str, object] = {
        "request_id": column("index", "i8"),
        "replica": column("replica", "i2"),
        "session": column("session", "i8"),
        "turn": column("turn", "i4"),
        "status": ["finished" if f else s.status.partition(":")[0] for f, s in zip(finished, sequences, strict=True)],
        "reason": [s.status.partition(": ")[2] for s in sequences],
        "arrival_s": arrival,
        "admit_s": admit,
        "load_done_s": load_done,
        "first_chunk_s": chunk,
        "first_token_s": first,
        "finish_s": finish,
        "input_tokens": inputs,
        "output_tokens": outputs,
        **{f"hit_{tier}_tokens": hits[:, i] for i, tier in enumerate(tiers)},
        "computed_tokens": computed,
        "recomputed_tokens": column("recomputed", "i8"),
        "preemptions": column("preemptions", "i4"),
        "ttft_s": ttft,
        "tpot_s": tpot,
        "e2e_s": finish - arrival,
        "queue_s": ttft - load - prefill,
        "load_s": load,
        "prefill_s": prefill,
    }
    return pa.table(data)


def columns_table(columns: Columns) -> pa.Table:
    """A table of recorded rows; text columns are dictionary-encoded."""
    data = {
        name: pa.array(values, pa.string()).dictionary_encode() if isinstance(values, list) else pa.array(values)
        for name, values in columns.arrays().items()
    }
    return pa.table(data)
