"""Traces of a few requests, and the real one where there is a copy."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from traces.mooncake import read_mooncake
from traces.request import Trace

CONVERSATION = "mooncake/conversation_trace.jsonl.gz"
MakeTrace = Callable[..., Trace]


@pytest.fixture(scope="session")
def make_trace() -> MakeTrace:
    """A trace of (input_tokens, hash_ids) rows."""

    def make(rows: Sequence[tuple[int, Sequence[int]]], block_tokens: int = 4) -> Trace:
        return Trace(
            name="made",
            block_tokens=block_tokens,
            arrival_s=np.arange(len(rows), dtype=float),
            input_tokens=np.array([tokens for tokens, _ in rows]),
            output_tokens=np.ones(len(rows), int),
            hash_ids=np.array([i for _, ids in rows for i in ids], int),
            hash_offsets=np.cumsum([0, *(len(ids) for _, ids in rows)]),
            content_sha256="",
            source="made.jsonl",
        ).validate()

    return make


@pytest.fixture(scope="session")
def flat(make_trace: MakeTrace) -> Callable[[Sequence[int]], Trace]:
    """A flat sequence of blocks: requests of one block each, so hits are per block and not per prefix."""
    return lambda keys: make_trace([(1, [key]) for key in keys], block_tokens=1)


@pytest.fixture(scope="session")
def conversation() -> Trace:
    shared = Path(__file__).parents[2].parent / "shared" / "data" / "traces"
    path = Path(os.environ.get("KVSIM_TRACES") or shared) / CONVERSATION
    if not path.is_file():
        pytest.skip(f"no real trace: set KVSIM_TRACES to a folder with {CONVERSATION}")
    return read_mooncake(path)
