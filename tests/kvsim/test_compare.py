"""`kvsim compare`: its table, its document, its files, and wrong input."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Kvsim = Callable[..., Any]
FEW = ("--workers", "1", "--set", "trace.generate.requests=200")


def test_variants_side_by_side(kvsim: Kvsim, folder: Path) -> None:
    vary = ("--vary", "tiers.dram.capacity=0 B,64 GiB")
    answer = kvsim("compare", "small.yaml", *vary, *FEW, "--seeds", "3", "--json", "--out", "both")
    assert answer.code == 0
    found = json.loads(answer.out)
    assert found == json.loads((folder / "both" / "compare.json").read_text())
    assert [v["label"] for v in found["variants"]] == ["0 B", "64 GiB"]
    assert "3 seeds" in found["methods"]["64 GiB"]
    rows = {row["key"]: row for row in found["metrics"]}
    for key, row in rows.items():
        values, difference = row["values"], row["differences"]["64 GiB"]
        if difference is not None:
            assert difference["value"] == pytest.approx(values["64 GiB"] - values["0 B"], abs=1e-12), key
    assert rows["hit_dram"]["differences"]["64 GiB"]["value"] >= 0
    saved = json.loads((folder / "both" / "2-64-GiB" / "summary.json").read_text())
    assert saved["config_sha256"] == found["variants"][1]["config_sha256"]


def test_a_scenario_against_itself_finds_nothing(kvsim: Kvsim) -> None:
    answer = kvsim("compare", "small.yaml", "small.yaml", *FEW, "--seeds", "1", "--json")
    verdicts = {
        row["differences"]["small (2)"]["verdict"]
        for row in json.loads(answer.out)["metrics"]
        if row["differences"]["small (2)"] is not None
    }
    assert verdicts == {"same"}
    table = kvsim("compare", "small.yaml", "small.yaml", *FEW, "--seeds", "1")
    assert "small (2) against small (1): no difference" in table.out


def test_run_directories_say_what_their_scenarios_said(kvsim: Kvsim) -> None:
    many = "trace.generate.requests=200"
    for out, size in (("none", "0 B"), ("some", "64 GiB")):
        assert kvsim("run", "small.yaml", "--set", many, "--set", f"tiers.dram.capacity={size}", "--out", out).code == 0
    read = json.loads(kvsim("compare", "none", "some", "--json").out)
    vary = ("--vary", "tiers.dram.capacity=0 B,64 GiB")
    ran = json.loads(kvsim("compare", "small.yaml", *vary, *FEW, "--seeds", "1", "--json").out)
    for a, b in zip(read["metrics"], ran["metrics"], strict=True):
        assert list(a["values"].values()) == list(b["values"].values())
        assert list(a["differences"].values()) == list(b["differences"].values())


def test_other_requests_are_not_paired(kvsim: Kvsim) -> None:
    vary = ("--vary", "trace.generate.requests=200,210")
    answer = kvsim("compare", "small.yaml", *vary, "--seeds", "1", "--workers", "1")
    assert answer.code == 0
    assert "different requests" in answer.out


RECORDED = ("--set", "trace=quickstart", "--set", "trace.limit=30", "--workers", "1")


def test_seeds_of_a_recorded_trace_are_refused(kvsim: Kvsim, folder: Path) -> None:
    vary = ("--vary", "tiers.dram.capacity=0 B,64 GiB", "--seeds", "3", "--out", "out")
    answer = kvsim("compare", "small.yaml", *vary, *RECORDED)
    assert (answer.code, answer.out) == (2, "")
    assert "--seeds: nothing of this load is drawn by the seed" in answer.err
    assert answer.err.count("\n") == 1
    assert not (folder / "out" / "compare.json").exists()
    drawn = kvsim("compare", "small.yaml", *vary, *RECORDED, "--set", "trace.spread_arrivals=2s")
    assert drawn.code == 0
    fixed = kvsim("compare", "small.yaml", *vary, *FEW, "--set", "trace.generate.seed=1")
    assert fixed.code == 2


def test_another_seed_of_a_recorded_trace_changes_nothing_and_says_so(kvsim: Kvsim) -> None:
    answer = kvsim("compare", "small.yaml", "--vary", "seed=1,2", *RECORDED)
    assert answer.code == 0
    assert "no difference" in answer.out
    assert "--vary seed changes nothing" in answer.err
    assert "changes nothing" not in kvsim("compare", "small.yaml", "--vary", "seed=1,2", *FEW, "--seeds", "1").err


CALLS = {
    "one scenario": (("small.yaml",), "nothing to compare"),
    "one value": (("small.yaml", "--vary", "seed=1"), "two values or more"),
    "a typo": (("small.yaml", "--vary", "policies.eviction=lru,arcc"), "did you mean 'arc'?"),
    "no such path": (("small.yaml", "--vary", "tiers.ssd.capacity=1GiB,2GiB"), "no item of that name"),
    "an empty list": (("small.yaml", "--vary", "seed="), "--vary"),
    "two scenarios and --vary": (("small.yaml", "small.yaml", "--vary", "seed=1,2"), "--vary takes one scenario"),
    "a folder that is no run": ((".", "small.yaml"), "cannot read the run directory"),
    "no file": (("small.yaml", "smal.yaml"), "smal.yaml"),
    "no seeds": (("small.yaml", "--vary", "seed=1,2", "--seeds", "0"), "--seeds"),
    "no workers": (("small.yaml", "--vary", "seed=1,2", "--workers", "0"), "--workers"),
}


@pytest.mark.parametrize("case", CALLS)
def test_wrong_input_is_one_line(kvsim: Kvsim, folder: Path, case: str) -> None:
    arguments, words = CALLS[case]
    answer = kvsim("compare", *arguments, "--out", "out")
    assert (answer.code, answer.out) == (2, "")
    assert words in answer.err
    assert answer.err.count("\n") == 1
    assert not (folder / "out").exists()


def test_a_run_of_another_version_is_refused(kvsim: Kvsim, folder: Path) -> None:
    assert kvsim("run", "small.yaml", "--out", "run", "--quiet").code == 0
    summary = folder / "run" / "summary.json"
    summary.write_text(summary.read_text().replace("kvsim-summary/1", "kvsim-summary/9"))
    answer = kvsim("compare", "run", "small.yaml")
    assert answer.code == 2
    assert "kvsim-summary/9" in answer.err


def test_a_run_of_another_release_is_refused(kvsim: Kvsim, folder: Path) -> None:
    assert kvsim("run", "small.yaml", "--out", "run", "--quiet").code == 0
    file = folder / "run" / "summary.json"
    summary = json.loads(file.read_text())
    file.write_text(json.dumps(summary | {"version": "0.0.1"}))
    answer = kvsim("compare", "run", "small.yaml")
    assert (answer.code, answer.out) == (2, "")
    assert "version: another version of kvsim wrote it" in answer.err
    assert "found '0.0.1'" in answer.err
    assert answer.err.count("\n") == 1


def test_too_few_requests_are_named_as_such(kvsim: Kvsim) -> None:
    few = kvsim("compare", "small.yaml", "--vary", "tiers.dram.capacity=0 B,64 GiB", "--seeds", "1", "--workers", "1")
    assert "no interval: 60 requests are too few, at least 64 are needed" in few.out
