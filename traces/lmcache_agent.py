"""Reader of LMCache agent traces as JSONL with block ids, plain or gzip.

One JSON object a request: `session`, `turn`, `start_us` (start of the session, microseconds), `t_us` (after that
start; may be negative, the logged first turn is not always the first in time), `input_length` and `output_length`
(tokens), `hash_ids`: chained ids of 64-token prefix blocks, common to all sessions, the last may be partial.
`turn` counts log lines and is not used: within a session prompts grow in order of time, not of `turn`, so turns are
counted in that order here. Nothing says when a request ended, so think times are unknown.
SOURCE: LMCache/lmcache-agent-trace (requests re-tokenised); the order was checked on its mini-swe-agent sessions.
"""

from __future__ import annotations

from array import array
from pathlib import Path

import numpy as np

from hw_profiles.errors import InputError
from traces.conversations import by_session
from traces.lines import MAX_TOKENS, Lines, id_list, json_object, short, stem, whole
from traces.order import in_order
from traces.request import Trace

BLOCK_TOKENS = 64  # tokens behind one hash id
KEYS = ("session", "turn", "t_us", "start_us", "input_length", "output_length", "hash_ids")
MAX_US = 2**53  # exact in a float


def read_lmcache_agent(path: str | Path, *, strict: bool = False, name: str | None = None) -> Trace:
    """Reads `path` into a Trace with sessions: the earliest request arrives at 0 s, blocks of 64 tokens.

    Lines may come in any order. Ids that are not prefix-chained are kept with a warning, which `strict` refuses.
    Raises InputError naming file and line for all else.
    """
    path = Path(path)
    content = Lines(path)
    stamps, inputs, outputs, ids, ends = array("q"), array("q"), array("q"), array("q"), array("q", [0])
    sessions: dict[str, int] = {}
    owners, lines = array("q"), array("q")
    for number, line in content:
        where = f"{path}:{number}"
        row = json_object(line, where)
        session = row.get("session")
        if not isinstance(session, str):
            problem = "missing" if "session" not in row else f"found {short(session)}, expected a text"
            raise InputError(problem, where=where, path="session")
        whole(row, "turn", 0, MAX_TOKENS, where)
        tokens = whole(row, "input_length", 1, MAX_TOKENS, where)
        stamps.append(whole(row, "start_us", 0, MAX_US, where) + whole(row, "t_us", -MAX_US, MAX_US, where))
        inputs.append(tokens)
        outputs.append(whole(row, "output_length", 1, MAX_TOKENS, where))
        wanted = -(-tokens // BLOCK_TOKENS)
        ids.extend(id_list(row, "hash_ids", wanted, where, f"{tokens} tokens in blocks of {BLOCK_TOKENS}"))
        ends.append(len(ids))
        owners.append(sessions.setdefault(session, len(sessions)))
        lines.append(number)
    stamp = np.frombuffer(stamps, np.int64)
    arrival_s, owner = (stamp - stamp.min()) / 1e6, np.frombuffer(owners, np.int64)
    links = by_session(owner, arrival_s)
    trace = Trace(
        name=name or stem(path, ".jsonl"),
        block_tokens=BLOCK_TOKENS,
        arrival_s=arrival_s,
        input_tokens=np.frombuffer(inputs, np.int64),
        output_tokens=np.frombuffer(outputs, np.int64),
        hash_ids=np.frombuffer(ids, np.int64),
        hash_offsets=np.frombuffer(ends, np.int64),
        content_sha256=content.sha256(),
        source=str(path),
        session_ids=owner,
        turns=links.turns,
        after=links.after,
        delay_s=links.delay_s,
    )
    return in_order(trace, np.frombuffer(lines, np.int64), strict, any_order=True)
