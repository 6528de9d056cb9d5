"""Bands over drawn machines: reproducible, around the result, wider for a vaguer profile, absent when not asked for."""

from pathlib import Path

import pytest
import yaml

from hw_profiles.errors import InputError
from sim.run import simulate
from sim.uncertainty import machine, with_uncertainty

SLOW = ("kernels.gemm_bf16.bandwidth", "kernels.decode_attn.bandwidth")
ROWS = [(0.2 * i, 1024, 30, [10 * (i % 4), 10 * (i % 4) + 1]) for i in range(12)]


def bands(result):
    return {metric["key"]: metric.get("band") for metric in result.summary["metrics"]}


def test_bands_surround_the_result_and_repeat(scenario) -> None:
    spec = scenario(ROWS, dram="10 GiB", blocks=200)
    plain, one, again = spec.run(), spec.run(uncertainty=8), spec.run(uncertainty=8)
    assert bands(plain)["ttft_mean_ms"] is None
    assert "uncertainty" not in plain.summary
    assert one.summary["uncertainty"] == again.summary["uncertainty"]
    assert bands(one) == bands(again)
    assert one.summary["ttft_ms"] == plain.summary["ttft_ms"]
    assert one.tables["requests"].equals(plain.tables["requests"])
    low, high = bands(one)["tpot_mean_ms"]
    assert 0.8 < low / plain.summary["tpot_ms"]["mean"] < 1 < high / plain.summary["tpot_ms"]["mean"] < 1.3
    about = one.summary["uncertainty"]
    assert (about["runs"], about["failed"], about["interval"]) == (8, 0, [0.05, 0.95])
    assert about["ttft_ms"]["p50"]["p5"] <= about["ttft_ms"]["p50"]["p50"] <= about["ttft_ms"]["p50"]["p95"]


def test_a_vaguer_profile_has_wider_bands(scenario, hand, tmp_path: Path) -> None:
    def width(rel: float) -> float:
        raw = yaml.safe_load(hand.profile.read_text())
        rate = raw["kernels"]["decode_attn"]["bandwidth"]
        for key in ("lo", "hi"):
            rate.pop(key)
        rate["rel"] = rel
        file = tmp_path / f"{rel}.yaml"
        file.write_text(yaml.safe_dump(raw))
        rows = [(0.0, 8192, 60, list(range(100 * i, 100 * i + 16))) for i in range(8)]
        result = scenario(rows, hardware={"profile": str(file)}).run(uncertainty=12)
        low, high = bands(result)["tpot_mean_ms"]
        return (high - low) / result.summary["tpot_ms"]["mean"]

    assert width(0.6) > 1.3 * width(0.01)


def test_variants_see_the_same_machines(scenario) -> None:
    """Common random numbers: the draw depends on seed, number and the value's name alone."""
    draws = [machine(0, 3)("kernels.gemm_bf16.t0") for _ in range(2)]
    assert draws[0] == draws[1]
    others = {machine(1, 3)("kernels.gemm_bf16.t0"), machine(0, 4)("kernels.gemm_bf16.t0"), machine(0, 3)("x")}
    assert len(others | {draws[0]}) == 4


def test_machines_come_in_pairs_around_the_profile() -> None:
    """What one draws above the median the next draws as far below."""
    names = ("kernels.gemm_bf16.t0", "kernels.decode_attn")
    for name in names:
        for number in (0, 2, 10):
            assert machine(7, number)(name) + machine(7, number + 1)(name) == pytest.approx(1, abs=1e-12)


def test_few_machines_are_around_the_result_of_a_vague_profile(scenario) -> None:
    """Even two pairs: times of every seed are on both sides of the result, which is what the median machine gives."""
    for seed in range(6):
        spec = scenario(ROWS, seed=seed)
        result = spec.run(uncertainty=4)
        low, high = bands(result)["tpot_mean_ms"]
        assert low < result.summary["tpot_ms"]["mean"] < high
    assert simulate(spec, draw=lambda name: 0.5).summary["tpot_ms"] == result.summary["tpot_ms"]


def test_metrics_outside_their_own_band_are_named(scenario, monkeypatch) -> None:
    """Here every drawn machine is a slow one."""
    spec = scenario(ROWS)
    assert spec.run(uncertainty=4).summary["uncertainty"]["outside"] == []
    monkeypatch.setattr("sim.uncertainty.machine", lambda seed, number: lambda name: 0.05 if name in SLOW else 0.5)
    summary = spec.run(uncertainty=4).summary
    assert "TPOT, mean" in summary["uncertainty"]["outside"]
    assert "Prefix hit ratio" not in summary["uncertainty"]["outside"]


def test_values_that_the_scenario_sets_are_not_drawn(scenario) -> None:
    """With the link fixed, what copies take is fixed as well."""
    rows = [(10.0 * i, 1024, 1, [10 * (i % 3), 10 * (i % 3) + 1]) for i in range(9)]
    fixed = {"pcie_h2d": {"bandwidth": "50 GB/s", "latency": "3 us"}}
    free, tied = (
        scenario(rows, dram="10 GiB", blocks=140, links=links).run(uncertainty=8).summary["uncertainty"]
        for links in ({}, fixed)
    )
    load = free["load_ms"]["mean"]
    assert load["p95"] > load["p5"] * 1.005
    assert tied["load_ms"]["mean"]["p95"] == pytest.approx(tied["load_ms"]["mean"]["p5"], rel=1e-9)


@pytest.mark.parametrize("runs", [1, 2, -3, 1001])
def test_too_few_or_too_many_runs(scenario, runs: int) -> None:
    spec = scenario(ROWS)
    with pytest.raises(InputError, match=f"--uncertainty: found {runs}, expected 3 to 1000 runs"):
        with_uncertainty(spec.run(), spec, runs)
