"""The workload of a validation: conversations over shared documents, more of them than HBM holds, at a given load.

Prompts are whole hash blocks shared by a group (or by the turns of a conversation) and a tail of their own, so that the
hits of an engine with pages and of the simulator are the same blocks. The simulator reads it as a Mooncake trace.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from traces.mooncake import BLOCK_TOKENS
from traces.request import Trace


@dataclass(frozen=True)
class Load:
    """What to draw. rate: requests/s; documents: shared prefixes of so many blocks each, picked by Zipf's law."""

    requests: int
    rate: float
    documents: int
    document_blocks: int
    tail: tuple[int, int]
    output: tuple[int, int]
    zipf: float = 0.6
    seed: int = 1


def draw(load: Load) -> Trace:
    """The trace of a load; the same for the same load."""
    rng = np.random.Generator(np.random.Philox(load.seed))
    arrivals = np.cumsum(rng.exponential(1 / load.rate, load.requests))
    arrivals = np.round(arrivals - arrivals[0], 3)
    weights = 1 / np.arange(1, load.documents + 1) ** load.zipf
    document = rng.choice(load.documents, load.requests, p=weights / weights.sum())
    tail = rng.integers(load.tail[0], load.tail[1], load.requests, endpoint=True)
    output = rng.integers(load.output[0], load.output[1], load.requests, endpoint=True)
    shared = load.document_blocks
    tail_blocks = -(-tail // BLOCK_TOKENS)
    ids: list[int] = []
    offsets = [0]
    fresh = load.documents * shared
    for chosen, blocks in zip(document, tail_blocks, strict=True):
        ids += range(int(chosen) * shared, (int(chosen) + 1) * shared)
        ids += range(fresh, fresh + int(blocks))
        fresh += int(blocks)
        offsets.append(len(ids))
    return Trace(
        name="mini-engine",
        arrival_s=arrivals,
        input_tokens=shared * BLOCK_TOKENS + tail,
        output_tokens=output,
        hash_ids=np.array(ids, dtype=np.int64),
        hash_offsets=np.array(offsets, dtype=np.int64),
        block_tokens=BLOCK_TOKENS,
        content_sha256=hashlib.sha256(repr(load).encode()).hexdigest(),
        source=repr(load),
    )
