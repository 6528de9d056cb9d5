"""`kvsim trace stats` of YAML: a scenario, or the `trace:` section of one; and the shipped closed-loop example."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "clients.yaml"
SECTION = "clients: {clients: 3, conversations: 2, rounds: 2, input_tokens: 100, system_tokens: 64, think_time: 5 s}\n"
Kvsim = Callable[..., Any]


def test_a_scenario_and_its_trace_section_tell_the_same(kvsim: Kvsim, folder: Path) -> None:
    (folder / "section.yaml").write_text(SECTION)
    scenario = (folder / "small.yaml").read_text().splitlines()
    scenario[1] = "trace: {" + SECTION.strip() + "}"
    (folder / "clients.yaml").write_text("\n".join(scenario) + "\nseed: 3\n")
    whole, section = (kvsim("trace", "stats", name, "--json") for name in ("clients.yaml", "section.yaml"))
    figures = json.loads(section.out)
    assert (whole.code, section.code, whole.err + section.err) == (0, 0, "")
    assert (figures["requests"], figures["sessions"], figures["after_another"]) == (12, 6, 9)
    assert (figures["think_mean"], figures["shared_prefix_mean"]) == (5, 64)
    assert json.loads(whole.out)["source"] == "clients: 3, seed 3"
    assert json.loads(whole.out) == {**figures, "source": "clients: 3, seed 3"}


def test_the_table_has_conversations(kvsim: Kvsim) -> None:
    answer = kvsim("trace", "stats", EXAMPLE)
    assert answer.code == 0
    for words in ("conversations", "turns, mean", "think time, p99", "shared prefix, mean", "sent after another"):
        assert words in answer.out


def test_a_relative_path_starts_at_the_scenario(kvsim: Kvsim, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inner = folder / "inner"
    inner.mkdir()
    row = {"timestamp": 0, "input_length": 3, "output_length": 1, "hash_ids": [1]}
    (inner / "own.jsonl").write_text(json.dumps(row) + "\n")
    (inner / "section.yaml").write_text("{path: own.jsonl}\n")
    assert json.loads(kvsim("trace", "stats", "inner/section.yaml", "--json").out)["requests"] == 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("clients: {clients: 3, rouns: 2}", ["rouns", "did you mean 'rounds'"]),
        ("clients: {clients: 0}", ["clients.clients", "found 0"]),
        ("clients: {clients: 3, think_time: {mean: 5}}", ["clients.think_time.mean", "no unit"]),
        ("clients: {clients: 300, rounds: 1, input_tokens: 9000000, block_tokens: 1}", ["clients.block_tokens"]),
        ("{name: quickstart, closed_loop: true}", ["closed_loop: the trace does not tell conversations apart"]),
        ("{name: quickstart, closed_loop: {cleints: 3}}", ["closed_loop", "did you mean 'clients'"]),
        ("{path: nowhere.jsonl}", ["nowhere.jsonl", "cannot read it"]),
        ("trace: {clients: {clients: 2}}", ["schema", "missing"]),
    ],
)
def test_mistakes_are_one_line(kvsim: Kvsim, folder: Path, text: str, words: list[str]) -> None:
    (folder / "bad.yaml").write_text(text + "\n")
    answer = kvsim("trace", "stats", "bad.yaml")
    assert (answer.code, answer.out, answer.err.count("\n")) == (2, "", 1)
    assert [word for word in words if word not in answer.err] == []


def test_the_example_runs(kvsim: Kvsim, folder: Path) -> None:
    answer = kvsim("run", EXAMPLE, "--out", folder / "out", "--json", "--no-report")
    summary = json.loads(answer.out)
    assert answer.code == 0
    assert summary["requests"]["rejected"] == 0
    assert summary["requests"]["finished"] == json.loads(kvsim("trace", "stats", EXAMPLE, "--json").out)["requests"]
