"""Selection and offload within a sequence in whole runs: limits, bytes by formula, ablations, crossover."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest

from sim.result import Result
from sim.run import simulate
from sim.scenario import Scenario

BASE: dict[str, Any] = {
    "schema": "kvsim-scenario/1",
    "trace": {
        "generate": {
            "requests": 6,
            "rate": 2.0,
            "system_prompts": 0,
            "turns": 1.0,
            "first_tokens": {"mean": 12_000, "sigma": 0.2},
            "output_tokens": {"mean": 60, "sigma": 0.2},
        }
    },
    "model": "longchat-7b-32k",
    "hardware": {"profile": "a100-80"},
    "engine": {"prefix_caching": False},
}
FREE = {name: {"bandwidth": "1000 TB/s", "latency": "0 s"} for name in ("pcie_h2d", "pcie_d2h")}


def run(policies: Any, **changes: Any) -> Result:
    return simulate(Scenario.from_dict({**BASE, "policies": policies, **changes}), check=True)


@cache
def tpot(name: str, free: bool = False, **options: Any) -> float:
    found: float = run({"name": name, **options}, **({"links": FREE} if free else {})).summary["tpot_ms"]["mean"]
    return found


def times(result: Result) -> list[tuple[float, float]]:
    rows = result.tables["requests"].to_pandas()
    return list(zip(rows.first_token_s, rows.finish_s, strict=True))


@pytest.mark.parametrize(
    "policies",
    [
        {"name": "arkvale", "budget": 32_768},
        {"name": "quest", "budget": 32_768},
        {"name": "pqcache", "budget": 1.0, "recent": 1.0},
        {"name": "flexgen", "kv": 0.0},
        {"name": "uvm", "share": 0.0},
    ],
)
def test_budget_of_everything_is_the_full_cache(policies: dict[str, Any]) -> None:
    assert times(run(policies)) == times(run("full"))


def test_offload_costs_what_the_link_takes_while_kv_fits() -> None:
    """Nothing is gained by offload without memory pressure; selecting what is loaded gains most of it back."""
    full, arkvale, infinigen, host = (tpot(name) for name in ("full", "arkvale", "infinigen", "host_kv"))
    assert full < infinigen < host
    assert arkvale < host / 5
    assert tpot("quest") < full


def test_infinitely_fast_links_leave_infinigen_no_advantage() -> None:
    """It still guesses, and reads fewer keys: within a step's attention of the one that loads everything."""
    assert tpot("host_kv") / tpot("infinigen") > 3
    assert tpot("host_kv", free=True) == pytest.approx(tpot("full"), rel=0.02)
    # what is left of the difference is the attention over KV that InfiniGen does not read
    assert tpot("host_kv", free=True) / tpot("infinigen", free=True, gather_rate="1000 TB/s") < 2.5


@pytest.mark.parametrize("name", ["infinigen", "pqcache"])
def test_without_prefetch_layers_wait_longer(name: str) -> None:
    ahead, late = (run({"name": name, "prefetch": p}).summary for p in (True, False))
    assert late["tpot_ms"]["mean"] > ahead["tpot_ms"]["mean"]
    assert late["within"]["h2d_bytes"] == pytest.approx(ahead["within"]["h2d_bytes"], rel=1e-6)


def test_recalling_everything_each_step_takes_longer() -> None:
    """ArkVale with a cache of no more than the selected pages recalls more than with twice as many."""
    tight, wide = (run({"name": "arkvale", "budget": b, "selected": 1024}).summary for b in (1024, 4096))
    assert tight["within"]["h2d_bytes"] > 5 * wide["within"]["h2d_bytes"] > 0
    assert tight["within"]["move_wait_s"] > wide["within"]["move_wait_s"]


def test_weights_on_the_host_cross_the_link_once_per_step() -> None:
    """Half of the layers' weights, whatever the batch; and HBM has room for as much more KV."""
    result = run({"name": "flexgen", "kv": 0.0, "weights": 0.5})
    summary, steps = result.summary, result.tables["steps"].to_pandas()
    layers = 32 * (4 * 4096 * 4096 + 3 * 4096 * 11_008 + 2 * 4096) * 2
    assert summary["within"]["h2d_bytes"] == pytest.approx(0.5 * layers * int(steps["count"].sum()), rel=1e-3)
    prompts = steps[steps.decode_seqs == 0]
    assert (prompts.moves_s > 0).any()
    full = run("full").summary["tiers"]["hbm"]["capacity_bytes"]
    assert summary["tiers"]["hbm"]["capacity_bytes"] == pytest.approx(full + 0.5 * layers, rel=1e-3)


def test_clustering_shows_when_few_cores_do_it() -> None:
    """PQCache's K-means hides behind the prompt with the paper's 48 cores and not with 4."""
    many, few, hidden = (
        run({"name": "pqcache", "cores": c}, model="llama-3.1-8b").summary["ttft_ms"]["mean"] for c in (48, 4, 10_000)
    )
    assert many == pytest.approx(hidden, rel=0.01)
    assert few > 1.1 * many


def test_keys_alone_take_half_the_memory() -> None:
    full, kcache = (run(name).summary["tiers"]["hbm"] for name in ("full", "kcache"))
    assert kcache["peak_bytes"] == pytest.approx(0.5 * full["peak_bytes"], rel=0.1)


def test_coverage_is_reported() -> None:
    """Recallable pages cover more than they read at random would; more budget covers more."""
    small, large = (run({"name": "quest", "budget": b}).summary["within"]["coverage"] for b in (256, 4096))
    assert 256 / 12_000 < small["Quest"] < large["Quest"] <= 1.0
