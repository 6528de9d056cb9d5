"""Reader of kv-cache-tester conversations of coding agents, one JSON object a line, plain or gzip.

A line: `block_size` (tokens behind one id), `hash_id_scope` "local" (ids mean something within the line only; here
they become unique), `requests` in order. A request: `type` "n" or "s" (not streamed, streamed), `t` (s from the start
of the conversation), `in` and `out` (tokens), `hash_ranges`: the chained ids of its blocks as [first, last] pairs,
both included. `type` "subagent" nests `requests` of its own, whose `t` counts from the `t` of the sub-agent.

Blocks: the file numbers full blocks only, floor(in / block_size) of them; a partial last block gets an id of its own
here, so it never hits, as in an engine that caches full blocks. Both rules were checked on all 24,420 requests of
agentic_coding_rle.jsonl, in whose 344 lines ids are chained throughout.

Placing: the file does not say when a conversation began relative to another, so all start at 0 s and the trace
opens with as many requests at once as there are conversations. `arrivals.stagger_sessions` (`stagger_sessions` in a
scenario) gives every conversation a start of its own. Load is open: arrivals keep the recorded times, `think_time`
and `api_time` are not used. A request with `out` 0 was broken off: without a first token it cannot be replayed.
SOURCE: callanjfox/kv-cache-tester, docs/trace_replay_tester.md (there with `hash_ids` in full; "Timing Strategies").
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from hw_profiles.errors import InputError
from traces.lines import MAX_TOKENS, Lines, json_object, seconds, short, stem, whole
from traces.order import UNCHAINED
from traces.request import Ints, Trace, relinked

KEYS = ("block_size", "hash_id_scope", "requests")
TYPES = ("n", "s", "subagent")
MAX_LOCAL = 2**40  # ids below it


@dataclass
class _Agent:
    """Where a conversation, or a sub-agent of it, stands: its last request (at first the parent's) and its end (s)."""

    last: int = -1
    ended_s: float = math.nan
    turn: int = 0
    broken: bool = False


@dataclass
class _Columns:
    """Requests in the order of the file; ranges of ids as segments, `counts` of them per request."""

    times: array[float] = field(default_factory=lambda: array("d"))
    inputs: array[int] = field(default_factory=lambda: array("q"))
    outputs: array[int] = field(default_factory=lambda: array("q"))
    sessions: array[int] = field(default_factory=lambda: array("q"))
    turns: array[int] = field(default_factory=lambda: array("q"))
    after: array[int] = field(default_factory=lambda: array("q"))
    delays: array[float] = field(default_factory=lambda: array("d"))
    counts: array[int] = field(default_factory=lambda: array("q"))
    first: array[int] = field(default_factory=lambda: array("q"))
    length: array[int] = field(default_factory=lambda: array("q"))


def read_agentic(path: str | Path, *, strict: bool = False, name: str | None = None) -> Trace:
    """Reads `path` into a Trace with one session per line; arrival is the request's own `t` (s, see above).

    Requests without output are dropped and ids that are not prefix-chained are kept, each with one line in
    `Trace.warnings`; `strict` refuses both. Raises InputError naming file, line and field for all else.
    """
    path = Path(path)
    content = Lines(path)
    columns = _Columns()
    broken = array("q")
    warnings = []
    block_tokens = session = base = 0
    for number, line in content:
        where = f"{path}:{number}"
        row = json_object(line, where)
        size = whole(row, "block_size", 1, MAX_TOKENS, where)
        if size != (block_tokens or size):
            text = f"found {size}, expected {block_tokens} as on the lines before"
            raise InputError(text, where=where, path="block_size")
        block_tokens = size
        if row.get("hash_id_scope") != "local":
            text = f'found {short(row.get("hash_id_scope"))}, expected "local"'
            raise InputError(text, where=where, path="hash_id_scope")
        begin, top = (len(columns.counts), len(columns.first)), 0
        for time, request, inside, agent in _flat(row, where):
            delay = _delay(request, time, agent, where, inside)
            if whole(request, "out", 0, MAX_TOKENS, where, inside) == 0:
                broken.append(number)
                agent.broken = True
                continue
            columns.after.append(agent.last)
            columns.delays.append(delay)
            columns.turns.append(agent.turn)
            ended_s = time + (_optional(request, "api_time", where, inside) or 0.0)
            agent.last, agent.ended_s, agent.turn, agent.broken = len(columns.times), ended_s, agent.turn + 1, False
            top = max(top, _add(columns, time, request, base, block_tokens, where, inside))
            columns.sessions.append(session)
        if not _chained(columns, begin, base, top):
            if strict:
                raise InputError(UNCHAINED, where=where)
            warnings.append(f"{where}: {UNCHAINED}; equal ids still count as equal blocks")
        base += top
        session += 1
    if broken:
        where = f"{path}:{broken[0]}"
        if strict:
            raise InputError("a request without output: it was broken off", where=where)
        warnings.insert(0, f"{where}: {len(broken)} request(s) without output, which were broken off; dropped")
    if not columns.times:
        raise InputError("holds no request", where=path)
    arrival = np.frombuffer(columns.times)
    order = np.argsort(arrival, kind="stable")
    ids, offsets = _expand(columns, order, block_tokens, base)
    after, delay_s = relinked(np.frombuffer(columns.after, np.int64), np.frombuffer(columns.delays), order)
    return Trace(
        name=name or stem(path, ".jsonl"),
        block_tokens=block_tokens,
        arrival_s=arrival[order],
        input_tokens=np.frombuffer(columns.inputs, np.int64)[order],
        output_tokens=np.frombuffer(columns.outputs, np.int64)[order],
        hash_ids=ids,
        hash_offsets=offsets,
        content_sha256=content.sha256(),
        source=str(path),
        warnings=tuple(warnings),
        session_ids=np.frombuffer(columns.sessions, np.int64)[order],
        turns=np.frombuffer(columns.turns, np.int64)[order],
        after=after,
        delay_s=delay_s,
    )


def _flat(row: dict[str, Any], where: str) -> Iterator[tuple[float, dict[str, Any], str, _Agent]]:
    """(time in s, request, its place in the line as "requests[3].", its agent) of every request, sub-agents' included.

    An agent is to be brought up to date with each of its requests before the next one is asked for.
    """
    todo = [(row, 0.0, "", _Agent())]
    while todo:
        parent, start, inside, agent = todo.pop()
        requests = parent.get("requests")
        if not isinstance(requests, list):
            text = "missing" if "requests" not in parent else f"found {short(requests)}, expected a list"
            raise InputError(text, where=where, path=f"{inside}requests")
        for i, request in enumerate(requests):
            here = f"{inside}requests[{i}]."
            if not isinstance(request, dict):
                raise InputError(f"found {short(request)}, expected an object", where=where, path=here[:-1])
            if request.get("type") not in TYPES:
                text = f"found {short(request.get('type'))}, expected one of {', '.join(TYPES)}"
                raise InputError(text, where=where, path=f"{here}type")
            time = start + seconds(request, "t", where, here)
            if request["type"] == "subagent":
                todo.append((request, time, here, _Agent(agent.last, agent.ended_s)))
            else:
                yield time, request, here, agent


def _delay(request: dict[str, Any], time: float, agent: _Agent, where: str, inside: str) -> float:
    """Seconds that `request`, sent at `time`, waited after the end of the request before it; NaN if there is none."""
    think = _optional(request, "think_time", where, inside)
    if agent.last < 0:
        return math.nan
    if think is None or agent.turn == 0 or agent.broken:
        return max(0.0, time - agent.ended_s)
    return think


def _optional(request: dict[str, Any], key: str, where: str, inside: str) -> float | None:
    """The time `request[key]` (s), None where the file has none."""
    return None if request.get(key) is None else seconds(request, key, where, inside)


def _add(
    columns: _Columns, time: float, request: dict[str, Any], base: int, block_tokens: int, where: str, inside: str
) -> int:
    """Appends one request, its ids moved up by `base`; the highest id of the file's own, plus one."""
    tokens = whole(request, "in", 1, MAX_TOKENS, where, inside)
    ranges = request.get("hash_ranges")
    if not isinstance(ranges, list):
        text = "missing" if "hash_ranges" not in request else f"found {short(ranges)}, expected a list"
        raise InputError(text, where=where, path=f"{inside}hash_ranges")
    blocks = top = 0
    for pair in ranges:
        good = type(pair) is list and len(pair) == 2 and type(pair[0]) is int and type(pair[1]) is int
        if not (good and 0 <= pair[0] <= pair[1] < MAX_LOCAL):
            text = f"found {short(pair)}, expected [first, last] with 0 <= first <= last < 2**40"
            raise InputError(text, where=where, path=f"{inside}hash_ranges")
        columns.first.append(base + pair[0])
        columns.length.append(pair[1] - pair[0] + 1)
        blocks += pair[1] - pair[0] + 1
        top = max(top, pair[1] + 1)
    if blocks != tokens // block_tokens:
        rule = f"{tokens} tokens in full blocks of {block_tokens}"
        text = f"found {blocks} ids, expected {tokens // block_tokens} ({rule})"
        raise InputError(text, where=where, path=f"{inside}hash_ranges")
    columns.times.append(time)
    columns.inputs.append(tokens)
    columns.outputs.append(request["out"])
    columns.counts.append(len(ranges))
    return top


def _chained(columns: _Columns, begin: tuple[int, int], base: int, top: int) -> bool:
    """Whether every id of one line (from request and segment `begin` on) always follows the same id.

    Within a segment each id follows the one below it, so only the first ids of segments need a look.
    """
    first, length = (np.frombuffer(column, np.int64)[begin[1] :] for column in (columns.first, columns.length))
    if len(first) == 0:
        return True
    first = first - base
    counts = np.frombuffer(columns.counts, np.int64)[begin[0] :]
    opens = np.zeros(len(first), bool)  # segments that open a request
    opens[(np.cumsum(counts) - counts)[counts > 0]] = True
    before = np.where(opens, -1, np.concatenate(([-1], first[:-1] + length[:-1] - 1)))
    codes, back = np.unique(first, return_inverse=True)
    seen = np.full(len(codes), -2)
    seen[back.reshape(-1)] = before
    if (seen[back.reshape(-1)] != before).any():
        return False
    # ids reached inside a segment follow the id below them
    steps = np.zeros(top + 1, np.int64)
    np.add.at(steps, first + 1, 1)
    np.add.at(steps, first + length, -1)
    inside = np.cumsum(steps)[first] > 0
    return bool((before[inside] == first[inside] - 1).all())


def _expand(columns: _Columns, order: Ints, block_tokens: int, base: int) -> tuple[Ints, Ints]:
    """(hash_ids, hash_offsets) of the requests in `order`; ids of partial last blocks start at `base`."""
    inputs = np.frombuffer(columns.inputs, np.int64)
    counts = np.frombuffer(columns.counts, np.int64)
    partial = np.flatnonzero(inputs % block_tokens)
    at = np.cumsum(counts)[partial]  # behind the request's own segments
    first = np.insert(np.frombuffer(columns.first, np.int64), at, base + np.arange(len(partial)))
    length = np.insert(np.frombuffer(columns.length, np.int64), at, 1)
    counts = counts.copy()
    counts[partial] += 1
    kept = counts[order]
    ends = np.cumsum(kept)
    places = np.repeat((np.cumsum(counts) - counts)[order] - (ends - kept), kept)
    places += np.arange(len(places))
    first, length = first[places], length[places]
    ids = np.repeat(first - (np.cumsum(length) - length), length)
    ids += np.arange(len(ids))
    offsets = np.concatenate(([0], np.cumsum(-(-inputs[order] // block_tokens))))
    return ids, offsets
