"""Sweeps over ranges: draws by seed, path and number; searches that find what is best, and go on after a crash."""

import hashlib
import json
import math
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from scipy import stats

from hw_profiles.errors import InputError
from sim.whatif import search, sweep
from sim.whatif.ranges import read_ranges, sampled
from sim.whatif.sweep import chosen_and_run
from sim.whatif.sweep_file import load_sweep

SCENARIO = """\
schema: kvsim-scenario/1
trace: {generate: {requests: 12, rate: 4, turns: 2, first_tokens: {mean: 2000, sigma: 1}}}
model: llama-3.1-8b
hardware: {profile: h100-sxm}
tiers: [{name: hbm}, {name: dram, capacity: 64 GiB, shared: node}]
slo: {ttft_p99: 30s}
"""
SAMPLE = """\
schema: kvsim-sweep/1
scenario: small.yaml
seed: 3
samples: 6
sample:
  tiers.dram.capacity: {log_uniform: [1 GiB, 1 TiB]}
  hardware.replicas: {uniform: [1, 4]}
  policies.eviction: {choice: [lru, {name: lru_k, k: 3}]}
"""
SEARCH = SAMPLE.replace("samples: 6", "samples: 24\nsearch: {minimize: ttft_mean_ms}")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "small.yaml").write_text(SCENARIO)
    (tmp_path / "sample.yaml").write_text(SAMPLE)
    (tmp_path / "search.yaml").write_text(SEARCH)
    return tmp_path


def draws(node, count=4000):
    """Values that a range gives, numbers without their unit."""
    found = [draw["a.b"] for draw in sampled(read_ranges({"a.b": node}, "it"), count, seed=1)]
    return [float(value.split()[0]) if isinstance(value, str) and value[0].isdigit() else value for value in found]


def test_draws_have_the_distribution_that_was_asked_for():
    assert stats.kstest(draws({"uniform": [2.0, 6.0]}), stats.uniform(2, 4).cdf).pvalue > 0.01
    logs = np.log(draws({"log_uniform": ["512 MiB", "2 TiB"]}))
    span = stats.uniform(math.log(512), math.log(2**21 / 512)).cdf
    assert stats.kstest(logs, span).pvalue > 0.01
    for node, values in (({"uniform": [3, 6]}, [3, 4, 5, 6]), ({"choice": ["lru", "arc"]}, ["arc", "lru"])):
        found, counts = np.unique(draws(node), return_counts=True)
        assert found.tolist() == values
        assert stats.chisquare(counts).pvalue > 0.01
    assert all(type(value) is int for value in draws({"log_uniform": [1, 64]}, 50))


def test_more_samples_and_more_paths_leave_the_others_as_they_were():
    nodes = {"a.b": {"uniform": [0.0, 1.0]}, "c.d": {"uniform": [0.0, 1.0]}}
    few, many = (sampled(read_ranges(nodes, "it"), count, seed=1) for count in (3, 9))
    assert many[:3] == few
    assert [draw["a.b"] for draw in few] == [d["a.b"] for d in sampled(read_ranges({"a.b": nodes["a.b"]}, "it"), 3, 1)]
    assert few[0]["a.b"] != few[0]["c.d"]
    assert sampled(read_ranges(nodes, "it"), 3, seed=2) != few


def test_a_row_for_each_sample(folder):
    variants, rows = chosen_and_run(load_sweep(folder / "sample.yaml"), folder / "out", workers=1)
    table = pq.read_table(folder / "out" / "sweep.parquet")
    assert table.num_rows == len(rows) == 6
    assert table["hardware.replicas"].to_pylist() == [v.scenario.spec.hardware.replicas for v in variants]
    assert set(table["slo_met"].to_pylist()) == {True}
    assert len(load_sweep(folder / "sample.yaml", samples=2).variants) == 2


@pytest.fixture
def light(monkeypatch):
    """Runs without their inputs: the search is tested, on `bowl`, not the simulator."""

    def sha256(scenario, _):
        return hashlib.sha256(json.dumps(scenario.document).encode()).hexdigest()

    monkeypatch.setattr(sweep, "shared_inputs", lambda scenario, **_: None)
    monkeypatch.setattr(sweep, "config_sha256", sha256)


def bowl(rows):
    """Rows as if the mean TTFT were least at 2 replicas and 32 GiB; the fewer replicas, the surer the SLO is missed."""

    def simulate(scenario, **_):
        replicas, size = scenario.spec.hardware.replicas, scenario.spec.tiers[1].capacity / 2**30
        value = (replicas - 2) ** 2 + math.log(size / 32) ** 2 + 1
        rows.append(value)
        target = {"target_ms": 3.0, "value_ms": 6.0 / replicas, "met": replicas >= 2}
        summary = {
            "metrics": [{"key": "ttft_mean_ms", "value": value}],
            "slo": {"targets": {"ttft_p99": target}},
            "hardware": {"profile": "h100-sxm", "gpus": replicas, "gpu_power_limit_w": 700.0},
            "tiers": {"dram": {"capacity_bytes": size * 2**30}},
            "throughput": {"output_tokens_per_s": 1.0},
            "requests": {"rejected": 0},
        }
        return type("Result", (), {"summary": summary})

    return simulate


@pytest.mark.usefixtures("light")
def test_a_search_beats_chance_and_finds_the_same_again(folder, monkeypatch):
    pytest.importorskip("optuna", reason="Optuna is not installed (pip install 'kvsim[optuna]')")
    ran = []
    simulate = bowl(ran)
    monkeypatch.setattr(sweep, "simulate", simulate)
    wanted = load_sweep(folder / "search.yaml", samples=48)
    variants, rows = chosen_and_run(wanted, folder / "out", workers=1)
    values = [row["metrics"]["ttft_mean_ms"] for row in rows]
    chance = [simulate(wanted.variant(draw).scenario) for draw in sampled(wanted.ranges, 200, seed=9)]
    by_chance = np.mean([result.summary["metrics"][0]["value"] for result in chance])
    assert np.mean(values[-16:]) < 0.75 * by_chance
    assert variants[search.best(wanted.search, rows)].scenario.spec.hardware.replicas == 2
    again, _ = chosen_and_run(load_sweep(folder / "search.yaml", samples=16), folder / "again", workers=1)
    assert [v.settings for v in again] == [v.settings for v in variants[:16]]
    # A search that was killed chooses the same points, and runs those that have no row.
    kept = sorted((folder / "out" / "rows").iterdir())
    for file in kept[::2]:
        file.unlink()
    ran.clear()
    resumed, rows_again = chosen_and_run(wanted, folder / "out", workers=1, resume=True)
    assert [v.settings for v in resumed] == [v.settings for v in variants]
    assert rows_again == rows
    assert len(ran) == len(kept[::2])


@pytest.mark.usefixtures("light")
def test_a_search_looks_where_the_slo_is_met(folder, monkeypatch):
    pytest.importorskip("optuna", reason="Optuna is not installed (pip install 'kvsim[optuna]')")
    monkeypatch.setattr(sweep, "simulate", bowl([]))
    (folder / "search.yaml").write_text(SEARCH.replace("mean_ms}", "mean_ms, meet_slo: true}"))
    wanted = load_sweep(folder / "search.yaml")
    _, rows = chosen_and_run(wanted, folder / "out", workers=1)
    assert search.over(rows[search.best(wanted.search, rows)])["ttft_p99"] <= 0
    assert search.best(wanted.search, [row for row in rows if search.over(row)["ttft_p99"] > 0]) is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (SAMPLE.replace("uniform: [1, 4]", "unifrom: [1, 4]"), "did you mean 'uniform'"),
        (SAMPLE.replace("[1, 4]", "[4, 1]"), "least < most"),
        (SAMPLE.replace("[1 GiB, 1 TiB]", "[0 GiB, 1 TiB]"), "0 < least"),
        (SAMPLE.replace("[1 GiB, 1 TiB]", "[1 GiB, 5]"), "one end has a unit"),
        (SAMPLE.replace("[1 GiB, 1 TiB]", "[1 GiB, 5 s]"), "no such unit, or not the same kind"),
        (SAMPLE.replace("[1 GiB, 1 TiB]", "[1 s, 5 s]"), "tiers.dram.capacity"),
        (SAMPLE.replace("{choice: [lru, {name: lru_k, k: 3}]}", "{choice: [lruu]}"), "did you mean 'lru'"),
        (SAMPLE.replace("hardware.replicas", "hardware.replica"), "unknown key"),
        (SAMPLE.replace("samples: 6", "samples: 0"), "samples: found 0"),
        (SAMPLE.replace("samples: 6\n", ""), "how many runs"),
        (SAMPLE.replace("seed: 3", "seed: -3"), "seed: found -3"),
        (SEARCH.replace("ttft_mean_ms", "ttft_meen_ms"), "did you mean 'ttft_mean_ms'"),
        (SEARCH.replace("minimize:", "minimise:"), "{minimize: METRIC}"),
        (SEARCH.replace("mean_ms}", "mean_ms, meet_slos: true}"), "did you mean 'meet_slo'"),
    ],
)
def test_wrong_ranges_are_one_line(folder, text, words):
    (folder / "sample.yaml").write_text(text)
    with pytest.raises(InputError) as error:
        load_sweep(folder / "sample.yaml")
    assert words in str(error.value)
    assert "\n" not in str(error.value)
