"""Sweeps on Ray: the same table as here, files that travel, lost workers. Skipped where Ray is not installed."""

import os
import signal
from functools import partial
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from hw_profiles.errors import InputError
from kvsim import Scenario
from sim.config_hash import config_sha256
from sim.inputs import load_inputs
from sim.whatif import ray_pool
from sim.whatif.bundle import arrived, pack, travelling
from sim.whatif.ray_pool import run_on_ray
from sim.whatif.runs import Job
from sim.whatif.sweep import run_sweep
from sim.whatif.variants import expand

MISSING = "Ray is not installed (pip install 'kvsim[ray]')"
TRACE = "\n".join(
    f'{{"timestamp": {1000 * i}, "input_length": 1500, "output_length": 20, "hash_ids": [0, {i}, {i + 1}]}}'
    for i in range(8)
)
DOCUMENT = {
    "schema": "kvsim-scenario/1",
    "trace": "mine.jsonl",
    "model": "llama-3.1-8b",
    "hardware": {"profile": "profiles/mine.yaml"},
    "tiers": [{"name": "hbm"}, {"name": "dram", "capacity": "64 GiB", "shared": "node"}],
    "policies": {"eviction": "mine.py:Mine"},
}


@pytest.fixture
def scenario(tmp_path: Path) -> Scenario:
    """A scenario that names a trace, a policy, and a profile that is based on another one beside it."""
    folder = tmp_path / "home"
    (folder / "profiles").mkdir(parents=True)
    (folder / "mine.jsonl").write_text(TRACE + "\n")
    (folder / "mine.py").write_text("from policies.eviction.lru import LRU\n\n\nclass Mine(LRU):\n    pass\n")
    head = "schema: kvsim-hw/1\nname: {}\nkind: datasheet\nbase: {}\n"
    (folder / "profiles" / "mine.yaml").write_text(head.format("mine", "../base.yaml"))
    (folder / "base.yaml").write_text(head.format("base", "h100-sxm"))
    return Scenario.from_dict(DOCUMENT, base_dir=folder)


@pytest.fixture(scope="module")
def ray():
    """Ray with two processes of this machine."""
    module = pytest.importorskip("ray", reason=MISSING)
    with ray_pool.cluster(None, 2) as started:
        yield started
    assert not module.is_initialized()


def test_what_a_scenario_names_means_the_same_elsewhere(scenario, tmp_path):
    job = Job.of("it", scenario)
    bundle = pack([job])
    assert {Path(name).name for name in bundle.files} == {"mine.jsonl", "mine.py", "mine.yaml", "base.yaml"}
    bundle.unpack(tmp_path / "there")
    there = arrived(travelling(job), tmp_path / "there").scenario
    (tmp_path / "home").rename(tmp_path / "gone")
    sha = config_sha256(there, load_inputs(there))
    home = Scenario.from_dict(DOCUMENT, base_dir=tmp_path / "gone")
    assert sha == config_sha256(home, load_inputs(home))
    assert there.run().summary["requests"]["finished"] == 8


def test_a_bundle_is_known_by_its_content(scenario, tmp_path):
    job = Job.of("it", scenario)
    before = pack([job]).sha256
    assert pack([job, job]).sha256 == before
    (tmp_path / "home" / "mine.py").write_text("from policies.eviction.fifo import FIFO as Mine\n")
    assert pack([job]).sha256 != before


def test_packages_travel_whole(scenario, tmp_path, monkeypatch):
    package = tmp_path / "site" / "my_pkg_of_policies"
    (package / "deep").mkdir(parents=True)
    for name in ("__init__.py", "deep/__init__.py", "deep/mine.py"):
        (package / name).write_text("from policies.eviction.lru import LRU\n")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    named = scenario.set("policies.eviction", "my_pkg_of_policies.deep.mine:LRU")
    names = [name for name in pack([Job.of("it", named)]).files if name.startswith("modules/")]
    assert names == [f"modules/my_pkg_of_policies/{n}" for n in ("__init__.py", "deep/__init__.py", "deep/mine.py")]


def test_no_cluster_is_one_line(scenario):
    pytest.importorskip("ray", reason=MISSING)  # before the fixture below connects this process
    call = partial(run_on_ray, workers=2, lost=lambda *_: "", done=lambda *_: None)
    with pytest.raises(InputError, match="--address: no Ray cluster") as error:
        call(raise_it, [Job.of("it", scenario)], address="127.0.0.1:1")
    assert "\n" not in str(error.value)


def test_the_table_is_that_of_processes(ray, scenario, tmp_path):
    variants = expand(
        scenario, [("policies.eviction", ["lru", "mine.py:Mine"]), ("engine.num_gpu_blocks", [900, 10**9])]
    )
    on_ray = partial(run_on_ray, address=None, workers=2)
    rows = run_sweep(variants, tmp_path / "ray", executor=on_ray)
    assert rows == run_sweep(variants, tmp_path / "here", workers=1)
    assert [row["error"] is None for row in rows] == [True, False, True, False]
    tables = [tmp_path / where / "sweep.parquet" for where in ("ray", "here")]
    assert tables[0].read_bytes() == tables[1].read_bytes()
    assert not any("simulator" in name for name in pq.read_table(tables[0]).column_names)


def die_once(job: Job) -> str:
    """Work whose process is killed: by one job the first time, by another one every time."""
    if job.label == "always" or (job.label == "once" and not (mark := Path(job.where)).exists()):
        if job.label == "once":
            mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return job.label


def test_a_lost_worker_loses_its_own_run_alone(ray, scenario, tmp_path):
    labels = ["a", "once", "b", "always", "c", "d"]
    jobs = [Job(label, scenario.document, str(tmp_path / "mark"), scenario.base_dir) for label in labels]
    told = []
    found = run_on_ray(
        die_once,
        jobs,
        address=None,
        workers=2,
        lost=lambda job, why: f"lost {job.label}: {why}",
        done=lambda index, answer: told.append(index),
    )
    assert found == ["a", "once", "b", f"lost always: {ray_pool.LOST}", "c", "d"]
    assert sorted(told) == list(range(6))


def raise_it(job: Job) -> str:
    """Work that fails as kvsim does."""
    raise InputError("is wrong", where=job.label)


def test_other_versions_and_errors_are_one_line(ray, scenario, monkeypatch):
    call = partial(run_on_ray, address=None, workers=2, lost=lambda *_: "", done=lambda *_: None)
    with pytest.raises(InputError, match="it: is wrong"):
        call(raise_it, [Job.of("it", scenario)])
    monkeypatch.setattr(ray_pool, "installed_version", lambda: "999")
    with pytest.raises(InputError, match="install the same version there"):
        call(raise_it, [Job.of("it", scenario)])
