"""The tables of a run directory, from recorded rows."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence as Seq

import numpy as np
import pyarrow as pa

from sim.columns import Columns
from sim.engine.sequence import Preemption
from sim.served import Served


def requests_table(served: Served, tiers: Seq[str], *, lookups: bool = False) -> pa.Table:
    """One row per request in order of arrival; times in seconds, NaN if never.

    queue_s + load_s + prefill_s = ttft_s; prefetch_wait_s is part of queue_s, and load_<tier>_s add up to load_s.
    With `lookups`, lookup_s is another part of queue_s: what a request looked up before it was sent to a replica.
    """
    column = served.column
    arrival, admit, load_done = column("arrival_s"), column("admit_s"), column("load_done_s")
    chunk, first, finish = column("chunk_s"), column("first_token_s"), column("finish_s")
    entered = column("entered_s")
    inputs, outputs, slowest = column("input_tokens"), column("output_tokens"), column("load_level")
    places, statuses = served.statuses
    ttft, load, prefill = first - arrival, load_done - admit, first - chunk
    with np.errstate(invalid="ignore", divide="ignore"):
        tpot = np.where(outputs > 1, (finish - first) / (outputs - 1), np.nan)
    data: dict[str, np.ndarray | pa.Array] = {
        "request_id": column("index"),
        "replica": column("replica"),
        "session": column("session"),
        "turn": column("turn"),
        "status": _texts_at(places, [status.partition(":")[0] for status in statuses]),
        "reason": _texts_at(places, [status.partition(": ")[2] for status in statuses]),
        "arrival_s": arrival,
        "admit_s": admit,
        "load_done_s": load_done,
        "first_chunk_s": chunk,
        "first_token_s": first,
        "finish_s": finish,
        "input_tokens": inputs,
        "output_tokens": outputs,
        **{f"hit_{tier}_tokens": column(f"reused_{i}") for i, tier in enumerate(tiers)},
        "computed_tokens": column("prefilled"),
        "recomputed_tokens": column("recomputed"),
        "preemptions": column("preemptions"),
        "ttft_s": ttft,
        "tpot_s": tpot,
        "e2e_s": finish - arrival,
        "queue_s": ttft - load - prefill,
        "load_s": load,
        "prefill_s": prefill,
        "prefetch_wait_s": np.where(np.isnan(admit), np.nan, column("fetched_s") - entered),
        **({"lookup_s": np.where(np.isnan(admit), np.nan, entered - arrival)} if lookups else {}),
        **{f"load_{tier}_s": np.where(slowest == i, load, 0.0 * load) for i, tier in enumerate(tiers) if i},
    }
    return _table({name: _numbers(c) if isinstance(c, np.ndarray) else c for name, c in data.items()})


def with_columns(table: pa.Table, columns: Mapping[str, np.ndarray]) -> pa.Table:
    """The table with more columns of numbers."""
    for name, values in columns.items():
        table = table.append_column(name, _numbers(values))
    return table


def preemptions_table(lost: Seq[Preemption], tiers: Seq[str]) -> pa.Table:
    """One row per preemption; times in seconds. `load_tier` is the tier whose KV came last when it was loaded again."""

    def column(name: str, kind: str) -> np.ndarray:
        return np.fromiter((getattr(p, name) for p in lost), dtype=kind, count=len(lost))

    waited = [p.load_level if p.load_done_s > p.admit_s else 0 for p in lost]
    data = {
        "request_id": _numbers(column("request", "i8")),
        "replica": _numbers(column("replica", "i2")),
        **{f"{n}_s": _numbers(column(f"{n}_s", "f8")) for n in ("start", "admit", "load_done", "restart", "end")},
        "load_tier": _encoded([tiers[level] if level else "" for level in waited]),
        "recompute_s": _numbers(column("recompute_s", "f8")),
    }
    return _table(data)


def columns_table(columns: Columns) -> pa.Table:
    """A table of recorded rows; text columns are dictionary-encoded."""
    data = {}
    for name, kind in columns.types.items():
        values = _numbers(columns.numbers(name))
        data[name] = pa.DictionaryArray.from_arrays(values, _text(columns.texts(name))) if kind == "str" else values
    return _table(data)


# Arrays are made from buffers and read from them: pa.array and to_numpy import pandas, which takes half a small run.


def numbers(table: pa.Table, name: str) -> np.ndarray:
    """A column of one of the tables that are made here."""
    values = table[name].chunk(0)
    return np.frombuffer(values.buffers()[1], values.type.to_pandas_dtype(), len(values))


def _table(data: dict[str, pa.Array]) -> pa.Table:
    return pa.Table.from_arrays(list(data.values()), list(data))


def _numbers(values: np.ndarray) -> pa.Array:
    buffer = pa.py_buffer(np.ascontiguousarray(values))
    return pa.Array.from_buffers(pa.from_numpy_dtype(values.dtype), len(values), [None, buffer], 0)


def _text(values: Seq[str]) -> pa.Array:
    return _texts_at(np.arange(len(values)), values)


def _texts_at(places: np.ndarray, texts: Seq[str]) -> pa.Array:
    """Of each row the text at its place in a list of them."""
    encoded = [text.encode() for text in texts]
    offsets = np.zeros(len(places) + 1, dtype=np.int32)
    np.cumsum(np.array([len(text) for text in encoded], dtype=np.int32)[places], out=offsets[1:])
    data = b"".join(map(encoded.__getitem__, places.tolist()))
    return pa.StringArray.from_buffers(len(places), pa.py_buffer(offsets), pa.py_buffer(data), None, 0)


def _encoded(values: Seq[str]) -> pa.Array:
    """Each text once, in order of its first appearance, and int32 places in that list."""
    places = {value: place for place, value in enumerate(dict.fromkeys(values))}
    codes = np.fromiter(map(places.__getitem__, values), dtype=np.int32, count=len(values))
    return pa.DictionaryArray.from_arrays(_numbers(codes), _text(list(places)))
