"""Reader of LLMServingSim workloads reduced to lengths and block ids, as JSONL, plain or gzip.

One JSON object a request: `arrival_time_ns`, `input_toks`, `output_toks`, `hash_ids_16`: chained ids of the full
16-token blocks of the prompt, floor(input_toks / 16) of them. A partial last block has no id in the file and gets
one of its own here, so it never hits, as in an engine that caches full blocks.
SOURCE: casys-kaist/LLMServingSim, workloads/ (token ids replaced by block ids); the rounding was checked on the
300-request ShareGPT workload.
"""

from __future__ import annotations

from array import array
from pathlib import Path

import numpy as np

from traces.lines import MAX_TOKENS, Lines, id_list, json_object, stem, whole
from traces.order import in_order, with_tails
from traces.request import Trace

BLOCK_TOKENS = 16  # tokens behind one hash id
KEYS = ("arrival_time_ns", "input_toks", "output_toks", "hash_ids_16")
MAX_NS = 2**62


def read_llmservingsim(path: str | Path, *, strict: bool = False, name: str | None = None) -> Trace:
    """Reads `path` into a Trace (arrival in seconds as in the file, blocks of 16 tokens).

    Lines out of order of time are sorted (stable) and ids that are not prefix-chained are kept, each with one
    line in `Trace.warnings`; `strict` refuses both. Raises InputError naming file and line for all else.
    """
    path = Path(path)
    content = Lines(path)
    stamps, inputs, outputs, ids, ends = array("q"), array("q"), array("q"), array("q"), array("q", [0])
    lines = array("q")
    for number, line in content:
        where = f"{path}:{number}"
        row = json_object(line, where)
        stamps.append(whole(row, "arrival_time_ns", 0, MAX_NS, where))
        tokens = whole(row, "input_toks", 1, MAX_TOKENS, where)
        inputs.append(tokens)
        outputs.append(whole(row, "output_toks", 1, MAX_TOKENS, where))
        rule = f"{tokens} tokens in full blocks of {BLOCK_TOKENS}"
        ids.extend(id_list(row, "hash_ids_16", tokens // BLOCK_TOKENS, where, rule))
        ends.append(len(ids))
        lines.append(number)
    trace = Trace(
        name=name or stem(path, ".lengths.jsonl", ".jsonl"),
        block_tokens=BLOCK_TOKENS,
        arrival_s=np.frombuffer(stamps, np.int64) / 1e9,
        input_tokens=np.frombuffer(inputs, np.int64),
        output_tokens=np.frombuffer(outputs, np.int64),
        hash_ids=np.frombuffer(ids, np.int64),
        hash_offsets=np.frombuffer(ends, np.int64),
        content_sha256=content.sha256(),
        source=str(path),
    )
    return in_order(with_tails(trace), np.frombuffer(lines, np.int64), strict, stamp="arrival_time_ns")
