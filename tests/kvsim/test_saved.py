"""A run read back in a notebook, and the tables that `kvsim report` writes."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import kvsim as package

Kvsim = Callable[..., Any]


@pytest.fixture
def made(kvsim: Kvsim, folder: Path) -> Path:
    assert kvsim("run", "small.yaml", "--out", "one", "--no-report", "--quiet").code == 0
    return folder / "one"


def test_a_notebook_gets_figures_frames_and_tables(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = package.load("one")
    assert isinstance(run, package.SavedRun)
    assert isinstance(run, package.Result)
    monkeypatch.chdir("/")  # the figures are read from where the run was
    assert {type(figure).__name__ for figure in run.figures.values()} == {"Figure"}
    assert "ttft-split" in run.figures
    assert len(run.frames["requests"]) == 60
    assert all(sheet["definition"].all() for sheet in run.sheets.values())
    means = run.sheets["attribution"].query("of == 'ttft' and requests == 'all'")["value"].to_numpy()
    assert means[-1] == pytest.approx(means[:-1].sum())
    assert means[-1] == pytest.approx(1e3 * run.frames["requests"]["ttft_s"].mean())


def test_tables_are_written_go_with_their_run_and_do_not_stop_the_next(kvsim: Kvsim, made: Path) -> None:
    answer = kvsim("report", "one", "--tables", "csv", "--json")
    files = json.loads(answer.out)["tables"]
    assert [Path(file).name for file in files] == ["metrics.csv", "tiers.csv", "links.csv", "attribution.csv"]
    assert kvsim("run", "small.yaml", "--out", "one", "--no-report", "--quiet").code == 0
    assert not (made / "tables").exists()


def test_a_file_among_the_tables_that_is_not_ours_keeps_the_folder(kvsim: Kvsim, made: Path) -> None:
    kvsim("report", "one", "--tables", "md")
    (made / "tables" / "notes.txt").write_text("mine")
    answer = kvsim("run", "small.yaml", "--out", "one", "--no-report", "--quiet")
    assert answer.code == 2
    assert "tables" in answer.err
    assert (made / "tables" / "metrics.md").exists()


def test_another_format_is_one_line(kvsim: Kvsim, made: Path) -> None:
    before = sorted(made.rglob("*"))
    answer = kvsim("report", "one", "--tables", "xls")
    assert (answer.code, answer.out) == (2, "")
    assert answer.err.strip() == "error: --tables: found 'xls', expected one of csv, md"
    assert sorted(made.rglob("*")) == before


def test_a_folder_that_is_no_run_is_one_line(folder: Path) -> None:
    with pytest.raises(package.InputError, match="nowhere"):
        package.load("nowhere")
