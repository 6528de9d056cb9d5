"""Traces for the tests: small ones made here, and the real one where there is a copy."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from traces.mooncake import read_mooncake
from traces.request import Trace

CONVERSATION = "mooncake/conversation_trace.jsonl.gz"


@pytest.fixture
def make_trace() -> Callable[..., Trace]:
    """A trace of (arrival_s, input_tokens, output_tokens, hash_ids) rows, with blocks of 512 tokens."""

    def make(rows: Sequence[tuple[float, int, int, Sequence[int]]], block_tokens: int = 512) -> Trace:
        return Trace(
            name="made",
            block_tokens=block_tokens,
            arrival_s=np.array([row[0] for row in rows], float),
            input_tokens=np.array([row[1] for row in rows]),
            output_tokens=np.array([row[2] for row in rows]),
            hash_ids=np.array([i for row in rows for i in row[3]], int),
            hash_offsets=np.cumsum([0, *(len(row[3]) for row in rows)]),
            content_sha256="0" * 64,
            source="made.jsonl",
        )

    return make


@pytest.fixture(scope="session")
def conversation_path() -> Path:
    shared = Path(__file__).parents[2].parent / "shared" / "data" / "traces"
    path = Path(os.environ.get("KVSIM_TRACES") or shared) / CONVERSATION
    if not path.is_file():
        pytest.skip(f"no real trace: set KVSIM_TRACES to a folder with {CONVERSATION}")
    return path


@pytest.fixture(scope="session")
def conversation(conversation_path: Path) -> Trace:
    return read_mooncake(conversation_path)
