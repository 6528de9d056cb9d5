"""`kvsim report DIR`: every kind of folder by what it holds, and one line with exit code 2 for what cannot be shown."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Kvsim = Callable[..., Any]

BROKEN = {
    "a folder that is not there": {},
    "a folder of nothing": {"notes.txt": "hello"},
    "a file of another program": {"summary.json": "[1, 2]"},
    "a run of another version": {"summary.json": '{"schema": "kvsim-summary/0"}'},
    "a run of one half": {"scenario.yaml": "schema: kvsim-scenario/1\n"},
    "a run without its tables": {
        "summary.json": '{"schema": "kvsim-summary/1"}',
        "scenario.yaml": "schema: kvsim-scenario/1\n",
        "profile.json": "[]",
    },
    "a run with a broken table": {
        "summary.json": '{"schema": "kvsim-summary/1"}',
        "scenario.yaml": "schema: kvsim-scenario/1\n",
        "profile.json": "[]",
        "requests.parquet": "PAR1 and then nothing",
    },
    "a comparison of another version": {"compare.json": '{"schema": "kvsim-compare/9"}'},
    "half a comparison": {"compare.json": '{"schema": "kvsim-compare/1", "variants": ['},
    "a comparison of nothing": {"compare.json": '{"schema": "kvsim-compare/1"}'},
    "a sweep of another version": {"sweep.json": '{"schema": "kvsim-sweep-runs/0"}'},
    "half a sweep": {"sweep.json": '{"schema": "kvsim-sweep-runs/1"}'},
    "a sweep under way": {"rows/0.json": "{}"},
    "a plan of another version": {"plan.json": '{"schema": "kvsim-plan/0"}'},
    "half a plan": {"plan.json": '{"schema": "kvsim-plan/1", "plans": {}}'},
    "a cache study": {"cache.json": "[]"},
    "a regret study": {"cache.json": '{"schema": "kvsim-cache/1"}'},
    "a table of published figures": {"reproduce.json": "[]"},
    "profiles side by side": {"profiles.html": "<html>"},
    "samples of a calibration": {"samples.jsonl": "{"},
}
"""Files of folders that have no report, by what they are."""


@pytest.mark.parametrize("case", BROKEN)
def test_what_cannot_be_shown_is_one_line(kvsim: Kvsim, folder: Path, case: str) -> None:
    for name, text in BROKEN[case].items():
        path = folder / "d" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    before = {path.relative_to(folder) for path in folder.rglob("*")}
    answer = kvsim("report", "d")
    assert (answer.code, answer.out) == (2, "")
    assert len(answer.err.strip().splitlines()) == 1
    assert "Traceback" not in answer.err
    assert "d" in answer.err.partition(":")[2]
    assert {path.relative_to(folder) for path in folder.rglob("*")} == before


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (("plan", "small.yaml", "--find", "replicas", "--among", "1,2"), "plan.html"),
        (("compare", "small.yaml", "--vary", "policies.eviction=lru,s3fifo", "--seeds", "1"), "compare.html"),
        (("sweep", "sweep.yaml"), "sweep.html"),
        (("run", "small.yaml"), "report.html"),
    ],
)
def test_every_kind_is_made_again_as_it_was(kvsim: Kvsim, folder: Path, arguments: tuple[str, ...], name: str) -> None:
    (folder / "sweep.yaml").write_text(
        "schema: kvsim-sweep/1\nscenario: small.yaml\nvary: {hardware.replicas: [1, 2]}\n"
    )
    more = () if arguments[0] == "run" else ("--workers", "1")
    assert kvsim(*arguments, *more, "--out", "d").code == 0
    page = folder / "d" / name
    before = page.read_bytes()
    page.unlink()
    answer = kvsim("report", "d", "--json")
    assert answer.code == 0
    assert json.loads(answer.out) == {"report": f"d/{name}"}
    assert page.read_bytes() == before
    assert kvsim("report", "d", "--out", "elsewhere").code == 0
    assert (folder / "elsewhere" / name).read_bytes() == before
    if name != "report.html":
        refused = kvsim("report", "d", "--tables", "csv")
        assert refused.code == 2
        assert "is for the folder of a run" in refused.err
