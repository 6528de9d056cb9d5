"""`kvsim reproduce`: its table, its JSON, its files, and wrong input."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Kvsim = Callable[..., Any]
KEYS = {"system", "figure", "published", "simulated", "ratio", "source", "kind", "target_met"}


def test_one_system_as_json(kvsim: Kvsim) -> None:
    answer = kvsim("reproduce", "mla", "--json", "--workers", "1")
    rows = json.loads(answer.out)
    assert answer.code == 0
    assert all(set(row) == KEYS and row["system"] == "mla" for row in rows)
    (exact,) = [row for row in rows if row["source"] == "D"]
    assert exact["simulated"] == exact["published"] == 70_272
    assert exact["target_met"] is True
    assert all(row["target_met"] is None for row in rows if row["source"] == "M")


def test_the_table_and_the_files(kvsim: Kvsim, folder: Path) -> None:
    answer = kvsim("reproduce", "mla", "fp8", "--out", "here", "--workers", "1")
    assert "mla" in answer.out
    assert "fp8" in answer.out
    assert "met: arithmetic 3 of 3 rows (2 of 2 tables); shown and not judged: 1" in answer.out
    page = (folder / "here" / "reproduce.html").read_text()
    assert "DeepSeek-R1" in page
    rows = json.loads((folder / "here" / "reproduce.json").read_text())
    with (folder / "here" / "reproduce.csv").open() as file:
        assert [row["figure"] for row in csv.DictReader(file)] == [row["figure"] for row in rows]
    text = (folder / "here" / "reproduce.md").read_text()
    assert all(row["figure"] in text for row in rows)


def test_a_missed_target_is_exit_code_1_and_still_written(kvsim: Kvsim, folder: Path, monkeypatch: Any) -> None:
    import sim.reproduce.systems as systems
    from sim.reproduce.rows import Figure, Table
    from sim.reproduce.setting import Setting

    figure = Figure("a step", 1e9, "ms", (Setting("llama-2-7b", "a100-80", 1, 64, 4),), lambda m: m.step_ms)
    monkeypatch.setattr(systems, "SYSTEMS", {"h2o": (Table("h2o", "nowhere", "R", "here", (figure,)),)})
    answer = kvsim("reproduce", "--out", "here", "--workers", "1")
    assert answer.code == 1
    assert "missed: h2o, nowhere" in answer.out
    assert json.loads((folder / "here" / "reproduce.json").read_text())[0]["target_met"] is False


@pytest.mark.parametrize("name", ["host_kv", "uvm", "int8", "yoco", "gqa", "mqa"])
def test_a_system_without_published_figures_is_told_so(kvsim: Kvsim, name: str) -> None:
    answer = kvsim("reproduce", name)
    assert (answer.code, answer.out) == (2, "")
    assert answer.err.count("\n") == 1
    assert name in answer.err
    assert "no published figures" in answer.err
    assert "did you mean" not in answer.err


def test_wrong_input_is_one_line(kvsim: Kvsim, folder: Path) -> None:
    answer = kvsim("reproduce", "arkvail")
    assert answer.code == 2
    assert answer.err.count("\n") == 1
    assert "did you mean 'arkvale'" in answer.err
    (folder / "file").write_text("")
    assert kvsim("reproduce", "mla", "--out", "file").code == 2
