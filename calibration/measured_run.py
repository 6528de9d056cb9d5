"""Runs of real servers, request by request: what `kvsim validate` holds a simulation against.

A run of one's own is a JSONL file. The first line says what ran:

    {"schema": "kvsim-measured/1", "name": ..., "model": ..., "profile": ..., "engine": {...}, "block_tokens": 16}

with a model and a profile as in a scenario, the engine's keys as in a scenario's `engine`, and optionally
`prefix_caching` (true by default) and what else a scenario may say: `hardware` (tp, pp, replicas, ...), `tiers`,
`links`, `policies`, `routing`. `block_tokens` are the tokens behind one hash id, a multiple of the engine's own
`block_tokens`. An `engine.host_time` is used as it is. Every other line is one request that finished:

    {"queued_s": ..., "first_token_s": ..., "last_token_s": ..., "input_tokens": ..., "output_tokens": ...,
     "hash_ids": [...]}

Times are seconds of one clock. `hash_ids`, optional, are chained ids of the prompt's blocks of `block_tokens` tokens:
one for every full block, and one for the partial last block or none. A request without them shares nothing.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from calibration.fitting import Array
from calibration.tables import read_table
from hw_profiles.errors import InputError
from hw_profiles.yaml_io import read_text
from traces.lines import MAX_TOKENS, id_list, whole

SCHEMA = "kvsim-measured/1"
SECTIONS = ("hardware", "tiers", "links", "policies", "routing")
"""Sections of a scenario that a head may have, as they are there."""
HEADER = ("schema", "name", "model", "profile", "engine", "block_tokens", "prefix_caching", *SECTIONS)
REQUEST = ("queued_s", "first_token_s", "last_token_s", "input_tokens", "output_tokens", "hash_ids")
MAX_BLOCK_TOKENS = 65536
SHAREGPT = "measured/llmservingsim_rtxpro6000_llama8b/vllm"
SHAREGPT_IDS = "llmservingsim_sharegpt/sharegpt-llama-3.1-8b-300-sps10.lengths.jsonl"


@dataclass(frozen=True)
class MeasuredRun:
    """One engine under a load, in order of queueing. Times in s since the first request was queued.

    source: the file that it is from, `where`: its line with the head, for messages. engine: keys of a scenario's
    `engine`. hash_ids: of blocks of `block_tokens` tokens, by request; the partial last block's may be missing, and
    none are given where nothing is known.
    sections: what else of a scenario the head has (`SECTIONS`).
    ticks: seconds, requests running, requests waiting; float64[ticks] each, empty if nobody counted.
    """

    name: str
    source: str
    model: str
    profile: str
    engine: Mapping[str, Any]
    block_tokens: int
    prefix_caching: bool
    queued_s: Array
    first_token_s: Array
    last_token_s: Array
    input_tokens: Array
    output_tokens: Array
    hash_ids: tuple[tuple[int, ...], ...]
    sections: Mapping[str, Any] = field(default_factory=dict)
    ticks: tuple[Array, Array, Array] = field(default_factory=lambda: (np.zeros(0), np.zeros(0), np.zeros(0)))

    def __len__(self) -> int:
        return len(self.queued_s)

    @property
    def where(self) -> str:
        """What messages about its head are about."""
        return f"{self.source}:1" if Path(self.source).is_file() else self.source

    @property
    def latencies(self) -> dict[str, Array]:
        """TTFT, TPOT (NaN for one token) and E2E of every request, s."""
        more = np.where(self.output_tokens > 1, self.output_tokens - 1, np.nan)
        return {
            "ttft": self.first_token_s - self.queued_s,
            "tpot": (self.last_token_s - self.first_token_s) / more,
            "e2e": self.last_token_s - self.queued_s,
        }


def read_run(path: Path) -> MeasuredRun:
    """A run of one's own. Raises InputError, one line with file and line number."""
    lines = _lines(path)
    number, head = next(lines, (1, {}))
    _check(head, HEADER, HEADER[:6], f"{path}:{number}")
    if head["schema"] != SCHEMA:
        raise InputError("", where=f"{path}:{number}", path="schema", found=head["schema"], allowed=SCHEMA)
    head = {"prefix_caching": True, **head}
    _check_head(head, f"{path}:{number}")
    rows, ids = [], []
    for number, row in lines:
        where = f"{path}:{number}"
        _check(row, REQUEST, REQUEST[:5], where)
        queued, first, last = (_number(row, key, where) for key in REQUEST[:3])
        if not queued <= first <= last:
            raise InputError("times out of order: queued_s <= first_token_s <= last_token_s", where=where)
        tokens, made = (whole(row, key, 1, MAX_TOKENS, where) for key in REQUEST[3:5])
        rows.append([queued, first, last, tokens, made])
        ids.append(_hash_ids(row, tokens, head["block_tokens"], where))
    if not rows:
        raise InputError("no requests", where=path)
    fixed = {key: head[key] for key in ("name", "model", "profile", "engine", "block_tokens", "prefix_caching")}
    sections = {key: head[key] for key in SECTIONS if key in head}
    return _run(np.array(rows), ids, source=str(path), sections=sections, **fixed)


def sharegpt_run(data: Path, traces: Path, profile: str) -> MeasuredRun:
    """The public run that LLMServingSim is validated with: vLLM 0.19, Llama-3.1-8B, one RTX PRO 6000, 300 requests.

    SOURCE: casys-kaist/LLMServingSim (MIT), bench/; `meta.json` has the engine arguments. Arrival is `queued_ts`. The
    ids of the prompts' blocks are those of the workload that was sent. Not recorded, and vLLM's defaults here: blocks
    of 16 tokens, gpu_memory_utilization 0.9, prefix caching on.
    """
    folder = data / SHAREGPT
    meta = json.loads(read_text(folder / "meta.json"))["engine_kwargs"]
    sent = [row for _, row in _lines(traces / SHAREGPT_IDS)]
    rows, ids = [], []
    for _, row in _lines(folder / "requests.jsonl"):
        request = sent[int(row["request_id"].removeprefix("bench-"))]
        if (request["input_toks"], request["output_toks"]) != (row["input_toks"], row["output_toks"]):
            raise InputError("the run and its workload differ", where=folder, found=row["request_id"])
        names = ("queued_ts", "first_token_ts", "last_token_ts", "input_toks", "output_toks")
        rows.append([float(row[name]) for name in names])
        ids.append(tuple(request["hash_ids_16"]))
    table = read_table(folder / "timeseries.csv", ("t", "running", "waiting"))
    engine = {key: meta[key] for key in ("max_num_seqs", "max_num_batched_tokens")}
    return _run(
        np.array(rows),
        ids,
        name="vLLM 0.19, Llama-3.1-8B, RTX PRO 6000, ShareGPT",
        source=str(folder),
        model="llama-3.1-8b",
        profile=profile,
        engine=engine,
        block_tokens=16,
        prefix_caching=True,
        ticks=(table.numbers("t"), table.numbers("running"), table.numbers("waiting")),
    )


def _run(rows: Array, ids: list[tuple[int, ...]], **fields: Any) -> MeasuredRun:
    order = np.argsort(rows[:, 0], kind="stable")
    queued, first, last, tokens, made = rows[order].T
    zero = queued[0]
    return MeasuredRun(
        queued_s=queued - zero,
        first_token_s=first - zero,
        last_token_s=last - zero,
        input_tokens=tokens,
        output_tokens=made,
        hash_ids=tuple(ids[i] for i in order),
        **fields,
    )


def _lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(read_text(path).splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError:
            raise InputError("not a line of JSON", where=f"{path}:{number}", found=line[:40]) from None
        if not isinstance(row, dict):
            raise InputError("", where=f"{path}:{number}", found=line[:40], allowed="an object")
        yield number, row


def _check(row: Mapping[str, Any], allowed: tuple[str, ...], needed: tuple[str, ...], where: str) -> None:
    for key in row:
        if key not in allowed:
            raise InputError("unknown key", where=where, found=key, allowed=allowed, near=allowed)
    for key in needed:
        if key not in row:
            raise InputError(f"missing key {key!r}", where=where)


def _check_head(head: dict[str, Any], where: str) -> None:
    for key in ("name", "model", "profile"):
        if not isinstance(head[key], str):
            raise InputError("", where=where, path=key, found=head[key], allowed="text")
    if not isinstance(head["engine"], dict):
        raise InputError("", where=where, path="engine", found=head["engine"], allowed="a mapping")
    hardware = head.get("hardware", {})
    if not isinstance(hardware, dict) or "profile" in hardware:
        allowed = "a mapping such as {tp: 2}; the profile stands beside it"
        raise InputError("", where=where, path="hardware", found=hardware, allowed=allowed)
    whole(head, "block_tokens", 1, MAX_BLOCK_TOKENS, where)
    if not isinstance(head["prefix_caching"], bool):
        raise InputError("", where=where, path="prefix_caching", found=head["prefix_caching"], allowed="true or false")


def _hash_ids(row: dict[str, Any], tokens: int, block_tokens: int, where: str) -> tuple[int, ...]:
    """The ids of a request: as many as its prompt has full blocks, or one more for a partial one; () without any."""
    if "hash_ids" not in row:
        return ()
    given, full, partial = row["hash_ids"], *divmod(tokens, block_tokens)
    counts = (full, full + 1) if partial else (full,)
    fits = isinstance(given, list) and len(given) in counts
    rule = f"{tokens} tokens in blocks of {block_tokens}" + (
        ", with or without the partial last one" if partial else ""
    )
    return tuple(id_list(row, "hash_ids", len(given) if fits else full, where, rule))


def _number(row: Mapping[str, Any], key: str, where: str) -> float:
    value = row[key]
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise InputError("", where=where, path=key, found=value, allowed="a finite number")
    return float(value)
