"""Runs that go on from a snapshot: the uninterrupted run to the byte, and what may change in the middle of it."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from hw_profiles.errors import InputError
from sim.cache_state import FILE as STATE
from sim.invariants import InvariantError
from sim.result import TABLES
from sim.run import simulate
from sim.snapshot import FILE, read_snapshot
from sim.whatif.runs import Job, run_jobs

CHAT = {
    "generate": {
        "requests": 120,
        "rate": 8,
        "turns": 3,
        "think_time": "3 s",
        "first_tokens": {"mean": 2500},
        "output_tokens": {"mean": 50, "sigma": 0.8},
    }
}
TIERS = [{"name": "hbm"}, {"name": "dram", "capacity": "3 GiB", "shared": "node"}]
TWO = {"profile": "h100-sxm", "replicas": 2, "gpus_per_node": 2}
PLAIN = {"trace": CHAT, "tiers": TIERS, "hardware": TWO, "blocks": 1200}
FOUR = [*TIERS, {"name": "ssd", "capacity": "6 GiB"}, {"name": "remote", "capacity": "20 GiB", "shared": "cluster"}]
ROUNDS = {
    "clients": 9,
    "rounds": 4,
    "input_tokens": 600,
    "barrier": True,
    "ready_queue": "random",
    "request_rate": 12.0,
    "max_parallel": 6,
}
SCENES = {
    "two replicas": PLAIN,
    "cache-aware routing": {**PLAIN, "routing": "cache_aware"},
    "four tiers, fetched ahead": {
        **PLAIN,
        "tiers": FOUR,
        "policies": {"prefetch": {"name": "on_arrival", "into": "dram", "stop": "timeout"}},
        "links": {"ssd_read": {"bandwidth": "1 GB/s"}},
    },
    "layer-wise loads, write-back, s3fifo": {
        **PLAIN,
        "engine": {"loading": {"mode": "layerwise"}},
        "policies": {"eviction": "s3fifo", "offload": "write_back"},
    },
    "rounds on sglang": {
        "trace": {"clients": ROUNDS},
        "tiers": TIERS,
        "engine": {"kind": "sglang", "block_tokens": 16},
        "blocks": 600,
    },
    "prompts and answers apart": {**PLAIN, "disaggregation": {"prefill": 1, "decode": 1}},
    "drafted tokens": {**PLAIN, "engine": {"speculation": {"method": "ngram", "tokens": 3, "acceptance": 0.6}}},
    "replicas that come and go": {
        **PLAIN,
        "hardware": {**TWO, "replicas": 3},
        "fleet": {"scaling": {"name": "target_utilization", "requests": 2, "protect": "1 s"}, "start_time": "1 s"},
    },
    "requests turned away": {**PLAIN, "admission_control": {"name": "queue_limit", "waiting": 1}},
    "little memory": {**PLAIN, "blocks": 420, "engine": {"max_num_seqs": 32}},
}


@pytest.fixture(scope="module")
def snapshot(scenario, tmp_path_factory):
    """Runs a scenario, takes a snapshot just after a share of its requests; (scenario, result, file, time in s).

    What was run once is not run again."""
    wholes, taken = {}, {}

    def go(share, **keywords):
        key = json.dumps(keywords)
        if key not in wholes:
            built = scenario(**keywords)
            wholes[key] = built, simulate(built)
        built, whole = wholes[key]
        if (key, share) not in taken:
            sent = rows(whole)["arrival_s"].sort_values().to_numpy()
            at = float(sent[int(share * len(sent))]) + 0.005
            folder = tmp_path_factory.mktemp("first")
            simulate(built, save_snapshot_at=at).save(folder)
            taken[key, share] = folder / FILE, at
        return built, whole, *taken[key, share]

    return go


def content(result, folder):
    """The bytes of every table of a run directory."""
    result.save(folder)
    return {name: (folder / f"{name}.parquet").read_bytes() for name in TABLES}


def rows(result):
    return result.frames["requests"].set_index("request_id").sort_index()


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("scene", SCENES)
def test_a_run_that_changes_nothing_is_the_uninterrupted_one_to_the_byte(snapshot, tmp_path, scene, share):
    built, whole, file, at = snapshot(share, **SCENES[scene])
    taken = read_snapshot(file)
    assert taken.under_way > 0  # in the middle of things, not at a pause
    later = simulate(built.set("warm_start", str(file)), check=True)
    assert content(later, tmp_path / "later") == content(whole, tmp_path / "whole")
    differing = {key for key in whole.summary if whole.summary[key] != later.summary.get(key)}
    assert differing <= {"config_sha256", "simulator", "metrics", "assumptions", "warnings"}
    after = later.summary["from_snapshot"]
    assert after["changed"] == []
    assert after["at_s"] == at
    sent = rows(later)["arrival_s"]
    assert after["requests"] == ((sent > at) & rows(later)["finish_s"].notna()).sum()
    assert after["requests_before"] + after["requests_under_way"] == (sent <= at).sum()


def test_taking_a_snapshot_and_a_cache_state_changes_nothing(scenario, tmp_path):
    built = scenario(**SCENES["layer-wise loads, write-back, s3fifo"])
    whole = simulate(built)
    at = whole.summary["duration_s"] / 2
    other = simulate(built, save_snapshot_at=at, save_cache_state_at=at)
    assert content(other, tmp_path / "other") == content(whole, tmp_path / "whole")
    assert json.loads((tmp_path / "other" / FILE).read_text())["at_s"] == at
    state = pq.read_table(tmp_path / "other" / STATE)
    assert 0 < sum(state.column("tokens").to_pylist()) * 131_072 <= 3 * 2**30 + 2 * 1200 * 2**21
    whole.save(tmp_path / "other")
    assert not (tmp_path / "other" / FILE).exists()


def test_single_steps_go_on_from_a_snapshot_of_strides(snapshot, same_requests):
    built, whole, file, _ = snapshot(0.5, **PLAIN)
    single = simulate(built.set("warm_start", str(file)), single_step=True)
    same_requests(single, whole)


CHANGES = {
    "tiers.dram.capacity": ("40 GiB", lambda one, other: hits(other) > hits(one)),
    "policies.eviction": ("fifo", lambda one, other: hits(other) != hits(one)),
    "policies.offload": ("none", lambda one, other: stored(other) < stored(one)),
    "policies.admission": ({"name": "by_size", "least_tokens": 10**6}, lambda one, other: stored(other) < stored(one)),
    "policies.prefetch": ({"name": "on_arrival", "into": "hbm"}, lambda _, other: fetched(other) > 0),
    "routing": ("cache_aware", lambda one, other: hits(other) > hits(one)),
    "engine.max_num_batched_tokens": (512, lambda one, other: chunks(other) > chunks(one)),
    "links.pcie_h2d.bandwidth": ("500 MB/s", lambda one, other: load(other) > 2 * load(one)),
    "links.pcie_h2d.latency": ("10 ms", lambda one, other: load(other) > 2 * load(one)),
    "links.pcie_joint.bandwidth": ("5 GB/s", lambda one, other: load(other) > 2 * load(one)),
}


def hits(result):
    return result.summary["from_snapshot"]["hit_ratio"]


def stored(result):
    return result.summary["tiers"]["dram"]["stored_bytes"]


def fetched(result):
    return result.summary["tiers"]["hbm"]["prefetched_bytes"]


def chunks(result):
    return result.frames["steps"]["prefill_seqs"].sum()


def load(result):
    return result.frames["requests"]["load_s"].sum()


@pytest.mark.parametrize("path", CHANGES)
def test_what_may_change_does_from_that_time_on(snapshot, path):
    built, whole, file, at = snapshot(0.4, **PLAIN)
    value, moved = CHANGES[path]
    going_on = simulate(built.set("warm_start", str(file)))
    changed = simulate(built.set_all([("warm_start", str(file)), (path, value)]), check=True)
    assert changed.summary["from_snapshot"]["changed"][0].startswith(path)
    assert moved(going_on, changed)
    one, other = rows(whole), rows(changed)
    ended = one["finish_s"] <= at
    assert ended.sum() > 10
    assert one[ended].equals(other[ended])
    for name in ("steps", "transfers"):
        before = [r.frames[name][r.frames[name]["end_s"] <= at].reset_index(drop=True) for r in (whole, changed)]
        if name == "transfers":
            assert before[0].to_numpy().tolist() == before[1].to_numpy().tolist()
        else:  # a stride may end sooner or later, but what had ended by then is the same work
            assert len(before[0])
            assert before[0].iloc[:-4].equals(before[1].iloc[: len(before[0]) - 4])


def test_fewer_sequences_run_at_a_time(snapshot):
    slow = {**PLAIN, "trace": {"generate": {**CHAT["generate"], "rate": 30}}, "blocks": 4000}
    built, _, file, at = snapshot(0.2, **slow)
    most = int(simulate(built).frames["steps"]["running"].max())
    going_on, changed = (
        simulate(built.set_all([("warm_start", str(file)), ("engine.max_num_seqs", n)])) for n in (256, most - 2)
    )
    steps = changed.frames["steps"]
    assert steps.loc[steps["start_s"] > at, "running"].max() <= most - 2
    assert going_on.frames["steps"]["running"].max() == most


def test_a_smaller_tier_drops_the_coldest_at_once(snapshot):
    built, _, file, at = snapshot(0.5, **PLAIN)
    changed = simulate(built.set_all([("warm_start", str(file)), ("tiers.dram.capacity", "1 GiB")]), check=True)
    samples = changed.frames["samples"]
    used = samples[(samples["metric"] == "used_bytes") & samples["object"].str.startswith("dram")]
    assert used.loc[used["time_s"] <= at, "value"].max() > 2 * 2**30
    assert used.loc[used["time_s"] > at, "value"].max() <= 2**30


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("hardware.replicas", 3, "hardware.replicas"),
        ("tiers.hbm.capacity", "9 GiB", "tiers.hbm.capacity"),
        ("tiers.dram.capacity", "0 B", "cannot come or go"),
        ("engine.block_tokens", 32, "engine.block_tokens"),
        ("trace.generate.rate", 11, "trace.generate.rate"),
        ("seed", 1, "seed"),
        ("links.dram.bandwidth", "10 GB/s", "cannot come or go"),
        ("engine.max_num_seqs", 1, "runs more sequences"),
    ],
)
def test_what_a_running_system_cannot_change_is_refused(snapshot, path, value, words):
    built, _, file, _ = snapshot(0.4, **{**PLAIN, "blocks": None, "engine": {"num_gpu_blocks": None}})
    with pytest.raises(InputError, match=words):
        simulate(built.set_all([("warm_start", str(file)), (path, value)]))


def test_a_new_slo_is_looked_at(snapshot):
    built, _, file, _ = snapshot(0.4, **PLAIN)
    result = simulate(built.set_all([("warm_start", str(file)), ("slo.ttft_p99", "1 h")]))
    assert result.summary["slo"]["met"] is True


def test_what_ifs_share_the_way_there_and_are_the_same_as_alone(snapshot, tmp_path):
    built, _, file, _ = snapshot(0.5, **PLAIN)
    begun = built.set("warm_start", str(file))
    sizes = ("3 GiB", "12 GiB", "40 GiB")
    jobs = [Job.of(size, begun.set("tiers.dram.capacity", size), out=tmp_path / size[:2].strip()) for size in sizes]
    ticks = []
    runs = run_jobs(jobs, workers=2, progress=lambda done, total: ticks.append((done, total)))
    assert ticks[-1] == (3, 3)
    for job, run in zip(jobs, runs, strict=True):
        alone = simulate(job.scenario)
        assert run.label == job.label
        for name, column in run.columns.items():
            assert np.array_equal(column, alone.tables["requests"].column(name).to_numpy(), equal_nan=True), name
        assert {**run.summary, "simulator": 0} == {**alone.summary, "simulator": 0}
        assert content(alone, tmp_path / "alone") == {
            name: (job.out / f"{name}.parquet").read_bytes() for name in TABLES
        }
    assert len({run.summary["config_sha256"] for run in runs}) == 3


def test_a_wrong_what_if_says_which_one_it_was(snapshot):
    built, _, file, _ = snapshot(0.5, **PLAIN)
    begun = built.set("warm_start", str(file))
    jobs = [Job.of(label, begun.set("hardware.replicas", n)) for label, n in (("two", 2), ("three", 3))]
    with pytest.raises(InputError, match=r"hardware\.replicas.*of three"):
        run_jobs(jobs, workers=2)


def test_snapshots_that_cannot_be_used_are_refused(snapshot, tmp_path, scenario):
    built, whole, file, _ = snapshot(0.5, **PLAIN)
    document = json.loads(file.read_text())

    def begin(**changes):
        other = tmp_path / "other.json"
        other.write_text(json.dumps({**document, **changes}))
        return simulate(built.set("warm_start", str(other)))

    with pytest.raises(InputError, match="another version of kvsim"):
        begin(config_sha256="0" * 64)
    with pytest.raises(InvariantError, match="another state"):
        begin(state_sha256="0" * 64)
    with pytest.raises(InputError, match="kvsim-snapshot/1"):
        begin(schema="kvsim-snapshot/0")
    with pytest.raises(InputError, match="not whole"):
        begin(more=1)
    bad = {"at_s": ("soon", True, -1.0, None), "scenario": ([],), "state_sha256": (None,), "ended": ("a", -1)}
    for name, values in bad.items():
        for value in values:
            with pytest.raises(InputError, match=f"{name}: a snapshot that is not whole"):
                begin(**{name: value})
    with pytest.raises(InputError, match="file not found"):
        simulate(built.set("warm_start", str(tmp_path / "none.json")))
    with pytest.raises(InputError, match="a snapshot is of everything"):
        built.set("warm_start", {"path": str(file), "tiers": ["dram"]})
    with pytest.raises(InputError, match="no snapshot of a run that began with one"):
        simulate(built.set("warm_start", str(file)), save_snapshot_at=1.0)
    with pytest.raises(InputError, match="the run is over"):
        simulate(built, save_snapshot_at=whole.summary["duration_s"] + 1000.0)


def test_a_run_can_begin_with_the_cache_state_of_a_time(scenario, run, tmp_path):
    built = scenario(**PLAIN)
    at = simulate(built).summary["duration_s"] / 2
    simulate(built, save_cache_state_at=at).save(tmp_path / "first")
    warm = run(**PLAIN, warm_start=str(tmp_path / "first" / STATE))
    assert warm.summary["warm_start"]["dram"]["restored_blocks"] > 0
    assert warm.summary["warm_start"]["hbm"]["restored_blocks"] > 0
    assert warm.summary["prefix"]["hit_ratio"] > run(**PLAIN).summary["prefix"]["hit_ratio"]


def test_a_run_of_two_parts_says_so(snapshot):
    built, _, file, _ = snapshot(0.5, **PLAIN)
    same = simulate(built.set("warm_start", str(file)))
    assert not any("snapshot" in warning for warning in same.summary["warnings"])
    other = simulate(built.set("warm_start", str(file)).set("policies.offload", "none"))
    (warning,) = (warning for warning in other.summary["warnings"] if "snapshot" in warning)
    assert "policies.offload.name" in warning
    assert f"until {other.summary['from_snapshot']['at_s']:g} s" in warning
