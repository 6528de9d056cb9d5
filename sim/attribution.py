"""Where the time of each request went: parts of its prefill and of its decoding, which add up to them.

All steps of a replica, and what they waited for, are in the table of steps; a request is in every step from its first
chunk to its last token but for those while it was preempted. So its share of any wait is a difference of running sums
over steps, taken when the run is over: the step loop itself only notes preemptions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from sim.engine.sequence import Preemption
from sim.tables import numbers

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

PHASES = ("prefill", "decode")
"""From the first chunk to the first token, and from there to the last."""
WAITS = {"copies": "interference_s", "layer_wait": "layer_wait_s", "kv_moves": "moves_s", "store_wait": "stall_s"}
"""What every member of a step waits for, and its column in the table of steps."""
PARTS = ("compute", "beside", "recompute", "preempted", *WAITS)
"""Parts of a phase; only decoding has "beside". In the table of requests: <phase>_<part>_s."""
BETWEEN = ("memory", "transfer", "place")
"""Between two replicas, what a request waits for after its first token: memory where it is decoded, the rest of its
KV, a place in a step. Columns decode_<part>_s of tables with a `decode_replica`."""


def attribute(requests: pa.Table, steps: pa.Table, lost: Sequence[Preemption]) -> dict[str, Floats]:
    """Parts of prefill and decoding by column, s: float64[requests], NaN for requests that were not served.

    prefill_<part>_s add up to `prefill_s`, decode_<part>_s to `e2e_s` - `ttft_s`, with those of BETWEEN if the table
    has them. `steps` has the rows of each replica in order of time.
    """
    chunk, first, finish = (numbers(requests, f"{name}_s") for name in ("first_chunk", "first_token", "finish"))
    replica = decoder = numbers(requests, "replica")
    begun, elsewhere = first, np.zeros(len(first))
    if "decode_replica" in requests.column_names:
        decoder = np.where(numbers(requests, "decode_replica") < 0, replica, numbers(requests, "decode_replica"))
        begun = numbers(requests, "decode_start_s")
        elsewhere = sum((numbers(requests, f"decode_{part}_s") for part in BETWEEN), elsewhere)
    served = ~np.isnan(finish)
    losses = _Losses.of_run(lost, numbers(requests, "request_id"), first)
    parts = {(phase, part): np.zeros(len(served)) for phase in PHASES for part in PARTS}
    for phase in PHASES:
        losses.add(phase, losses.restart - losses.start, parts[phase, "preempted"])
        losses.add(phase, losses.recompute, parts[phase, "recompute"])
    waits = {part: column for part, column in WAITS.items() if numbers(steps, column).any()}  # the others add zeros
    for index, rows in _rows_by_replica(numbers(steps, "replica")).items():
        line = _Timeline(steps, rows)
        mine, theirs = np.flatnonzero(served & (replica == index)), np.flatnonzero(served & (decoder == index))
        begin, middle = line.deciding(chunk[mine]), line.ended(first[mine])
        entered, end = line.entering(first[theirs], begun[theirs]), line.ended(finish[theirs])
        here = losses.on(index)
        gone, back, over = line.ended(here.start), line.deciding(here.restart), line.ended(here.end)
        for part, column in waits.items():
            total = _running(line.column(column))
            for phase, who, low, high in (("prefill", mine, begin, middle), ("decode", theirs, entered, end)):
                parts[phase, part][who] += total[high] - total[low]
                here.add(phase, total[gone] - total[back], parts[phase, part])
        total = _running(line.with_prompts())
        parts["decode", "beside"][theirs] += total[end] - total[entered]
        here.add("decode", total[gone] - total[over], parts["decode", "beside"])
    for phase, span in (("prefill", first - chunk), ("decode", finish - first - elsewhere)):
        others = sum(parts[phase, part] for part in PARTS)
        parts[phase, "compute"] = np.maximum(span - others, 0.0)  # below zero is what rounding leaves
    del parts["prefill", "beside"]
    return {f"{phase}_{part}_s": np.where(served, values, np.nan) for (phase, part), values in parts.items()}


def _rows_by_replica(replicas: Ints) -> dict[int, Ints]:
    order = np.argsort(replicas, kind="stable")
    names, starts = np.unique(replicas[order], return_index=True)
    return dict(zip(names.tolist(), np.split(order, starts[1:]), strict=False))  # of no rows, split makes one part


def _running(values: Floats) -> Floats:
    """Sums of the first n values, for n from 0."""
    return np.concatenate([[0.0], np.cumsum(values)])


class _Timeline:
    """The steps of one replica in order of time."""

    def __init__(self, steps: pa.Table, rows: Ints) -> None:
        self._steps, self._rows = steps, rows
        self._ends = self.column("end_s")
        # When steps were decided, by the subtraction that told requests when theirs were: the same bits.
        self._decided = self.column("start_s") - self.column("stall_s")

    def deciding(self, times: Floats) -> Ints:
        """Rows before the one that was decided at each of `times`."""
        return np.searchsorted(self._decided, times, side="left")

    def ended(self, times: Floats) -> Ints:
        """Rows that had ended by each of `times`."""
        return np.searchsorted(self._ends, times, side="right")

    def entering(self, first: Floats, begun: Floats) -> Ints:
        """Rows before a request's first step after its first token: those that had ended when that came, and on another
        replica (`begun` later) those before the step that was decided then."""
        return np.where(begun > first, self.deciding(begun), self.ended(first))

    def column(self, name: str) -> Floats:
        return np.asarray(numbers(self._steps, name)[self._rows], dtype=np.float64)

    def with_prompts(self) -> Floats:
        """Seconds of the steps that computed prompts too, without what copies added; 0 for the others."""
        waits = self.column("interference_s") + self.column("layer_wait_s") + self.column("moves_s")
        own = self._ends - self.column("start_s") - waits
        return np.where(self.column("prefill_seqs") > 0, own, 0.0)


@dataclass(frozen=True)
class _Losses:
    """Preemptions as columns: the row of the request, whether it was decoding, and times (sim.engine.sequence)."""

    row: Ints
    replica: Floats
    decoding: Bools
    start: Floats
    restart: Floats
    end: Floats
    recompute: Floats

    @classmethod
    def of_run(cls, lost: Sequence[Preemption], ids: Ints, first_token: Floats) -> _Losses:
        def column(name: str) -> Floats:
            return np.fromiter((getattr(p, name) for p in lost), dtype=np.float64, count=len(lost))

        rows = np.zeros(int(ids.max(initial=-1)) + 1, dtype=np.int64)
        rows[ids] = np.arange(len(ids))
        row, start = rows[column("request").astype(np.int64)], column("start_s")
        times = (column(name) for name in ("restart_s", "end_s", "recompute_s"))
        return cls(row, column("replica"), start >= first_token[row], start, *times)

    def on(self, replica: int) -> _Losses:
        """Those of one replica."""
        here = self.replica == replica
        return _Losses(*(getattr(self, field.name)[here] for field in fields(self)))

    def add(self, phase: str, values: Floats, to: Floats) -> None:
        """Add the values of preemptions in a phase to the rows of their requests."""
        chosen = self.decoding == (phase == "decode")
        np.add.at(to, self.row[chosen], values[chosen])
