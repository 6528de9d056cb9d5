"""`timeline.json` of a run directory: what every replica, link and request did, as spans on tracks.

Chrome's Trace Event Format (JSON object with `traceEvents`; complete events "X" with `ts` and `dur` in microseconds,
metadata events "M" that name tracks), which Perfetto and chrome://tracing open. Times are rounded to nanoseconds at
both ends, so spans that share an instant still do, and spans nest as they did.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from hw_profiles.errors import InputError
from hw_profiles.files import open_atomic
from reports.load import Floats
from reports.text import link_label, tier_label
from sim.attribution import BETWEEN, PARTS
from sim.result import Result

REQUESTS = 1000
"""Requests that are shown unless more are asked for."""
MOST_REQUESTS = 30_000
MOST_SPANS = 300_000
"""Spans of replicas and links together: with as many requests as that the file stays below 100 MB."""
REPLICAS, LINKS, SERVED = 1, 2, 3
"""Groups of tracks ("processes" of the format)."""
NS = 1e9

_MILESTONES = ("arrival", "admit", "load_done", "first_chunk", "first_token", "finish")
"""Times of a request that its spans begin and end with."""

ENDS = ("steps", "transfers")
"""Tables whose rows have an end of their own."""

Columns = Mapping[str, Any]
"""Columns of a table by name: arrays of numbers, lists of text."""


@dataclass(frozen=True)
class Timeline:
    """A written timeline: where it is and what it shows."""

    path: Path
    note: str

    @property
    def line(self) -> str:
        """One line for the console."""
        return f"timeline: {self.path} ({self.note}); open it in https://ui.perfetto.dev"


def write_timeline(run_dir: Path, out: Path | None = None, *, requests: int = REQUESTS, since: float = 0.0) -> Timeline:
    """Write timeline.json into `out` (default `run_dir`) and say what it shows.

    The first `requests` requests in order of arrival, at most MOST_REQUESTS, and what replicas and links did until the
    last of them had ended; less if that is more than MOST_SPANS. With `since` (s), of what ends at that time or later.
    InputError for a folder that is no run directory or cannot be written to, and where nothing ends after `since`.
    """
    result = Result.load(run_dir)
    tables = {name: _columns(table) for name, table in result.tables.items() if name != "samples"}
    if since > 0:
        tables = {name: _later(columns, since) if name in ENDS else columns for name, columns in tables.items()}
    served = _served(tables["requests"], since)
    if since > 0 and not len(served):
        raise InputError("no request ends then or later", where=run_dir, found=f"{since:g} s")
    shown = served[: min(requests, MOST_REQUESTS)]
    until = _until(tables, shown, len(served))
    if until is not None:
        shown = shown[tables["requests"]["arrival_s"][shown] <= until]
    note = _note(len(served), shown, until, since)
    target = (run_dir if out is None else out) / "timeline.json"
    spans = chain(
        _replicas(tables["steps"], until),
        _links(tables["transfers"], until),
        _requests(tables["requests"], tables["preemptions"], shown, list(result.summary["tiers"])),
    )
    with open_atomic(target) as file:
        file.write(b'{"displayTimeUnit":"ms","traceEvents":[\n')
        for number, span in enumerate(spans):
            file.write((",\n" if number else "").encode() + json.dumps(span, separators=(",", ":")).encode())
        about = {"note": note, "config_sha256": result.summary["config_sha256"]}
        file.write(b'\n],"otherData":' + json.dumps(about).encode() + b"}\n")
    return Timeline(target, note)


def _columns(table: Any) -> Columns:
    texts = ("status", "reason", "link", "src", "dst", "load_tier")
    return {name: table[name].to_pylist() if name in texts else table[name].to_numpy() for name in table.column_names}


def _later(columns: Columns, since: float) -> Columns:
    """The rows that end at `since` or later."""
    rows = np.flatnonzero(columns["end_s"] >= since)
    return {
        name: [column[row] for row in rows] if isinstance(column, list) else column[rows]
        for name, column in columns.items()
    }


def _served(requests: Columns, since: float) -> np.ndarray:
    """Rows of the requests that finish at `since` or later, in order of arrival."""
    rows = np.argsort(requests["arrival_s"], kind="stable")
    kept: np.ndarray = rows[requests["finish_s"][rows] >= since]
    return kept


def _until(tables: Mapping[str, Columns], shown: np.ndarray, served: int) -> float | None:
    """Until when replicas and links are shown, s; None for all of the run."""
    requests = tables["requests"]
    starts = np.sort(np.concatenate([tables["steps"]["start_s"], tables["transfers"]["start_s"]]))
    end = float(requests["finish_s"][shown].max(initial=0.0))
    if len(starts) > MOST_SPANS:
        end = min(end, float(starts[MOST_SPANS - 1]))
    whole = len(shown) == served and len(starts) <= MOST_SPANS
    return None if whole else end


def _note(served: int, shown: np.ndarray, until: float | None, since: float) -> str:
    which, begin = (
        (f"requests that end from {since:g} s on", f"from {since:g} s ") if since > 0 else ("finished requests", "")
    )
    if until is None:
        return f"all {served:,} {which}"
    return f"the first {len(shown):,} of {served:,} {which}; replicas and links {begin}until {until:.6g} s"


def _span(group: int, track: int, name: str, start: float, end: float, args: Mapping[str, Any]) -> dict[str, Any]:
    begin, over = round(start * NS), round(end * NS)
    times = {"ts": begin / 1000, "dur": (over - begin) / 1000}
    return {"ph": "X", "pid": group, "tid": track, "name": name, **times, "args": {k: _plain(args[k]) for k in args}}


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _named(group: int, name: str, tracks: Iterable[tuple[int, str]]) -> Iterator[dict[str, Any]]:
    """Names of a group and of its tracks, in order."""
    yield {"ph": "M", "pid": group, "name": "process_name", "args": {"name": name}}
    yield {"ph": "M", "pid": group, "name": "process_sort_index", "args": {"sort_index": group}}
    for track, label in tracks:
        yield {"ph": "M", "pid": group, "tid": track, "name": "thread_name", "args": {"name": label}}
        yield {"ph": "M", "pid": group, "tid": track, "name": "thread_sort_index", "args": {"sort_index": track}}


def _replicas(steps: Columns, until: float | None) -> Iterator[dict[str, Any]]:
    """A span for each run of steps, and one for the wait before it until evicted KV had left."""
    yield from _named(REPLICAS, "replicas", ((int(r), f"replica {r}") for r in np.unique(steps["replica"])))
    said = ("count", "decode_seqs", "prefill_seqs", "prefill_tokens", "context_tokens", "running", "waiting")
    more = ("interference_s", "layer_wait_s", "works_s", "moves_s")
    for row in _rows(steps["start_s"], until):
        start, replica = steps["start_s"][row], int(steps["replica"][row])
        if steps["stall_s"][row]:
            yield _span(REPLICAS, replica, "waiting for stores", start - steps["stall_s"][row], start, {})
        args = {name: steps[name][row] for name in said}
        args |= {name: steps[name][row] for name in more if steps[name][row]}
        name = "decode" if not args["prefill_seqs"] else "prefill + decode" if args["decode_seqs"] else "prefill"
        yield _span(REPLICAS, replica, name, start, steps["end_s"][row], args)


def _links(transfers: Columns, until: float | None) -> Iterator[dict[str, Any]]:
    """A span for each batch of copies while it was in service, on a track for each link."""
    keys = list(zip(transfers["link"], transfers["replica"].tolist(), strict=True))
    tracks: dict[tuple[str, int, int], int] = {}
    busy: dict[tuple[str, int, int], float] = {}
    spans = []
    for row in _rows(transfers["start_s"], until):
        start, end = transfers["start_s"][row], transfers["end_s"][row]
        lane = 0  # a link that serves several copies at once takes a track for each
        while busy.get((*keys[row], lane), -1.0) > start:
            lane += 1
        key = (*keys[row], lane)
        busy[key] = end
        spans.append((row, tracks.setdefault(key, len(tracks))))
    yield from _named(LINKS, "links", ((track, _link_name(*key)) for key, track in tracks.items()))
    for row, track in spans:
        args = {name: transfers[name][row] for name in ("bytes", "copies", "src", "dst", "reason", "queued_s")}
        start, end = transfers["start_s"][row], transfers["end_s"][row]
        yield _span(LINKS, track, f"{args['reason']} {args['src']} to {args['dst']}", start, end, args)


def _link_name(link: str, replica: int, lane: int) -> str:
    where = f", replica {replica}" if replica >= 0 else ""
    return link_label(link) + where + (f" ({lane + 1})" if lane else "")


def _rows(starts: Floats, until: float | None) -> list[int]:
    """Rows in order of their start, those that start after `until` left out."""
    order = np.argsort(starts, kind="stable")
    return [int(row) for row in order if until is None or starts[row] <= until]


def _requests(requests: Columns, lost: Columns, shown: np.ndarray, tiers: list[str]) -> Iterator[dict[str, Any]]:
    """A span for each request, with its queue, load, prefill and decode inside, and preemptions inside these."""
    yield from _named(SERVED, "requests", ((int(i), f"request {i}") for i in requests["request_id"][shown]))
    losses: dict[int, list[int]] = {}
    for row, request in enumerate(lost["request_id"].tolist()):
        losses.setdefault(request, []).append(row)
    said = ("replica", "session", "turn", "input_tokens", "output_tokens", "recomputed_tokens", "preemptions")
    hits = [f"hit_{tier}_tokens" for tier in tiers]
    for row in shown.tolist():
        track = int(requests["request_id"][row])
        at = {name: requests[f"{name}_s"][row] for name in _MILESTONES}
        args = {name: requests[name][row] for name in (*said, *hits)}
        yield _span(SERVED, track, f"request {track}", at["arrival"], at["finish"], args)
        loaded = next((t for t in tiers[1:] if requests[f"load_{t}_s"][row] > 0), "")
        waited = {"prefetch_wait_s": requests["prefetch_wait_s"][row]}
        for name, start, end, more in (
            ("queue", "arrival", "admit", waited),
            (f"load from {tier_label(loaded)}", "admit", "load_done", {}),
            ("ready", "load_done", "first_chunk", {}),
            ("prefill", "first_chunk", "first_token", _parts(requests, "prefill", row)),
            *_decode(requests, at, row),
        ):
            if at[end] > at[start]:
                yield _span(SERVED, track, name, at[start], at[end], more)
        for loss in losses.get(track, ()):
            start, restart, end = (lost[f"{name}_s"][loss] for name in ("start", "restart", "end"))
            yield _span(SERVED, track, "preempted", start, restart, {"load_tier": lost["load_tier"][loss]})
            yield _span(SERVED, track, "recompute", restart, end, {"recompute_s": lost["recompute_s"][loss]})


def _decode(requests: Columns, at: dict[str, float], row: int) -> list[tuple[str, str, str, dict[str, float]]]:
    """The spans after the first token; what is between two replicas apart."""
    parts = _parts(requests, "decode", row)
    if "decode_replica" not in requests:
        return [("decode", "first_token", "finish", parts)]
    at["decode_start"] = requests["decode_start_s"][row]
    between = {name: parts.pop(name) for name in [f"decode_{part}_s" for part in BETWEEN] if name in parts}
    moved: dict[str, float] = {name: _plain(requests[name][row]) for name in ("decode_replica", "transfer_bytes")}
    return [
        ("to the decode instance", "first_token", "decode_start", moved | between),
        ("decode", "decode_start", "finish", parts),
    ]


def _parts(requests: Columns, phase: str, row: int) -> dict[str, float]:
    """Parts of a phase that are not zero, s."""
    names = [f"{phase}_{part}_s" for part in (*PARTS, *BETWEEN)]
    return {name: requests[name][row] for name in names if name in requests and requests[name][row]}
