"""The same scenario and seed give the same bytes, in any process and from any folder."""

import json
import os
import shutil
import subprocess
import sys

import pyarrow.parquet as pq
import pytest

from sim.result import TABLES
from sim.run import simulate
from sim.scenario import Scenario

SCENARIO = """\
schema: kvsim-scenario/1
trace:
  generate: {requests: 150, rate: 8, turns: 3, think_time: 5 s, first_tokens: {mean: 2000, sigma: 1}}
  spread_arrivals: 3 s
model: llama-3.1-8b
hardware: {profile: h100-sxm, replicas: 2}
engine: {num_gpu_blocks: 6000}
tiers: [{name: hbm}, {name: dram, capacity: 8 GiB, shared: node}]
slo: {ttft_p99: 1 s}
"""
CODE = "import sys; from sim.scenario import Scenario; Scenario.load(sys.argv[1]).run().save(sys.argv[2])"


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory):
    """Run directories of two processes with different hash seeds, from scenario files in different folders."""
    outs = []
    for hash_seed in ("1", "2"):
        folder = tmp_path_factory.mktemp(f"process{hash_seed}")
        (folder / "scenario.yaml").write_text(SCENARIO)
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        command = [sys.executable, "-c", CODE, "scenario.yaml", "out"]
        subprocess.run(command, cwd=folder, env=environment, check=True, timeout=120)
        outs.append(folder / "out")
    return outs


def test_tables_are_equal_byte_by_byte(two_processes):
    one, two = two_processes
    for name in TABLES:
        content = (one / f"{name}.parquet").read_bytes()
        assert content == (two / f"{name}.parquet").read_bytes(), name
        assert pq.read_table(one / f"{name}.parquet").num_rows > (0 if name == "preemptions" else 100), name


def test_summaries_are_equal_but_for_the_simulator(two_processes):
    one, two = (json.loads((out / "summary.json").read_text()) for out in two_processes)
    assert one.pop("simulator").keys() == two.pop("simulator").keys()
    assert one == two
    assert one["requests"]["finished"] == 150


def test_resolved_scenarios_and_profiles_are_equal(two_processes):
    one, two = two_processes
    for name in ("scenario.yaml", "profile.json"):
        assert (one / name).read_bytes() == (two / name).read_bytes()


def test_the_resolved_scenario_reruns_the_same(two_processes):
    again = Scenario.load(two_processes[0] / "scenario.yaml").run()
    before = json.loads((two_processes[0] / "summary.json").read_text())
    assert again.summary["config_sha256"] == before["config_sha256"]
    assert again.frames["requests"].equals(pq.read_table(two_processes[0] / "requests.parquet").to_pandas())


def test_another_seed_spreads_arrivals_otherwise(scenario, prompt):
    rows = [(0, 100, 1, prompt(i, 100)) for i in range(20)]
    runs = {}
    for seed in (0, 0, 1):
        base = scenario(rows, seed=seed)
        spread = base.set("trace.spread_arrivals", "3 s")
        runs.setdefault(seed, []).append(simulate(spread).frames["requests"].arrival_s)
    assert runs[0][0].equals(runs[0][1])
    assert not runs[0][0].equals(runs[1][0])
    assert set(runs[0][0]) != set(runs[1][0])


# ---- config_sha256


@pytest.fixture
def project(tmp_path, hand, prompt):
    """A folder with a trace, a profile, a model, a policy and the scenario that names them."""
    folder = tmp_path / "project"
    folder.mkdir()
    row = {"timestamp": 0, "input_length": 600, "output_length": 2, "hash_ids": [1, 2]}
    (folder / "trace.jsonl").write_text(json.dumps(row) + "\n")
    shutil.copy(hand.profile, folder / "machine.yaml")
    model = hand.config
    shutil.copy(model, folder / "config.json")
    (folder / "policy.py").write_text(
        "from policies.eviction.lru import LRU\n\n\nclass Mine(LRU):\n    '''As LRU.'''\n"
    )
    (folder / "scenario.yaml").write_text(
        "schema: kvsim-scenario/1\n"
        "trace: ./trace.jsonl\n"
        "model: ./config.json\n"
        "hardware: {profile: ./machine.yaml}\n"
        "tiers: [{name: hbm}, {name: dram, capacity: 1 GiB}]\n"
        "policies: {eviction: 'policy.py:Mine'}\n"
    )
    return folder


def config(folder, *settings):
    scenario = Scenario.load(folder / "scenario.yaml")
    for path, value in settings:
        scenario = scenario.set(path, value)
    return scenario.run().summary["config_sha256"]


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_hash_does_not_depend_on_where_files_lie(project, tmp_path):
    copy = shutil.copytree(project, tmp_path / "elsewhere")
    assert config(copy) == config(project)


def test_hash_does_not_depend_on_what_files_are_called(project):
    before = config(project)
    for old, new in (("trace.jsonl", "renamed.jsonl"), ("machine.yaml", "gpu.yaml"), ("config.json", "llm.json")):
        (project / old).rename(project / new)
        edit(project / "scenario.yaml", f"./{old}", f"./{new}")
    assert config(project) == before


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("trace.jsonl", "600", "601"),
        ("machine.yaml", "v: 3000", "v: 3001"),
        ("config.json", '"vocab_size": 128256', '"vocab_size": 128255'),
        ("policy.py", "As LRU", "Least recently used"),
        ("scenario.yaml", "1 GiB", "2 GiB"),
    ],
)
def test_hash_covers_the_content_of_everything_named(project, file, old, new):
    before = config(project)
    edit(project / file, old, new)
    assert config(project) != before


def test_hash_covers_settings_that_are_set_later(project):
    hashes = [
        config(project),
        config(project, ("seed", 1)),
        config(project, ("engine.max_num_seqs", 8)),
        config(project, ("links.pcie_h2d.bandwidth", "40 GB/s")),
        config(project, ("slo.ttft_p99", "1 s")),
        config(project, ("hardware.replicas", 2)),
        config(project, ("tiers.dram.eviction", "lru")),
    ]
    assert len(set(hashes)) == len(hashes)
    # the same size in other words is the same scenario
    assert config(project, ("tiers.dram.capacity", "1024 MiB")) == hashes[0]


def test_rerunning_the_resolved_scenario_keeps_the_hash(project):
    result = Scenario.load(project / "scenario.yaml").run()
    out = result.save(project / "out")
    assert Scenario.load(out / "scenario.yaml").run().summary["config_sha256"] == result.summary["config_sha256"]
