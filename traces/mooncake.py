"""Reader and writer of Mooncake JSONL traces, plain or gzip.

One JSON object a line: `timestamp` (ms), `input_length` and `output_length` (tokens), `hash_ids` (chained
ids of 512-token prefix blocks, the last may be partial); `priority`, kvsim's own and optional, is a whole number, lower
ones first (0 where a line has none). Other fields are ignored.
SOURCE: kvcache-ai/Mooncake, FAST25-release/README.md.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from hw_profiles.errors import InputError
from hw_profiles.files import write_atomic
from traces.lines import MAX_TOKENS, Lines, json_object, short, stem
from traces.order import in_order
from traces.packed import gzip_bytes
from traces.request import Trace

BLOCK_TOKENS = 512  # tokens behind one hash id. SOURCE: kvcache-ai/Mooncake, FAST25-release/README.md
KEYS = ("timestamp", "input_length", "output_length", "hash_ids")
MAX_PRIORITY = 2**31
MAX_STAMP = 2**53  # ms; whole milliseconds are exact in a float below it


def read_mooncake(path: str | Path, *, strict: bool = False, name: str | None = None) -> Trace:
    """Reads `path` into a Trace (arrival in seconds, blocks of 512 tokens).

    Lines out of order of time are sorted (stable) and ids that are not prefix-chained are kept, each with one
    line in `Trace.warnings`; `strict` refuses both. Raises InputError naming file and line for all else.
    """
    path = Path(path)
    times, inputs, outputs, ids, ends = array("d"), array("q"), array("q"), array("q"), array("q", [0])
    lines, priorities = array("q"), array("q")
    content = Lines(path)
    for number, line in content:
        try:
            row = json.loads(line)
            timestamp = row["timestamp"]
            tokens_in, tokens_out = row["input_length"], row["output_length"]
            row_ids = row["hash_ids"]
            if not (
                type(tokens_in) is int
                and type(tokens_out) is int
                and 1 <= tokens_in <= MAX_TOKENS
                and 1 <= tokens_out <= MAX_TOKENS
                and type(row_ids) is list
                and len(row_ids) == -(-tokens_in // BLOCK_TOKENS)
                and min(row_ids) >= 0
                and type(timestamp) in (int, float)
                and 0 <= timestamp < MAX_STAMP
            ):
                raise ValueError
            times.append(timestamp)
            ids.extend(array("q", row_ids))  # refuses anything but integers below 2**63
            priority = row.get("priority", 0)
            if type(priority) is not int or not -MAX_PRIORITY <= priority <= MAX_PRIORITY:
                raise ValueError
            priorities.append(priority)
        except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
            raise _explain(line, f"{path}:{number}") from error
        inputs.append(tokens_in)
        outputs.append(tokens_out)
        ends.append(len(ids))
        lines.append(number)
    trace = Trace(
        name=name or stem(path, ".jsonl"),
        block_tokens=BLOCK_TOKENS,
        arrival_s=np.frombuffer(times) / 1e3,
        input_tokens=np.frombuffer(inputs, np.int64),
        output_tokens=np.frombuffer(outputs, np.int64),
        hash_ids=np.frombuffer(ids, np.int64),
        hash_offsets=np.frombuffer(ends, np.int64),
        content_sha256=content.sha256(),
        source=str(path),
        priorities=np.frombuffer(priorities, np.int64) if any(priorities) else None,
    )
    return in_order(trace, np.frombuffer(lines, np.int64), strict)


def write_mooncake(trace: Trace, path: str | Path) -> Path:
    """Writes `trace` to `path`, compressed if the name ends in .gz; equal traces give equal bytes.

    Times are kept to the nanosecond. Raises InputError for a trace without 512-token blocks, or if the file
    cannot be written.
    """
    path = Path(path)
    if trace.block_tokens != BLOCK_TOKENS:
        text = f"has blocks of {trace.block_tokens} tokens; the Mooncake format needs {BLOCK_TOKENS}"
        raise InputError(text, where=trace.source)
    lines = []
    for request in trace:
        stamp = round(request.arrival_s * 1e3, 6)
        row = {
            "timestamp": int(stamp) if stamp.is_integer() else stamp,
            "input_length": request.input_tokens,
            "output_length": request.output_tokens,
            "hash_ids": request.hash_ids,
            **({} if trace.priorities is None else {"priority": request.priority}),
        }
        lines.append(json.dumps(row) + "\n")
    content = "".join(lines).encode()
    write_atomic(path, gzip_bytes(content) if path.name.endswith(".gz") else content)
    return path


def _explain(line: bytes, where: str) -> InputError:
    """The error for one bad line: tells in words which rule it breaks."""
    try:
        row = json_object(line, where)
    except InputError as error:
        return error
    field, problem = next(_problems(row))
    return InputError(problem, where=where, path=field)


def _problems(row: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """(field, what is wrong with it), in the order of the format."""
    for key in KEYS:
        if key not in row:
            yield key, "missing; a request has timestamp, input_length, output_length and hash_ids"
    stamp = row.get("timestamp")
    if isinstance(stamp, bool) or not isinstance(stamp, (int, float)) or not 0 <= stamp < MAX_STAMP:
        yield "timestamp", f"found {short(stamp)}, expected milliseconds, 0 or later"
    for key in ("input_length", "output_length"):
        if type(row.get(key)) is not int or not 1 <= row[key] <= MAX_TOKENS:
            yield key, f"found {short(row.get(key))}, expected a whole number from 1 to {MAX_TOKENS}"
    ids = row.get("hash_ids")
    if not isinstance(ids, list):
        yield "hash_ids", f"found {short(ids)}, expected a list of ids"
    else:
        for i in ids:
            if type(i) is not int or not 0 <= i < 2**63:
                yield "hash_ids", f"found {short(i)}, expected whole numbers from 0 to 2**63 - 1"
        tokens = row["input_length"]  # an integer: otherwise the loop above has spoken
        wanted = -(-tokens // BLOCK_TOKENS)
        if len(ids) != wanted:
            yield "hash_ids", f"found {len(ids)} ids, expected {wanted} for {tokens} tokens of input"
    yield "priority", f"found {short(row.get('priority'))}, expected a whole number, lower ones first"
