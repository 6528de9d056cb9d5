"""`kvsim sweep`: its table, --dry-run, --resume, and wrong input."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Kvsim = Callable[..., Any]


@pytest.fixture
def file(folder: Path) -> Path:
    path = folder / "sweep.yaml"
    path.write_text("schema: kvsim-sweep/1\nscenario: small.yaml\nvary: {hardware.replicas: [1, 2]}\n")
    return path


def test_says_what_it_would_run_and_then_runs_it(kvsim: Kvsim, file: Path, folder: Path) -> None:
    answer = kvsim("sweep", file.name, "--dry-run")
    assert (answer.code, answer.out.split("\n")[:3]) == (0, ["replicas=1", "replicas=2", "2 runs"])
    assert not (folder / "out").exists()
    answer = kvsim("sweep", file.name, "--workers", "1")
    assert answer.code == 0
    assert "2 runs, 0 failed; table: out/sweep/sweep.parquet" in answer.out
    again = kvsim("sweep", file.name, "--workers", "1")
    assert again.code == 2
    assert "--resume" in again.err
    resumed = kvsim("sweep", file.name, "--workers", "1", "--resume", "--json")
    assert resumed.code == 0
    assert [row["settings"] for row in json.loads(resumed.out)] == [{"hardware.replicas": n} for n in (1, 2)]


def test_each_run_says_if_it_meets_the_slo_and_what_misses_it_most(kvsim: Kvsim, file: Path) -> None:
    limits = "set: {slo: {ttft_p95: 1us, tpot_p95: 1000s}}\n"
    file.write_text(file.read_text() + limits)
    answer = kvsim("sweep", file.name, "--workers", "1")
    rows = [line for line in answer.out.splitlines() if line.strip().startswith("replicas=")]
    assert len(rows) == 2
    assert all("TTFT p95 " in row and row.endswith(" x its limit") for row in rows)
    file.write_text(file.read_text().replace("1us", "1000s"))
    answer = kvsim("sweep", file.name, "--workers", "1", "--out", "easy")
    assert all(line.endswith("  met") for line in answer.out.splitlines() if line.strip().startswith("replicas="))


def test_all_failed_is_exit_code_1(kvsim: Kvsim, file: Path) -> None:
    file.write_text(file.read_text().replace("hardware.replicas: [1, 2]", "engine.num_gpu_blocks: [1000000000]"))
    answer = kvsim("sweep", file.name, "--workers", "1")
    assert answer.code == 1
    assert "1 runs, 1 failed" in answer.out


def test_a_folder_of_something_else_is_left_alone(kvsim: Kvsim, file: Path) -> None:
    answer = kvsim("sweep", file.name, "--out", ".")
    assert answer.code == 2
    assert "holds no sweep" in answer.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--executor", "rai"), "--executor: found 'rai', expected one of local, ray; did you mean 'ray'?"),
        (("--address", "auto"), "--address: needs --executor ray"),
    ],
)
def test_wrong_executors_are_one_line(kvsim: Kvsim, file: Path, arguments: tuple[str, ...], words: str) -> None:
    answer = kvsim("sweep", file.name, *arguments)
    assert answer.code == 2
    assert words in answer.err


def test_without_ray_it_says_what_to_install(kvsim: Kvsim, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)  # as if it were not installed
    answer = kvsim("sweep", file.name, "--executor", "ray")
    assert answer.code == 2
    assert "pip install 'kvsim[ray]'" in answer.err
    assert answer.err.count("\n") == 1
