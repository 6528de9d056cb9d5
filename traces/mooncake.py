"""Reader and writer of Mooncake JSONL traces, plain or gzip.

One JSON object a line: `timestamp` (ms), `input_length` and `output_length` (tokens), `hash_ids` (chained
ids of 512-token prefix blocks, the last may be partial); other fields are ignored.
SOURCE: kvcache-ai/Mooncake, FAST25-release/README.md.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import zlib
from array import array
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from hw_profiles.errors import InputError
from hw_profiles.files import write_atomic
from traces.packed import gzip_bytes, open_unpacked
from traces.request import Ints, Trace

BLOCK_TOKENS = 512  # tokens behind one hash id. SOURCE: kvcache-ai/Mooncake, FAST25-release/README.md
MAX_TOKENS = 2**31 - 1  # no model reads more; keeps every sum over a trace within int64
MAX_STAMP = 2**53  # ms; whole milliseconds are exact in a float below it


def read_mooncake(path: str | Path, *, strict: bool = False, name: str | None = None) -> Trace:
    """Reads `path` into a Trace (arrival in seconds, blocks of 512 tokens).

    Lines out of order of time are sorted (stable) and ids that are not prefix-chained are kept, each with one
    line in `Trace.warnings`; `strict` refuses both. Raises InputError naming file and line for all else.
    """
    path = Path(path)
    times, inputs, outputs, ids, ends = array("d"), array("q"), array("q"), array("q"), array("q", [0])
    lines = array("q")
    digest = hashlib.sha256()
    number = 0
    try:
        with open_unpacked(path) as stream:
            for number, line in enumerate(stream, start=1):
                digest.update(line)
                if line.isspace():
                    continue
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
                except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
                    raise _explain(line, f"{path}:{number}") from error
                inputs.append(tokens_in)
                outputs.append(tokens_out)
                ends.append(len(ids))
                lines.append(number)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        text = f"the compressed file is damaged or cut off ({error})"
        raise InputError(text, where=f"{path}:{number + 1}") from error
    except OSError as error:
        raise InputError(f"cannot read it ({error.strerror or error})", where=path) from error
    if not lines:
        raise InputError("holds no request", where=path)
    trace = Trace(
        name=name or path.name.removesuffix(".gz").removesuffix(".jsonl"),
        block_tokens=BLOCK_TOKENS,
        arrival_s=np.frombuffer(times) / 1e3,
        input_tokens=np.frombuffer(inputs, np.int64),
        output_tokens=np.frombuffer(outputs, np.int64),
        hash_ids=np.frombuffer(ids, np.int64),
        hash_offsets=np.frombuffer(ends, np.int64),
        content_sha256=digest.hexdigest(),
        source=str(path),
    )
    return _in_order(trace, np.frombuffer(lines, np.int64), strict)


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
        }
        lines.append(json.dumps(row) + "\n")
    content = "".join(lines).encode()
    write_atomic(path, gzip_bytes(content) if path.name.endswith(".gz") else content)
    return path


def _in_order(trace: Trace, lines: Ints, strict: bool) -> Trace:
    """Sorts by arrival (stable); notes, or in strict mode refuses, disorder and ids that are not chained."""
    warnings = []
    late = np.flatnonzero(np.diff(trace.arrival_s) < 0) + 1
    if len(late):
        where = f"{trace.source}:{lines[late[0]]}"
        if strict:
            raise InputError("timestamp: earlier than on the line before", where=where)
        warnings.append(f"{where}: {len(late)} line(s) earlier than the line before; sorted by timestamp")
    loose = unchained(trace)
    if len(loose):
        where = f"{trace.source}:{lines[loose[0]]}"
        text = "hash_ids: an id follows another prefix, or covers another token count, than at its first use"
        if strict:
            raise InputError(text, where=where)
        warnings.append(f"{where}: {text} ({len(loose)} request(s)); equal ids still count as equal blocks")
    if len(late):
        trace = trace.select(np.argsort(trace.arrival_s, kind="stable"))
    return replace(trace, warnings=tuple(warnings))


def unchained(trace: Trace) -> Ints:
    """Indices of requests that use an id after another prefix, or for other tokens, than at its first use."""
    offsets, ids = trace.hash_offsets, trace.hash_ids
    if len(ids) == 0:
        return np.zeros(0, np.int64)
    counts = np.diff(offsets)
    used = counts > 0
    before = np.concatenate(([-1], ids[:-1]))
    before[offsets[:-1][used]] = -1  # the first block of a request follows nothing
    tokens = np.full(len(ids), trace.block_tokens)
    tokens[offsets[1:][used] - 1] = trace.input_tokens[used] - (counts[used] - 1) * trace.block_tokens
    _, first, inverse = np.unique(ids, return_index=True, return_inverse=True)
    first = first[inverse.reshape(-1)]  # place of each id's first use
    wrong = (before != before[first]) | (tokens != tokens[first])
    return np.unique(np.repeat(np.arange(len(trace)), counts)[wrong]).astype(np.int64)


def _explain(line: bytes, where: str) -> InputError:
    """The error for one bad line: tells in words which rule it breaks."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        cut = "" if line.endswith(b"\n") else "; the file ends here, so it may be cut off"
        return InputError(f"not valid JSON ({str(error).splitlines()[0]}){cut}", where=where)
    if not isinstance(row, dict):
        return InputError(f"found {_short(row)}, expected a JSON object", where=where)
    field, problem = next(_problems(row))
    return InputError(problem, where=where, path=field)


def _problems(row: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """(field, what is wrong with it), in the order of the format."""
    for key in ("timestamp", "input_length", "output_length", "hash_ids"):
        if key not in row:
            yield key, "missing; a request has timestamp, input_length, output_length and hash_ids"
    stamp = row.get("timestamp")
    if isinstance(stamp, bool) or not isinstance(stamp, (int, float)) or not 0 <= stamp < MAX_STAMP:
        yield "timestamp", f"found {_short(stamp)}, expected milliseconds, 0 or later"
    for key in ("input_length", "output_length"):
        if type(row.get(key)) is not int or not 1 <= row[key] <= MAX_TOKENS:
            yield key, f"found {_short(row.get(key))}, expected a whole number from 1 to {MAX_TOKENS}"
    ids = row.get("hash_ids")
    if not isinstance(ids, list):
        yield "hash_ids", f"found {_short(ids)}, expected a list of ids"
    else:
        for i in ids:
            if type(i) is not int or not 0 <= i < 2**63:
                yield "hash_ids", f"found {_short(i)}, expected whole numbers from 0 to 2**63 - 1"
        tokens = row["input_length"]  # an integer: otherwise the loop above has spoken
        wanted = -(-tokens // BLOCK_TOKENS)
        yield "hash_ids", f"found {len(ids)} ids, expected {wanted} for {tokens} tokens of input"


def _short(value: object) -> str:
    """The value as JSON would write it, cut to 40 characters."""
    text = json.dumps(value)
    return text if len(text) <= 40 else text[:37] + "..."
