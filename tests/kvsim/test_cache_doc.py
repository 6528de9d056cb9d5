"""docs/cache.md names every field of the documents, and its first example is what the command prints."""

import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

Kvsim = Callable[..., Any]
ROOT = Path(__file__).parents[2]
DOC = (ROOT / "docs" / "cache.md").read_text("utf-8")
CONVERSATION = Path(os.environ.get("KVSIM_TRACES") or ROOT.parent / "shared/data/traces") / (
    "mooncake/conversation_trace.jsonl.gz"
)


def keys(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield key
            yield from keys(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from keys(inner)


def documented(key: str) -> bool:
    return re.search(rf"[`\"]{key}[`\"]", DOC) is not None


def test_every_field_of_the_documents_is_explained(kvsim: Kvsim, folder: Path) -> None:
    (folder / "small.yaml").write_text(
        "schema: kvsim-scenario/1\ntrace: {name: quickstart, limit: 20}\nmodel: llama-3.1-8b\n"
        "hardware: {profile: h100-sxm}\ntiers: [{name: hbm}, {name: dram, capacity: 1 GiB}]\n"
    )
    regret = json.loads(kvsim("cache", "small.yaml", "--json").out)
    ratios = json.loads(kvsim("cache", "quickstart", "--capacity", "1Mtok", "--json").out)
    bound = json.loads(kvsim("run", "small.yaml", "--bound", "--no-report", "--json", "--out", "run").out)["bound"]
    names = {*keys(regret), *keys(ratios), *keys(bound)} - {"dram"}
    assert sorted(name for name in names if not documented(name)) == []


@pytest.mark.skipif(not CONVERSATION.is_file(), reason="no real trace: set KVSIM_TRACES")
def test_the_first_example_is_what_is_printed(kvsim: Kvsim, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KVSIM_TRACES", str(CONVERSATION.parents[1]))
    example = DOC.partition("```\n")[2].partition("```")[0]
    command, *shown = example.splitlines()
    answer = kvsim(*command.removeprefix("$ kvsim ").split())
    assert answer.out.splitlines()[: len(shown)] == shown
