"""Traces for the tests: small ones made here, and the real one where there is a copy."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hw_profiles.errors import InputError
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
def real_path() -> Callable[[str], Path]:
    """The real file at a path below $KVSIM_TRACES; skips the test where there is none."""
    shared = Path(__file__).parents[2].parent / "shared" / "data" / "traces"
    folder = Path(os.environ.get("KVSIM_TRACES") or shared)

    def find(relative: str) -> Path:
        if not (folder / relative).is_file():
            pytest.skip(f"no real trace: set KVSIM_TRACES to a folder with {relative}")
        return folder / relative

    return find


@pytest.fixture
def refused(tmp_path: Path) -> Callable[..., str]:
    """What `read` says of a file with `lines`: one line that begins with file:number."""

    def message(
        read: Callable[..., Trace],
        lines: Sequence[str],
        number: int,
        name: str = "t.jsonl",
        end: str = "\n",
        **options: Any,
    ) -> str:
        path = tmp_path / name
        path.write_text("\n".join(lines) + end)
        with pytest.raises(InputError) as caught:
            read(path, **options)
        text = str(caught.value)
        assert text.startswith(f"{path}:{number}: ")
        assert "\n" not in text
        return text

    return message


@pytest.fixture(scope="session")
def conversation_path(real_path: Callable[[str], Path]) -> Path:
    return real_path(CONVERSATION)


@pytest.fixture(scope="session")
def conversation(conversation_path: Path) -> Trace:
    return read_mooncake(conversation_path)
