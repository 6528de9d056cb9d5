"""Lists on dotted paths become scenarios, and runs of them keep their order on any number of processes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hw_profiles.errors import InputError
from kvsim import Scenario
from sim.whatif.pool import LOST, run_all, run_as_asked, worker_count
from sim.whatif.runs import Job, run_jobs
from sim.whatif.variants import expand, parse_vary, short_paths

DOCUMENT = {
    "schema": "kvsim-scenario/1",
    "trace": {"generate": {"requests": 12, "rate": 4, "turns": 2, "first_tokens": {"mean": 2000, "sigma": 1}}},
    "model": "llama-3.1-8b",
    "hardware": {"profile": "h100-sxm"},
    "tiers": [{"name": "hbm"}, {"name": "dram", "capacity": "64 GiB", "shared": "node"}],
}
SCENARIO = Scenario.from_dict(DOCUMENT)


def test_lists_are_yaml():
    assert parse_vary("policies.eviction=lru,{name: lru_k, k: 3}") == (
        "policies.eviction",
        ["lru", {"name": "lru_k", "k": 3}],
    )
    assert parse_vary("hardware.replicas = 1, 2") == ("hardware.replicas", [1, 2])


def test_values_are_called_as_people_write_them():
    pools = {"prefill": 2, "decode": 1, "transfer": "layer"}
    scenario = SCENARIO.set("hardware.replicas", 3)
    found = expand(scenario, [("disaggregation", [None, pools])])
    assert [one.label for one in found] == ["none", "{prefill: 2, decode: 1, transfer: layer}"]


def test_cross_product_in_order():
    found = expand(SCENARIO, [("hardware.replicas", [1, 2]), ("tiers.dram.capacity", ["0 B", "1 GiB"])])
    assert [v.label for v in found] == [
        f"replicas={n}, dram.capacity={size}" for n in (1, 2) for size in ("0 B", "1 GiB")
    ]
    assert [v.scenario.spec.hardware.replicas for v in found] == [1, 1, 2, 2]
    assert [v.scenario.spec.tiers[1].capacity for v in found] == [0, 2**30] * 2
    assert found[1].settings == {"hardware.replicas": 1, "tiers.dram.capacity": "1 GiB"}
    assert SCENARIO.spec.hardware.replicas == 1  # untouched


TOGETHER = [("hardware.tp", [2, 4]), ("hardware.gpus_per_node", [4, 8])]
ALONE = SCENARIO.set("hardware.gpus_per_node", 2)
"""Two GPUs in a node: `tp` 4 is refused without more of them."""


@pytest.mark.parametrize("lists", [TOGETHER, TOGETHER[::-1]])
def test_values_that_are_right_only_together_may_come_in_any_order(lists):
    found = expand(ALONE, lists)
    assert {(v.scenario.spec.hardware.tp, v.scenario.spec.hardware.gpus_per_node) for v in found} == {
        (tp, gpus) for tp in (2, 4) for gpus in (4, 8)
    }
    assert len(expand(ALONE, [("hardware.gpus_per_node", [8])], common=[("hardware.tp", 8)])) == 1
    with pytest.raises(InputError, match=r"hardware\.tp.*gpus_per_node \(2\)"):
        expand(ALONE, TOGETHER[:1])


@pytest.mark.parametrize("order", [1, -1])
def test_settings_are_checked_with_all_in_place(order):
    found = ALONE.set_all([("hardware.tp", "8"), ("hardware.gpus_per_node", "8")][::order])
    assert (found.spec.hardware.tp, found.spec.hardware.gpus_per_node) == (8, 8)
    with pytest.raises(InputError, match=r"hardware\.replicas: found 'two'"):
        ALONE.set_all([("hardware.replicas", "two"), ("seed", "1")][::order])


def test_names_are_as_short_as_they_can_be():
    paths = ["tiers.dram.capacity", "tiers.ssd.capacity", "tiers.dram.eviction", "policies.eviction", "seed"]
    assert list(short_paths(paths).values()) == [
        "dram.capacity",
        "ssd.capacity",
        "dram.eviction",
        "policies.eviction",
        "seed",
    ]


@pytest.mark.parametrize(
    ("lists", "words"),
    [
        ([("hardware.replica", [1, 2])], "unknown key, found 'replica'"),
        ([("hardware.replicas", [1, "two"])], "hardware.replicas: found 'two'"),
        ([("policies.eviction", ["lru", "s3fiffo"])], "did you mean 's3fifo'"),
        ([("seed", [])], "seed: no values"),
        ([("seed", [1, 1])], "the same value twice"),
        ([("seed", [1]), ("seed", [2])], "given twice"),
        ([("tiers.sdd.capacity", ["1 GiB"])], "no item of that name"),
    ],
)
def test_wrong_lists_are_one_line(lists, words):
    with pytest.raises(InputError) as error:
        expand(SCENARIO, lists)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["policies.eviction", "=lru", "policies.eviction=", "seed=[1", "seed=,"])
def test_wrong_text_is_refused(text):
    with pytest.raises(InputError, match="--vary"):
        parse_vary(text)


def test_processes_change_nothing():
    jobs = [Job.of(f"seed {n}", SCENARIO.set("seed", n)) for n in range(3)]
    alone, together = (run_jobs(jobs, workers=workers) for workers in (1, 2))
    for a, b in zip(alone, together, strict=True):
        assert a.label == b.label
        assert {k: v for k, v in a.summary.items() if k != "simulator"} == {
            k: v for k, v in b.summary.items() if k != "simulator"
        }
        assert all(
            (a.columns[name] == b.columns[name])[~(a.columns[name] != a.columns[name])].all() for name in a.columns
        )


def double_or_die(job: int) -> int:
    """Work that kills its process for one job."""
    if job == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return 2 * job


def test_a_killed_process_loses_its_own_job_alone():
    assert run_all(double_or_die, range(4), workers=2, lost=lambda job, why: (job, why)) == [0, (1, LOST), 4, 6]
    with pytest.raises(InputError, match="killed"):
        run_all(double_or_die, range(2), workers=2)


def test_workers(monkeypatch):
    monkeypatch.setenv("KVSIM_WORKERS", "3")
    assert (worker_count(), worker_count(2)) == (3, 2)
    monkeypatch.setenv("KVSIM_WORKERS", "many")
    with pytest.raises(InputError, match="KVSIM_WORKERS"):
        worker_count()
    with pytest.raises(InputError, match="--workers"):
        worker_count(0)


def test_ctrl_c_ends_every_process():
    code = "import time; from sim.whatif.pool import run_all; run_all(time.sleep, [300, 300], workers=2)"
    code = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); " + code
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    process = subprocess.Popen(
        [sys.executable, "-c", code], env=environment, stderr=subprocess.DEVNULL, start_new_session=True
    )
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    if not children.exists():
        process.kill()
        pytest.skip("needs /proc to see the processes")
    wait_until(lambda: len(children.read_text().split()) >= 3)  # two workers and Python's resource tracker
    time.sleep(0.5)  # the last one has only just been forked
    process.send_signal(signal.SIGINT)  # to it alone, not to its workers
    assert process.wait(timeout=120) != 0

    def gone():
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            return True
        return False

    wait_until(gone)


def wait_until(condition, seconds=120.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_jobs_that_depend_on_answers():
    """Each job is asked for when what it needs is known; what is under way when all is known is given up."""
    for workers in (1, 2):
        known = {}

        def ask(busy, known=known):
            if len(known) == 3:
                raise StopIteration
            return [(n, n) for n in (2, 3, 4) if n not in known and n not in busy and (n < 4 or 3 in known)]

        run_as_asked(double, ask, workers=workers, done=known.__setitem__)
        assert known == {2: 4, 3: 6, 4: 8}


def test_a_killed_process_is_one_line():
    with pytest.raises(InputError, match="killed"):
        run_as_asked(double_or_die, lambda busy: [(1, 1)][len(busy) :], workers=2, done=lambda *_: None)


def double(job: int) -> int:
    return 2 * job


def process_of(job: int) -> int:
    return os.getpid()


def test_two_processes_do_it_all():
    """None is started for single jobs: that is for after a process has died."""
    assert len(set(run_all(process_of, range(40), workers=2))) <= 2
