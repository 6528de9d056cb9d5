"""What goes wrong in the middle of a sweep: killed workers, a full disk, corrupt files. What was written stays."""

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from hw_profiles import files
from hw_profiles.errors import InputError
from sim.whatif.sweep import _read, run_sweep
from sim.whatif.sweep_file import load_sweep

SCENARIO = """\
schema: kvsim-scenario/1
trace: {generate: {requests: 120, rate: 8, turns: 2, first_tokens: {mean: 2000, sigma: 1}}}
model: llama-3.1-8b
hardware: {profile: h100-sxm}
"""
SWEEP = "schema: kvsim-sweep/1\nscenario: small.yaml\nvary: {seed: [0, 1, 2, 3, 4]}\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "small.yaml").write_text(SCENARIO)
    (tmp_path / "sweep.yaml").write_text(SWEEP)
    return tmp_path


def start(folder: Path) -> subprocess.Popen[str]:
    """`kvsim sweep` on two processes."""
    command = [sys.executable, "-m", "kvsim", "sweep", "sweep.yaml", "--out", "out", "--workers", "2"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    return subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def wait_for_rows(process: subprocess.Popen[str], rows: Path, count: int) -> None:
    deadline = time.monotonic() + 120
    while len(list(rows.glob("*.json"))) < count and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)


def workers_of(process: subprocess.Popen[str]) -> list[int]:
    """Processes that the sweep has started to run scenarios."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    if not children.exists():
        process.kill()
        pytest.skip("needs /proc to see the processes")
    pids = [int(pid) for pid in children.read_text().split()]
    return [pid for pid in pids if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def test_a_worker_killed_in_the_middle_loses_nothing(folder):
    process = start(folder)
    wait_for_rows(process, folder / "out" / "rows", 1)
    for pid in workers_of(process)[:1]:
        os.kill(pid, signal.SIGKILL)
    out, err = process.communicate(timeout=180)
    assert (process.returncode, err) == (0, "")
    assert "5 runs, 0 failed" in out  # what it ran was run again
    assert pq.read_table(folder / "out" / "sweep.parquet").num_rows == 5


@pytest.mark.parametrize("rows", [0, 4])
def test_killed_after_any_row_it_goes_on_with_the_others(folder, rows):
    process = start(folder)
    wait_for_rows(process, folder / "out" / "rows", rows)
    process.kill()
    process.communicate()
    kept = {file: file.stat().st_mtime_ns for file in (folder / "out" / "rows").glob("*.json")}
    assert len(kept) >= rows
    if process.returncode != 0:
        assert not (folder / "out" / "sweep.parquet").exists()
    found = run_sweep(load_sweep(folder / "sweep.yaml"), folder / "out", workers=1, resume=True)
    assert all(file.stat().st_mtime_ns == when for file, when in kept.items())
    fresh = run_sweep(load_sweep(folder / "sweep.yaml"), folder / "fresh", workers=1)
    assert found == fresh


def test_a_full_disk_is_one_line_and_leaves_whole_files(folder, monkeypatch):
    room = [2]  # writes until the disk is full

    def fsync(_: int) -> None:
        if not room[0]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        room[0] -= 1

    monkeypatch.setattr(files.os, "fsync", fsync)
    sweep = load_sweep(folder / "sweep.yaml")
    with pytest.raises(InputError) as error:
        run_sweep(sweep, folder / "out", workers=1)
    assert "No space left on device" in str(error.value)
    assert "\n" not in str(error.value)
    rows = folder / "out" / "rows"
    assert all(_read(file) for file in rows.iterdir())
    assert len(list(rows.iterdir())) == 2
    room[0] = 99
    assert len(run_sweep(sweep, folder / "out", workers=1, resume=True)) == 5


def test_a_row_that_is_cut_or_altered_is_not_taken(folder):
    (folder / "sweep.yaml").write_text(SWEEP.replace("[0, 1, 2, 3, 4]", "[0]"))
    run_sweep(load_sweep(folder / "sweep.yaml"), folder / "out", workers=1)
    (file,) = (folder / "out" / "rows").iterdir()
    whole = file.read_bytes()
    assert _read(file) is not None
    for end in range(len(whole) - 1):
        file.write_bytes(whole[:end])
        assert _read(file) is None or whole[end:].isspace()
    for old, new in (
        (b"row/3", b"row/2"),
        (b'"hardware": {', b'"hardware": null, "was": {'),
        (b'"metrics": {', b'"metrics": [], "was": {'),
        (b'"config_sha256": "', b'"x": "'),
    ):
        assert old in whole
        file.write_bytes(whole.replace(old, new))
        assert _read(file) is None
    file.write_bytes(b"\xff\xfe" + whole)
    assert _read(file) is None
