"""The request record: one trace as columns (numpy) and one request as a small object.

Columns are what the readers fill and what statistics use; `Trace.request(i)` gives the row the engine wants.
Units are SI: seconds and tokens.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from traces.rules import check
from traces.sending import Sending

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(slots=True)
class Request:
    """One request: arrival in seconds, lengths in tokens, the chained ids of its prefix blocks.

    `session`: its conversation, `turn`: its turn there from 0; -1 where unknown. `think_s`: seconds from its end to the
    sending of the next turn; None if there is none or nothing is known. `carried_ids`: ids of the blocks that hold its
    prompt and its answer, as the next turn has them in its prompt; empty if none carries them. `priority`: lower ones
    are served first, if the engine schedules by it.
    """

    index: int
    arrival_s: float
    input_tokens: int
    output_tokens: int
    hash_ids: list[int] = field(default_factory=list)
    session: int = -1
    turn: int = -1
    think_s: float | None = None
    carried_ids: list[int] = field(default_factory=list)
    priority: int = 0

    @property
    def keys(self) -> list[int]:
        """The hash ids, by the name that policies know them by."""
        return self.hash_ids

    @property
    def carried(self) -> bool:
        """True if the next turn carries prompt and answer."""
        return bool(self.carried_ids)


COLUMNS = {
    "arrival_s": np.float64,
    "input_tokens": np.int64,
    "output_tokens": np.int64,
    "hash_ids": np.int64,
    "hash_offsets": np.int64,
    "session_ids": np.int64,
    "turns": np.int64,
    "after": np.int64,
    "delay_s": np.float64,
    "priorities": np.int64,
    "barriers": np.int64,
    "models": np.int64,
}


def relinked(after: Ints, delay_s: Floats, rows: npt.NDArray[np.intp]) -> tuple[Ints, Floats]:
    """`after` and `delay_s` of the requests `rows` (indices, each once), with indices of the new order.

    What is after a request that is left out, or that comes later in the new order, is after nothing.
    """
    place = np.full(len(after) + 1, -1)  # the last one stands for -1
    place[rows] = np.arange(len(rows))
    new = place[after[rows]]
    new[new >= np.arange(len(rows))] = -1
    return new, np.where(new < 0, np.nan, delay_s[rows])


@dataclass(frozen=True, eq=False)
class Trace:
    """Requests in order of arrival, as read-only columns.

    Shapes, for n requests: `arrival_s` float64[n] (s, ascending), `input_tokens` and `output_tokens` int64[n]
    (>= 1), `hash_ids` int64[total] with `hash_offsets` int64[n + 1]: request i owns
    `hash_ids[hash_offsets[i]:hash_offsets[i + 1]]`, ceil(input / block_tokens) ids of which the last may name
    a partial block. Ids are chained: equal ids mean equal blocks after equal prefixes.
    `block_tokens` is the number of tokens behind one id; 0 means that the trace says nothing about prefixes.
    `content_sha256` covers the uncompressed source file, or the generator's parameters; `source` names it.

    Conversations, where the source tells (else None):
    - `session_ids` int64[n]: equal for the requests of one conversation, with its sub-agents; numbered from 0 as in
      the source, -1 for a request that belongs to none.
    - `turns` int64[n]: turn of the request in its conversation (or sub-agent) from 0, -1 where unknown.
    - `after` int64[n]: index of the request whose end the sender waited for, always an earlier one; -1: nothing.
    - `delay_s` float64[n]: seconds (>= 0) from the end of `after` to the sending; NaN where unknown or `after` is -1.

    In an open trace requests arrive at `arrival_s`, whatever the system does. If `closed_loop` is set, a request with
    `after` is sent `delay_s` after that request has ended instead, and its `arrival_s` is only the earliest time
    possible (every request before it served in no time). `max_parallel`: at most so many requests are under way at a
    time, others wait with their sender; None: any number.

    `sending`: which of the requests that are ready is sent next, and at what pace (traces.sending); None: at once, in
    the order in which they became ready. `barriers` int64[n], of a closed loop: rounds, from 0; no request of one is
    sent before all those of the rounds before it have ended; None: there are none.

    `models` int64[n]: which of several models each request is for, numbered from 0; None: there is one.

    `priorities` int64[n]: what the engine serves first, lower ones before higher ones; None: all are alike.
    """

    name: str
    block_tokens: int
    arrival_s: Floats
    input_tokens: Ints
    output_tokens: Ints
    hash_ids: Ints
    hash_offsets: Ints
    content_sha256: str
    source: str
    warnings: tuple[str, ...] = ()
    session_ids: Ints | None = None
    turns: Ints | None = None
    after: Ints | None = None
    delay_s: Floats | None = None
    closed_loop: bool = False
    max_parallel: int | None = None
    priorities: Ints | None = None
    sending: Sending | None = None
    barriers: Ints | None = None
    models: Ints | None = None

    def __post_init__(self) -> None:
        for column, dtype in COLUMNS.items():
            if getattr(self, column) is None:
                continue
            view = np.ascontiguousarray(getattr(self, column), dtype=dtype).view()
            view.flags.writeable = False  # variants of a scenario share it: nobody may change it
            object.__setattr__(self, column, view)

    def __len__(self) -> int:
        return len(self.arrival_s)

    def __iter__(self) -> Iterator[Request]:
        return (self.request(i) for i in range(len(self)))

    def request(self, index: int) -> Request:
        """Row `index` (0-based, order of arrival) with plain Python numbers."""
        if not 0 <= index < len(self):
            raise IndexError(f"request {index} of a trace of {len(self)}")
        lo, hi = int(self.hash_offsets[index]), int(self.hash_offsets[index + 1])
        think_s = float(self.think_s[index])
        return Request(
            index,
            float(self.arrival_s[index]),
            int(self.input_tokens[index]),
            int(self.output_tokens[index]),
            self.hash_ids[lo:hi].tolist(),
            -1 if self.session_ids is None else int(self.session_ids[index]),
            -1 if self.turns is None else int(self.turns[index]),
            None if think_s != think_s else think_s,
            self._carried_ids(index),
            0 if self.priorities is None else int(self.priorities[index]),
        )

    @cached_property
    def carried_by(self) -> Ints | None:
        """int64[n]: the next turn whose prompt carries the prompt and the answer of each request, -1: none.

        A turn carries them if it is long enough and begins with the same full blocks. That the answer is what follows
        is inferred from lengths, so it is taken of a trace only if most turns in it are long enough: where agents drop
        their reasoning from the history, they are not (lmcache-miniswe: 30 % are, agentic-coding: 88 %). None if no
        turn of the trace does.
        """
        if not self.block_tokens or self.after is None or self.turns is None:
            return None
        later = np.flatnonzero(self.after >= 0)
        before = self.after[later]
        linked = (self.turns[before] >= 0) & (self.turns[later] == self.turns[before] + 1)
        later, before = later[linked], before[linked]
        long = self.input_tokens[later] >= self.input_tokens[before] + self.output_tokens[before]
        if not len(long) or 2 * long.sum() <= len(long):
            return None
        later, before = later[long], before[long]
        last = self.input_tokens[before] // self.block_tokens - 1  # ids are chained: one stands for those before it
        ids, starts, place = self.hash_ids, self.hash_offsets[:-1], np.maximum(last, 0)
        same = (last < 0) | (ids[starts[later] + place] == ids[starts[before] + place])
        found = np.full(len(self), -1)
        found[before[same][::-1]] = later[same][::-1]  # of several, the first
        found.flags.writeable = False
        return found

    @cached_property
    def _last_names(self) -> list[int]:
        """The last id of each request, by the name that its block has in the last turn that carries it."""
        assert self.carried_by is not None
        ends, by = self.hash_offsets[1:].tolist(), self.carried_by.tolist()
        names: list[int] = self.hash_ids[self.hash_offsets[1:] - 1].tolist()
        for i in range(len(self) - 1, -1, -1):
            if by[i] >= 0:
                place = int(self.hash_offsets[by[i]] + ends[i] - 1 - self.hash_offsets[i])
                names[i] = names[by[i]] if place == ends[by[i]] - 1 else int(self.hash_ids[place])
        return names

    def _carried_ids(self, index: int) -> list[int]:
        by = -1 if self.carried_by is None else int(self.carried_by[index])
        if by < 0:
            return []
        blocks = -(-int(self.input_tokens[index] + self.output_tokens[index]) // self.block_tokens)
        first, end = int(self.hash_offsets[by]), int(self.hash_offsets[by + 1])
        ids: list[int] = self.hash_ids[first : first + blocks].tolist()
        if first + blocks == end:
            ids[-1] = self._last_names[by]
        return ids

    @cached_property
    def think_s(self) -> Floats:
        """float64[n]: seconds from the end of a request to the sending of the next turn of its conversation.

        NaN where no turn follows in this trace, or where nothing is known.
        """
        found = np.full(len(self), np.nan)
        if self.after is not None and self.delay_s is not None and self.turns is not None:
            later = np.flatnonzero(self.after >= 0)
            before = self.after[later]
            next_turn = (self.turns[before] >= 0) & (self.turns[later] == self.turns[before] + 1)
            found[before[next_turn]] = self.delay_s[later[next_turn]]
        found.flags.writeable = False
        return found

    def select(self, rows: npt.NDArray[np.intp], arrival_s: Floats | None = None) -> Trace:
        """The requests `rows` (indices, each once, in this order), with new arrival times (s) if given.

        A request whose `after` is left out, or comes later in this order, is then after nothing.
        """
        counts = np.diff(self.hash_offsets)[rows]
        offsets = np.concatenate(([0], np.cumsum(counts))).astype(np.int64)
        # place of every kept id in the old array: start of its request there + its place in the request
        places = np.repeat(self.hash_offsets[:-1][rows] - offsets[:-1], counts)
        places += np.arange(len(places))
        links = None if self.after is None or self.delay_s is None else relinked(self.after, self.delay_s, rows)
        return replace(
            self,
            arrival_s=self.arrival_s[rows] if arrival_s is None else arrival_s,
            input_tokens=self.input_tokens[rows],
            output_tokens=self.output_tokens[rows],
            hash_ids=self.hash_ids[places],
            hash_offsets=offsets,
            session_ids=None if self.session_ids is None else self.session_ids[rows],
            turns=None if self.turns is None else self.turns[rows],
            after=None if links is None else links[0],
            delay_s=None if links is None else links[1],
            priorities=None if self.priorities is None else self.priorities[rows],
            barriers=None if self.barriers is None else self.barriers[rows],
            models=None if self.models is None else self.models[rows],
        )

    def without_prefixes(self) -> Trace:
        """The same requests, with nothing said about prefixes: no two of them share a block."""
        none = np.zeros(0, np.int64)
        return replace(self, block_tokens=0, hash_ids=none, hash_offsets=np.zeros(len(self) + 1, np.int64))

    def validate(self) -> Trace:
        """Returns the trace itself; raises InputError naming the first request that breaks a rule above."""
        check(self)
        return self
