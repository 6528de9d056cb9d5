"""Wrong input: exit code 2, exactly one line that names the place and the cure, and nothing left behind."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Kvsim = Callable[..., Any]

# What to replace in small.yaml, by what, and what the one line must say.
SCENARIOS = {
    "unknown key": ("slo:", "slos:", ["small.yaml", "found 'slos'", "did you mean 'slo'"]),
    "typo in a required key": ("model:", "modle:", ["small.yaml", "found 'modle'", "did you mean 'model'"]),
    "unknown key inside": ("replicas: 2", "replica: 2", ["hardware", "did you mean 'replicas'"]),
    "missing section": ("model: llama-3.1-8b\n", "", ["small.yaml: model", "missing"]),
    "wrong schema": ("kvsim-scenario/1", "kvsim-scenario/9", ["schema", "found 'kvsim-scenario/9'"]),
    "size without unit": ("64 GiB", "64", ["tiers.dram.capacity", "found 64", "TiB"]),
    "unknown unit": ("64 GiB", "64 GIB", ["tiers.dram.capacity", "64 GIB"]),
    "rate for a size": ("64 GiB", "64 GB/s", ["tiers.dram.capacity"]),
    "negative size": ("64 GiB", "-1 GiB", ["tiers.dram.capacity", "-1 GiB"]),
    "not a number": ("rate: 4", "rate: .nan", ["trace.generate.rate"]),
    "zero requests": ("requests: 60", "requests: 0", ["trace.generate.requests", "found 0"]),
    "no replicas": ("replicas: 2", "replicas: 0", ["hardware.replicas", "found 0"]),
    "text for a number": ("replicas: 2", "replicas: two", ["hardware.replicas", "found 'two'"]),
    "unknown model": (
        "llama-3.1-8b",
        "llama-3.1-9b",
        ["found 'llama-3.1-9b'", "did you mean 'llama-3.1-8b'"],
    ),
    "unknown profile": ("h100-sxm", "h100-smx", ["found 'h100-smx'", "did you mean 'h100-sxm'"]),
    "unknown tier": ("name: dram", "name: drum", ["tiers", "found 'drum'", "did you mean 'dram'"]),
    "block of another size": (
        "name: dram",
        "name: dram, block_tokens: 63",
        ["tiers.dram.block_tokens", "found 63"],
    ),
    "unknown SLO": ("ttft_p99", "ttft_p98", ["slo", "found 'ttft_p98'", "did you mean"]),
    "time without unit": ("30s", "30", ["slo.ttft_p99", "found 30"]),
    "the same key twice": ("slo:", "model: x\nslo:", ["small.yaml", "model"]),
    "a list for a mapping": ("slo: {ttft_p99: 30s}", "slo: [ttft_p99]", ["slo"]),
    "not YAML": ("slo: {", "slo: {{", ["small.yaml", "line"]),
    "unknown policy": (
        "slo:",
        "policies: {eviction: lruu}\nslo:",
        ["policies.eviction", "did you mean 'lru'"],
    ),
    "unknown policy option": (
        "slo:",
        "policies: {eviction: {name: lru, size: 3}}\nslo:",
        ["policies.eviction", "found 'size'"],
    ),
    "policy file missing": (
        "slo:",
        'policies: {eviction: "mine.py:Mine"}\nslo:',
        ["policies.eviction", "file not found"],
    ),
    "engine that there is not": (
        "slo:",
        "engine: {kind: sglan}\nslo:",
        ["engine.kind", "found 'sglan'", "'sglang'"],
    ),
    "trace that nobody has": (
        "trace: {generate: {requests: 60, rate: 4, turns: 2, first_tokens: {mean: 2000, sigma: 1}}}",
        "trace: mooncake-conversation",
        ["mooncake-conversation", "KVSIM_TRACES", "kvsim trace fetch"],
    ),
}

# Arguments, in the folder that the test below fills, and what the line must say.
CALLS = {
    "unknown verb": (["rnu"], ["found 'rnu'", "did you mean 'run'"]),
    "unknown system": (["reproduce", "arkval"], ["found 'arkval'", "did you mean 'arkvale'"]),
    "unknown verb of trace": (["trace", "stat"], ["kvsim trace", "did you mean 'stats'"]),
    "unknown option": (["run", "small.yaml", "--sed", "1"], ["--sed", "--seed"]),
    "missing argument": (["run"], ["SCENARIO", "kvsim run --help"]),
    "one argument too many": (["run", "small.yaml", "other.yaml"], ["other.yaml"]),
    "no such scenario": (["run", "smal.yaml"], ["smal.yaml"]),
    "a folder for a scenario": (["run", "notes"], ["notes"]),
    "an empty scenario": (["run", "empty.yaml"], ["empty.yaml"]),
    "a binary scenario": (["run", "binary.yaml"], ["binary.yaml"]),
    "setting without a value": (["run", "small.yaml", "--set", "seed"], ["--set", "found 'seed'"]),
    "setting of nothing": (["run", "small.yaml", "--set", "engine.max_seqs=3"], ["engine", "'max_num_seqs'"]),
    "setting a missing tier": (
        ["run", "small.yaml", "--set", "tiers.dran.capacity=1GiB"],
        ["did you mean 'dram'"],
    ),
    "setting below a number": (["run", "small.yaml", "--set", "seed.x=3"], ["seed"]),
    "setting that is not YAML": (["run", "small.yaml", "--set", "slo={{"], ["slo", "found '{{'"]),
    "seed below zero": (["run", "small.yaml", "--seed", "-1"], ["seed", "found -1"]),
    "seed that is text": (["run", "small.yaml", "--seed", "x"], ["--seed"]),
    "SLO to fail on, none set": (
        ["run", "small.yaml", "--set", "slo={}", "--fail-on-slo"],
        ["--fail-on-slo", "slo"],
    ),
    "output into a folder of others": (
        ["run", "small.yaml", "--out", "notes"],
        ["notes", "there.jsonl.gz and 1 more", "--out"],
    ),
    "output onto a file": (["run", "small.yaml", "--out", "small.yaml"], ["small.yaml", "is a file"]),
    "output below a file": (["run", "small.yaml", "--out", "small.yaml/x"], ["small.yaml", "not a folder"]),
    "output onto the scenario": (
        ["run", "own/scenario.yaml", "--out", "own"],
        ["own", "the scenario itself"],
    ),
    "model of later": (["run", "small.yaml", "--set", "model=config.json"], ["config.json", "found 'mamba2'"]),
    "report of nothing": (["report", "nowhere"], ["nowhere"]),
    "report of another folder": (["report", "notes"], ["notes"]),
    "list of nothing": (["list", "polices"], ["did you mean 'policies'"]),
    "show of nothing": (["show", "h100-smx"], ["found 'h100-smx'", "did you mean 'h100-sxm'"]),
    "show of another kind": (["show", "lru", "--kind", "models"], ["found 'lru'"]),
    "show of no kind": (["show", "lru", "--kind", "polices"], ["--kind", "did you mean 'policies'"]),
    "statistics of nothing": (["trace", "stats", "quickstrat"], ["did you mean 'quickstart'"]),
    "statistics of a torn trace": (["trace", "stats", "trace.jsonl"], ["trace.jsonl", "2"]),
    "fetching the unknown": (["trace", "fetch", "mooncake"], ["found 'mooncake'"]),
    "fetching from nowhere": (
        ["trace", "fetch", "mooncake-conversation", "--url", "http://127.0.0.1:9/x"],
        ["127.0.0.1:9", "cannot reach"],
    ),
    "generating onto a file": (
        ["trace", "generate", "--name", "there", "--out", "notes"],
        ["there.jsonl.gz"],
    ),
    "generating the impossible": (
        ["trace", "generate", "--set", "requests=0"],
        ["--set", "requests", "found 0"],
    ),
    "generating with a typo": (["trace", "generate", "--set", "first.mean=3"], ["'first'", "first_tokens"]),
}


def line_of(answer: Any) -> str:
    """The one line of an answer to wrong input."""
    assert answer.code == 2, answer
    assert answer.out == ""
    assert answer.err.startswith("error: ")
    assert answer.err.count("\n") == 1
    assert answer.err.endswith("\n")
    assert "Traceback" not in answer.err
    return str(answer.err)


def tree(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


@pytest.mark.parametrize("case", SCENARIOS)
def test_a_wrong_scenario(case: str, kvsim: Kvsim, folder: Path) -> None:
    old, new, said = SCENARIOS[case]
    text = (folder / "small.yaml").read_text()
    assert text.count(old) == 1
    (folder / "small.yaml").write_text(text.replace(old, new))
    before = tree(folder)
    line = line_of(kvsim("run", "small.yaml"))
    assert [part for part in said if part not in line] == [], line
    assert tree(folder) == before


@pytest.mark.parametrize("case", CALLS)
def test_a_wrong_call(case: str, kvsim: Kvsim, folder: Path) -> None:
    arguments, said = CALLS[case]
    (folder / "notes").mkdir()
    (folder / "notes" / "todo.txt").write_text("mine")
    (folder / "notes" / "there.jsonl.gz").write_text("mine")
    (folder / "own").mkdir()
    (folder / "own" / "scenario.yaml").write_text((folder / "small.yaml").read_text())
    (folder / "empty.yaml").write_text("")
    (folder / "binary.yaml").write_bytes(b"\xff\xfe\x00\x01")
    (folder / "trace.jsonl").write_text(
        '{"timestamp": 0, "input_length": 3, "output_length": 1, "hash_ids": [0]}\n{"timestamp": 1, "inp\n'
    )
    (folder / "config.json").write_text('{"model_type": "mamba2", "hidden_size": 512}')
    before = tree(folder)
    line = line_of(kvsim(*arguments))
    assert [part for part in said if part not in line] == [], line
    assert {path for path in tree(folder) if not path.startswith("cache")} == before
    assert (folder / "notes" / "todo.txt").read_text() == "mine"
