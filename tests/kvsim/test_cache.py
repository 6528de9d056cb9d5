"""`kvsim cache`: its table, its document, its files, and wrong input."""

import csv
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Kvsim = Callable[..., Any]
SHARED = Path(__file__).parents[2].parent / "shared" / "data" / "traces"
CONVERSATION = Path(os.environ.get("KVSIM_TRACES") or SHARED) / "mooncake" / "conversation_trace.jsonl.gz"

LINES = [
    {"timestamp": 0, "input_length": 1000, "output_length": 5, "hash_ids": [1, 2]},
    {"timestamp": 9, "input_length": 1000, "output_length": 5, "hash_ids": [1, 2]},
    {"timestamp": 9, "input_length": 512, "output_length": 5, "hash_ids": [7]},
    {"timestamp": 9, "input_length": 1024, "output_length": 5, "hash_ids": [1, 3]},
]


@pytest.fixture
def trace(folder: Path) -> Path:
    path = folder / "four.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in LINES))
    return path


def test_the_document_has_a_row_for_each_policy_and_capacity(kvsim: Kvsim, trace: Path) -> None:
    answer = kvsim("cache", trace, "--policy", "lru,belady", "--capacity", "600tok,2ktok,unbounded", "--json")
    assert (answer.code, answer.err) == (0, "")
    total, uses = 3536, 7
    # 1000 tokens are the prompts' first 512 and 488 of the second block; an engine uses 480 of these, in blocks of 16.
    # Accesses 2 1 | 2 1 | 7 | 3 1 with one block: LRU has 1 when request 2 comes, and 2 takes its place before its use.
    # Belady keeps 2 for request 2, which is no prefix without 1, and then 1 for request 4.
    expected = [
        ("lru", 600, 1000 - 488, 0, 512),
        ("lru", 2000, 1000 + 512, 3, 992 + 512),
        ("lru", None, 1000 + 512, 3, 992 + 512),
        ("belady", 600, 512, 2, 512),
        ("belady", 2000, 1000 + 512, 3, 992 + 512),
        ("belady", None, 1000 + 512, 3, 992 + 512),
    ]
    keys = ("policy", "capacity_tokens", "hit_ratio", "block_hit_ratio", "engine_hit_ratio")
    assert json.loads(answer.out) == [
        dict(zip(keys, (policy, size, tokens / total, blocks / uses, engine / total), strict=True))
        for policy, size, tokens, blocks, engine in expected
    ]


def test_the_table_shows_the_bounds_beside_the_policies(kvsim: Kvsim, trace: Path) -> None:
    answer = kvsim("cache", trace, "--policy", "fifo,lru", "--capacity", "1Mtok,600tok")
    assert (answer.code, answer.err) == (0, "")
    words = [line.split() for line in answer.out.splitlines()]
    assert words[0] == ["four"]
    assert words[1] == ["capacity", "fifo", "lru", "belady"]
    assert words[3] == ["600", "tok", *["14.5", "/", "0.0"] * 2, "14.5", "/", "28.6"]
    assert words[4] == ["1", "Mtok", *["42.8", "/", "42.9"] * 3]
    assert words[5] == ["unbounded", *["42.8", "/", "42.9"] * 3]
    assert "no policy has more block hits" in answer.out
    assert "does not bound the hit ratio in tokens" in answer.out


def test_many_policies_go_down_instead_of_across(kvsim: Kvsim, trace: Path) -> None:
    policies = ["lru", "fifo", "lfu", "clock", "sieve", "s3fifo", "arc", "{name: lru_k, k: 3}"]
    answer = kvsim("cache", trace, "--policy", ",".join(policies), "--capacity", "1Mtok")
    assert answer.code == 0
    lines = answer.out.splitlines()
    assert lines[1].split() == ["policy", "1", "Mtok", "unbounded"]
    assert [line.split()[0] for line in lines[3:12]] == [*policies[:7], "lru_k(k=3)", "belady"]


def test_files(kvsim: Kvsim, trace: Path, folder: Path) -> None:
    (folder / "kept").mkdir()
    (folder / "kept" / "notes.txt").write_text("mine")
    arguments = ("cache", trace, "--policy", "lru", "--capacity", "600tok,unbounded", "--out", "kept")
    answer = kvsim(*arguments, "--json")
    assert answer.code == 0
    assert answer.err == "report: kept/cache.html\n"
    files = {path.name: path.read_text() for path in (folder / "kept").iterdir()}
    assert set(files) == {"cache.json", "cache.csv", "cache.html", "notes.txt", "study.json"}
    rows = json.loads(answer.out)
    assert json.loads(files["cache.json"]) == rows
    table = list(csv.DictReader(files["cache.csv"].splitlines()))
    for name in ("capacity_tokens", "hit_ratio", "block_hit_ratio"):
        assert [float(row[name]) if row[name] else None for row in table] == [row[name] for row in rows]
    assert [row["policy"] for row in table] == ["lru", "lru"]
    again = kvsim(*arguments)
    assert again.out.splitlines()[-1] == "report: kept/cache.html"
    assert {path.name: path.read_text() for path in (folder / "kept").iterdir()} == files


def test_a_policy_of_ones_own_and_larger_blocks(kvsim: Kvsim, trace: Path, folder: Path) -> None:
    (folder / "mine.py").write_text(
        "import kvsim\n\n\nclass Newest(kvsim.EvictionPolicy):\n"
        "    def __init__(self, tier):\n        super().__init__(tier)\n        self.order = {}\n"
        "    def insert(self, block):\n        self.order[block.key] = block\n"
        "    def touch(self, block):\n        pass\n"
        "    def victims(self):\n        return reversed(list(self.order.values()))\n"
        "    def remove(self, block):\n        del self.order[block.key]\n"
    )
    answer = kvsim("cache", trace, "--policy", "mine.py:Newest", "--capacity", "1ktok", "--json")
    (row,) = json.loads(answer.out)
    # Room for one, as with LRU. In blocks of 1,024 only the second prompt is one that came before.
    share = 512 / 3536
    assert row.pop("engine_hit_ratio") == share
    assert row == {"policy": "mine.py:Newest", "capacity_tokens": 1000, "hit_ratio": share, "block_hit_ratio": 0}
    answer = kvsim("cache", trace, "--capacity", "2048tok", "--policy", "lru", "--block-tokens", 1024, "--json")
    assert json.loads(answer.out)[0]["hit_ratio"] == 1000 / 3536


def test_a_trace_that_needs_a_warning(kvsim: Kvsim, folder: Path) -> None:
    rows = [json.dumps(line) + "\n" for line in (LINES[1], LINES[0])]
    (folder / "late.jsonl").write_text("".join(rows))
    answer = kvsim("cache", "late.jsonl", "--capacity", "1Mtok", "--json")
    assert answer.code == 0
    assert answer.err.startswith("warning: late.jsonl:2:")
    assert len(json.loads(answer.out)) == 2
    assert kvsim("cache", "late.jsonl", "--strict").code == 2


CALLS = {
    "unknown policy": (["--policy", "lru,sieev"], ["unknown eviction policy", "found 'sieev'", "did you mean 'sieve'"]),
    "misspelt bound": (["--policy", "belady,belayd"], ["found 'belayd'", "did you mean 'belady'"]),
    "unbounded is no policy": (["--policy", "unbounded"], ["policy: unbounded is a capacity"]),
    "unknown option": (["--policy", "{name: lru_k, kk: 3}"], ["lru_k has no such option", "did you mean 'k'"]),
    "unbalanced": (["--policy", "{name: lru"], ["--policy", "found '{name: lru'"]),
    "no policy": (["--policy", ""], ["policy", "none given"]),
    "no such policy file": (["--policy", "mine.py:Mine"], ["policy file not found"]),
    "capacity without unit": (["--capacity", "1Mtok,10"], ["--capacity: no unit, found '10'", "'10Mtok'"]),
    "capacity in bytes": (["--capacity", "1 GiB"], ["--capacity: unknown unit 'GiB'"]),
    "capacity below a block": (["--capacity", "511tok"], ["capacity", "found '511 tok'", "at least 512 tok"]),
    "no capacity": (["--capacity", "1Mtok,"], ["--capacity: found ''"]),
    "block of a size in between": (["--block-tokens", "700"], ["block_tokens", "found 700", "multiple", "512"]),
    "out is a file": (["--out", "four.jsonl"], ["four.jsonl: is a file"]),
    "out below a file": (["--out", "four.jsonl/x"], ["four.jsonl/x: cannot be made"]),
}


@pytest.mark.parametrize("case", CALLS)
def test_wrong_input_is_one_line(case: str, kvsim: Kvsim, trace: Path, folder: Path) -> None:
    arguments, said = CALLS[case]
    before = set(folder.rglob("*"))
    answer = kvsim("cache", trace, *arguments)
    assert (answer.code, answer.out) == (2, "")
    assert answer.err.startswith("error: ")
    assert answer.err.count("\n") == 1
    assert [part for part in said if part not in answer.err] == [], answer.err
    assert set(folder.rglob("*")) == before


def test_a_trace_without_hash_ids_or_no_trace_at_all(kvsim: Kvsim, folder: Path) -> None:
    (folder / "azure.csv").write_text(
        "TIMESTAMP,ContextTokens,GeneratedTokens\n"
        "2023-11-16 18:17:03.9799600,4808,10\n2023-11-16 18:17:04.0319600,3180,8\n"
    )
    answer = kvsim("cache", "azure.csv")
    assert (answer.code, answer.err.count("\n")) == (2, 1)
    assert "azure.csv: has no hash ids" in answer.err
    answer = kvsim("cache", "quickstrat")
    assert answer.code == 2
    assert "did you mean 'quickstart'" in answer.err


@pytest.mark.skipif(not CONVERSATION.is_file(), reason="no real trace: set KVSIM_TRACES")
def test_the_conversation_trace_by_name(kvsim: Kvsim, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KVSIM_TRACES", str(CONVERSATION.parents[1]))
    answer = kvsim("cache", "mooncake-conversation", "--policy", "lru", "--json")
    found = [100 * row["hit_ratio"] for row in json.loads(answer.out)]
    assert found == pytest.approx([5.4, 13.9, 29.1, 36.6, 37.4], abs=0.1)


SCENARIO = """\
schema: kvsim-scenario/1
trace: {path: four.jsonl}
model: llama-3.1-8b
hardware: {profile: h100-sxm}
engine: {num_gpu_blocks: 65}
tiers: [{name: hbm}, {name: dram, capacity: 1 GiB}]
"""


@pytest.fixture
def scenario(folder: Path, trace: Path) -> Path:
    path = folder / "small.yaml"
    path.write_text(SCENARIO)
    return path


def test_a_scenario_gives_the_regret_of_its_policies(kvsim: Kvsim, scenario: Path) -> None:
    answer = kvsim("cache", scenario, "--json")
    assert (answer.code, answer.err) == (0, "")
    document = json.loads(answer.out)
    assert (document["schema"], document["requests"], document["left_out"]) == ("kvsim-regret/1", 4, 0)
    assert [tier["capacity_tokens"] for tier in document["tiers"]] == [65 * 16, 8192]
    own, belady = document["policies"]
    assert (own["policy"], belady["policy"]) == ("scenario", "belady")
    # 1,000 tokens hold 62 full blocks: 992 tokens are found again, and of the last prompt its first 512.
    assert sum(own["hit_tokens"].values()) == sum(belady["hit_tokens"].values()) == 992 + 512
    assert own["regret"] >= belady["regret"] >= 0
    assert own["load_recompute_s"] == pytest.approx((1 + own["regret"]) * document["bound"]["lower_bound_s"])


def test_the_table_of_a_scenario(kvsim: Kvsim, scenario: Path) -> None:
    answer = kvsim("cache", scenario, "--policy", "lru", "--set", "engine.num_gpu_blocks=63", "--out", "kept")
    assert (answer.code, answer.err) == (0, "")
    lines = answer.out.splitlines()
    words = [line.split() for line in lines]
    assert words[0] == ["small:", "four"]
    assert words[1] == ["policy", "HBM", "DRAM", "computed", "load,", "s", "compute,", "s", "both,", "s", "regret"]
    assert (words[3][0], words[4][0]) == ("lru", "bound")
    assert "without queueing" in answer.out
    assert "1 requests are longer than a replica takes and left out." in lines
    assert lines[-1] == "report: kept/cache.html"
    assert {path.name for path in Path("kept").iterdir()} == {"cache.json", "cache.csv", "cache.html"}


SCENARIO_CALLS = {
    "capacities are the tiers'": (["--capacity", "1Mtok"], ["--capacity: of a trace only", "scenario's tiers"]),
    "block sizes too": (["--block-tokens", "1024"], ["--block-tokens: of a trace only"]),
    "unknown policy": (["--policy", "sieev"], ["found 'sieev'", "did you mean 'sieve'"]),
    "unbounded is no policy": (["--policy", "unbounded"], ["a capacity, not a policy"]),
    "wrong setting": (["--set", "tiers.dram=3"], ["small.yaml"]),
    "no policy": (["--policy", ""], ["policy: none given"]),
}


@pytest.mark.parametrize("case", SCENARIO_CALLS)
def test_wrong_input_with_a_scenario_is_one_line(case: str, kvsim: Kvsim, scenario: Path, folder: Path) -> None:
    arguments, said = SCENARIO_CALLS[case]
    before = set(folder.rglob("*"))
    answer = kvsim("cache", scenario, *arguments)
    assert (answer.code, answer.out) == (2, "")
    assert answer.err.count("\n") == 1
    assert [part for part in said if part not in answer.err] == [], answer.err
    assert set(folder.rglob("*")) == before


def test_settings_are_for_scenarios(kvsim: Kvsim, trace: Path) -> None:
    answer = kvsim("cache", trace, "--set", "seed=3")
    assert (answer.code, answer.err) == (2, "error: --set: of a scenario only, found 'seed=3'\n")


def test_a_policy_that_raises_is_one_line_with_the_time(kvsim: Kvsim, trace: Path, folder: Path) -> None:
    (folder / "mine.py").write_text(
        "from policies.eviction.lru import LRU\n\nclass Mine(LRU):\n    def touch(self, block):\n        1 / 0\n"
    )
    answer = kvsim("cache", trace, "--policy", "mine.py:Mine", "--capacity", "1024tok")
    assert answer.code == 2
    assert answer.err.count("\n") == 1
    assert "policy Mine" in answer.err
    assert "ZeroDivisionError: division by zero (mine.py, line 5, in Mine.touch), at 0.009 s" in answer.err
