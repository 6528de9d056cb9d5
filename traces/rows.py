"""The requests of a trace one after the other, as an engine asks for them: plain numbers, made many at a time."""

from __future__ import annotations

from traces.request import Request, Trace

ROWS = 1 << 10
"""Requests whose numbers are taken out of the columns at a time: one by one costs several times as much."""


class Rows:
    """`Trace.request` for requests that are asked for more or less in order: the same rows, sooner."""

    def __init__(self, trace: Trace) -> None:
        self._trace = trace
        self._first = self._end = 0
        self._arrivals: list[float] = []
        self._inputs: list[int] = []
        self._outputs: list[int] = []
        self._ids: list[int] = []
        self._offsets: list[int] = []
        self._plain = trace.session_ids is None and trace.turns is None and trace.after is None
        """There are no conversations."""
        self._plain = self._plain and trace.priorities is None

    def request(self, index: int) -> Request:
        """Row `index`."""
        if not self._plain:
            return self._trace.request(index)
        if not self._first <= index < self._end:
            self._take(index)
        at = index - self._first
        ids = self._ids[self._offsets[at] : self._offsets[at + 1]]
        return Request(index, self._arrivals[at], self._inputs[at], self._outputs[at], ids)

    def _take(self, index: int) -> None:
        """Take out the rows from `index` on. Raises IndexError if there are none."""
        trace = self._trace
        if not 0 <= index < len(trace):
            raise IndexError(f"request {index} of a trace of {len(trace)}")
        first, end = index, min(index + ROWS, len(trace))
        self._first, self._end = first, end
        self._arrivals = trace.arrival_s[first:end].tolist()
        self._inputs = trace.input_tokens[first:end].tolist()
        self._outputs = trace.output_tokens[first:end].tolist()
        low, high = int(trace.hash_offsets[first]), int(trace.hash_offsets[end])
        self._ids = trace.hash_ids[low:high].tolist()
        self._offsets = (trace.hash_offsets[first : end + 1] - low).tolist()
