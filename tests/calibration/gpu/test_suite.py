"""The suite where no GPU is: rehearsed with stand-ins for CUDA, and really run on the CPU, killed and resumed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from calibration.suite.samples import read_samples
from hw_profiles.loader import load_profile
from kvsim.cli.main import run

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def rehearsed(gpu_python, tmp_path_factory):
    """Kernels interpreted, CUDA played: what is not seen is time."""
    folder = tmp_path_factory.mktemp("rehearsed")
    done = gpu_python(str(HERE / "rehearsal.py"), str(folder), interpret=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout) == {"copies_arrive": True}
    return folder


def test_every_bench_runs_through(rehearsed):
    found = read_samples(rehearsed)
    assert found.problems == ()
    assert found.complete
    assert len({record["bench"] for record in found.samples}) >= 21
    assert [path.name for path in rehearsed.iterdir() if path.suffix == ".tmp"] == []  # the disk's file is gone
    shape = {"batch": 2, "seq": 40}
    decode = {record["key"]["format"]: record["nbytes"] for record in found.of("decode", **shape)}
    tokens, numbers = 2 * 40, 2 * 2 * 128  # sequences x context; keys and values x KV heads x head
    assert decode["bf16"] == tokens * numbers * 2
    assert decode["int8"] == tokens * (numbers + 2 * 2 * 2)  # a scale of 2 bytes per token, head and side
    assert decode["int4"] == tokens * (numbers / 2 + 2 * 2 * 4)
    assert decode["int2"] == tokens * (numbers / 4 + 2 * 4 * (128 / 32 + 128 / 32))


def test_what_benches_write_is_what_fits_read(rehearsed, tmp_path, capsys):
    """The whole way to a profile that can be read; its numbers are the interpreter's."""
    out = tmp_path / "profile.yaml"
    assert run(["calibrate", "fit", str(rehearsed), "--out", str(out), "--resamples", "0", "--json"]) == 0
    results = json.loads(capsys.readouterr().out)["results"]
    profile = load_profile(out)
    assert {"interference.h2d", "interference.d2h_kernel", "caps.pcie_joint_kernel"} <= set(profile.entries)
    assert profile.copy_methods("pcie_h2d") == ("loop", "batch")
    assert set(results["interference"]["stream_read"]) == {"h2d", "both", "d2h_kernel", "d2d"}
    assert {"fit_decode_attn", "torch_sdpa_per_ours", "triton_gemm_per_torch", "behind_64MiB_us"} <= set(results)
    assert {"latency_host_ns", "sync_us", "layer_us", "nvme_GBps", "pin_GBps", "host_memcpy_GBps"} <= set(results)


def test_what_may_go_wrong_on_a_gpu_is_handled(gpu_python, tmp_path):
    done = gpu_python(str(HERE / "hazards.py"), str(tmp_path), interpret=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert len(done.stdout.splitlines()) == 10


def test_a_run_on_the_cpu_is_killed_and_resumed(gpu_python, tmp_path):
    """What was measured is kept; the rest is measured by the run that goes on, once."""
    arguments = ["-m", "kvsim", "calibrate", "run", "--device", "cpu", "--out", str(tmp_path), "--only", "copy,launch"]
    python = gpu_python("-c", "import sys; print(sys.executable)").stdout.strip()
    environment = os.environ | {"PYTHONPATH": str(HERE.parents[2]), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([python, *arguments], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    path = tmp_path / "samples.jsonl"
    deadline = time.monotonic() + 120
    while (not path.exists() or path.read_text().count('"type": "sample"') < 3) and time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    with path.open("a") as file:
        file.write('{"type": "sample", "pass": 0, "us": [1')  # as if cut off in a line
    kept = read_samples(path, half_line=True)
    assert 3 <= len(kept.samples) < 24
    assert not kept.complete

    again = gpu_python(*arguments, "--resume")
    assert again.returncode == 0, again.stderr
    assert "cpu: 24 points measured" in again.stdout
    whole = read_samples(path)
    assert whole.complete
    assert whole.runs == 2
    assert whole.samples[: len(kept.samples)] == kept.samples
    names = [(record["pass"], record["name"]) for record in whole.samples]
    assert len(names) == len(set(names)) == 24
    assert [record["tag"] for record in whole.anchors if record["what"] == "copy"][-1] == "end"
    assert {record["kernel"] for record in whole.checks} == {"decode_cpu", "prefill_cpu"}


def test_a_build_for_cpus_is_named(gpu_python, tmp_path):
    """With torch and Triton, but no GPU: one line, nothing written."""
    done = gpu_python("-m", "kvsim", "calibrate", "run", "--out", str(tmp_path / "new"))
    if done.returncode == 0 or "in use by others" in done.stderr:
        pytest.skip("this machine has a GPU")
    assert done.returncode == 2
    assert done.stderr.startswith("error: no GPU can be measured")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "new").exists()


def test_a_wrong_kernel_is_not_timed(gpu_python, tmp_path):
    code = f"""
import json
from pathlib import Path
from calibration.suite import cpu_checks, preflight, runner
from calibration.suite.facts import cpu_costs
from calibration.suite.plan import make_plan
good = cpu_checks.run
cpu_checks.run = lambda: (record | {{"ok": record["kernel"] != "decode_cpu"}} for record in good())
facts = preflight.cpu_facts()
plan = make_plan(facts, cpu_costs(facts.l2_bytes), only=("decode", "launch"))
runner.run_plan(facts, plan, Path({str(tmp_path / "s.jsonl")!r}))
"""
    done = gpu_python("-c", code)
    assert done.returncode == 0, done.stderr
    found = read_samples(tmp_path / "s.jsonl")
    assert {record["bench"] for record in found.samples} == {"launch"}
    assert {record["problem"] for record in found.problems} == {"not timed: decode_cpu disagreed with torch"}
    assert len(found.problems) == 2 * 23
