"""Plans within a sequence in the engine: limits, bytes, strides, and time at the resolution of layers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hw_profiles.errors import InputError
from hw_profiles.profile import Profile
from sim.cost.overlap import Run, finish
from sim.result import Result
from sim.run import simulate
from sim.scenario import Scenario

POLICIES = Path(__file__).with_name("planned_policies.py")
BASE: dict[str, Any] = {
    "schema": "kvsim-scenario/1",
    "trace": {"generate": {"requests": 40, "rate": 4.0, "system_prompts": 0, "turns": 1.0}},
    "model": "llama-3.1-8b",
    "hardware": {"profile": "h100-sxm"},
    "engine": {"prefix_caching": False},
}


def scenario(policies: Any = None, **changes: Any) -> Scenario:
    document = {**BASE, **changes}
    if policies is not None:
        document["policies"] = policies
    return Scenario.from_dict(document)


def own(name: str, **options: Any) -> dict[str, Any]:
    return {"name": f"{POLICIES}:{name}", **options}


def run(policies: Any = None, *, single_step: bool = False, **changes: Any) -> Result:
    return simulate(scenario(policies, **changes), single_step=single_step, check=True)


def times(result: Result) -> list[tuple[float, float]]:
    rows = result.tables["requests"].to_pandas()
    return list(zip(rows.first_token_s, rows.finish_s, strict=True))


def test_a_budget_of_the_whole_context_is_no_budget() -> None:
    assert times(run({"retention": own("Budget", tokens=131_072)})) == times(run())


def test_a_smaller_budget_is_faster_and_takes_less_memory() -> None:
    long = {"generate": {**BASE["trace"]["generate"], "requests": 12, "first_tokens": {"mean": 20000}}}
    results = [run(p, trace=long).summary for p in (None, {"retention": own("Budget", tokens=4096)})]
    assert results[1]["tpot_ms"]["mean"] < 0.97 * results[0]["tpot_ms"]["mean"]
    assert results[1]["tiers"]["hbm"]["peak_bytes"] < results[0]["tiers"]["hbm"]["peak_bytes"]


@pytest.mark.parametrize(
    "policies",
    [
        {"retention": own("Budget", tokens=700)},
        {"retention": own("Share")},
        {"selection": own("Host", works=2)},
        {"selection": own("Host", ahead=False)},
    ],
)
def test_strides_are_single_steps(policies: dict[str, Any]) -> None:
    assert times(run(policies)) == times(run(policies, single_step=True))


def test_bytes_over_the_links_by_formula() -> None:
    """A sequence of P tokens that decodes T: each of T - 1 steps loads what there is, and everything is stored once."""
    result = run({"selection": own("Host")})
    rows = result.tables["requests"].to_pandas()
    size = result.summary["model"]["kv_bytes_per_token"]
    loaded = sum(sum(range(p + 1, p + t)) for p, t in zip(rows.input_tokens, rows.output_tokens, strict=True))
    stored = int((rows.input_tokens + rows.output_tokens - 1).sum())
    within = result.summary["within"]
    assert within["h2d_bytes"] == pytest.approx(loaded * size, rel=1e-9)
    assert within["d2h_bytes"] == pytest.approx(stored * size, rel=1e-9)
    assert result.summary["links"]["pcie_h2d"]["bytes"] == within["h2d_bytes"]


def test_what_steps_wait_for_is_attributed() -> None:
    result = run({"selection": own("Host", ahead=False)})
    summary, steps = result.summary, result.tables["steps"].to_pandas()
    assert summary["time"]["kv_move_s"] == pytest.approx(float(steps.moves_s.sum()))
    assert summary["time"]["kv_move_s"] > 10 * summary["time"]["interference_s"]
    parts = summary["attribution"]["e2e_ms"]["all"]
    assert parts["parts"]["kv_moves"] > 0.3 * parts["mean"]
    assert sum(parts["parts"].values()) == pytest.approx(parts["mean"], rel=1e-9)


def test_loads_ahead_hide_behind_kernels_and_an_infinite_link_hides_all() -> None:
    links = {
        "pcie_h2d": {"bandwidth": "1000 TB/s", "latency": "0 s"},
        "pcie_d2h": {"bandwidth": "1000 TB/s", "latency": "0 s"},
    }
    plain = run().summary["tpot_ms"]["mean"]
    ahead, critical = (run({"selection": own("Host", ahead=a)}).summary["tpot_ms"]["mean"] for a in (True, False))
    assert plain < ahead < critical
    free = run({"selection": own("Host", ahead=False)}, links=links).summary["tpot_ms"]["mean"]
    assert free == pytest.approx(plain, rel=1e-2)


@pytest.mark.parametrize("load", [0.5, 1.0, 2.0])
def test_layers_that_are_alike_follow_the_closed_form(load: float) -> None:
    """n layers of 1 s that load l s ahead take n max(1, l): the first load began with the step before's last."""
    n = 32
    ahead = finish([Run(n, 1.0, 0.0, load, 0.0)])
    assert ahead == pytest.approx(n + max(0.0, load - 1.0) * n)
    assert finish([Run(n, 1.0, load, 0.0, 0.0)]) == pytest.approx(n * (1.0 + load))
    assert finish([Run(n, 1.0, 0.0, 0.0, 3.0)]) == pytest.approx(3.0 * n)


def test_arrays_and_numbers_give_the_same_bits() -> None:
    rng = np.random.default_rng(0)
    parts = rng.uniform(0.1, 2.0, (3, 3, 5))
    runs = [Run(4, *part, np.zeros(5)) for part in parts]
    together = finish(runs)
    assert isinstance(together, np.ndarray)
    for i in range(5):
        assert together[i] == finish([Run(4, *(float(x) for x in part[:, i]), 0.0) for part in parts])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"engine": {}}, "prefix_caching"),
        ({"tiers": [{"name": "hbm"}, {"name": "dram", "capacity": "1 GiB"}]}, "tiers behind HBM"),
        ({"hardware": {"profile": "h100-sxm", "pp": 2}}, "pipeline stages"),
    ],
)
def test_what_cannot_be_combined_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        scenario({"retention": own("Budget")}, **changes)


def test_systems_expand_and_refuse() -> None:
    assert scenario("full").resolved()["policies"] == scenario().resolved()["policies"]
    with pytest.raises(InputError, match="unknown system, found 'ful'"):
        scenario("ful")
    with pytest.raises(InputError, match="did you mean 'retention'"):
        scenario({"retenton": "x"})


def test_fast_profile_is_what_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """The link that a scenario sets is the one that steps use."""
    seen = []
    original = Profile.copy_model
    monkeypatch.setattr(Profile, "copy_model", lambda self, *a: seen.append(a) or original(self, *a))
    scenario({"selection": own("Host")}, links={"pcie_h2d": {"bandwidth": "10 GB/s"}}).run()
    assert ("pcie_h2d", "loop") in seen


def test_what_is_fixed_is_shared_by_the_ranks() -> None:
    extra = []
    for tp in (1, 2):
        hardware = {"profile": "h100-sxm", "tp": tp}
        works = run({"selection": own("Fixed")}, hardware=hardware).tables["steps"].to_pandas()
        alone = works[works.prefill_seqs == 0]
        extra.append(float((alone.works_s / alone["count"]).mean()))
    assert extra[0] == pytest.approx(2 * extra[1])


def test_stores_that_are_waited_for_hold_a_layer_up_and_loads_that_are_not_do_not() -> None:
    assert finish([Run(4, 1.0, 0.0, held=0.5)]) == pytest.approx(4 * 1.5)
    assert finish([Run(4, 1.0, 0.0, store=0.5)]) == pytest.approx(4.0)
    assert finish([Run(4, 1.0, 0.0, aside=0.5)]) == pytest.approx(4.0)
    assert finish([Run(4, 1.0, 0.25, aside=1.0)]) == pytest.approx(4 * 1.25)  # the link takes less than the kernels
    assert finish([Run(4, 1.0, 0.0, ahead=0.5, aside=1.0)]) == pytest.approx(4 * 1.5)  # more, and so decides


def test_what_ranks_have_alike_is_stored_once_and_hosts_gather_at_one_rate() -> None:
    """Llama-3.1-8B has 8 KV heads: on 16 ranks each is there twice."""
    moved = []
    for tp in (1, 16):
        hardware = {"profile": "h100-sxm", "tp": tp, "gpus_per_node": 16}
        moved.append(run({"selection": own("Host")}, hardware=hardware).summary["within"])
    assert moved[1]["d2h_bytes"] == pytest.approx(moved[0]["d2h_bytes"], rel=1e-9)
    assert moved[1]["h2d_bytes"] == pytest.approx(2 * moved[0]["h2d_bytes"], rel=1e-9)
    waits = []
    for tp in (1, 2):
        hardware = {"profile": "h100-sxm", "tp": tp}
        links = {f"pcie_{way}": {"bandwidth": "1000 TB/s", "latency": "0 s"} for way in ("h2d", "d2h")}
        summary = run({"selection": own("Gathered")}, hardware=hardware, links=links).summary
        waits.append(summary["within"]["move_wait_s"])
    assert waits[1] == pytest.approx(waits[0], rel=1e-2)


@pytest.mark.parametrize(
    ("policy", "said"),
    [
        ("Nothing", "returned None for layer 0, expected a LayerPlan"),
        ("Negative", "layer 0: moves: -"),
        ("Fails", "ZeroDivisionError: integer division"),
        ("Sideways", "direction, found 'up', expected one of h2d, d2h"),
        ("Counts", "layer 0: kept, found '100', expected a Line"),
    ],
)
def test_mistakes_of_a_policy_are_told_in_one_line(policy: str, said: str) -> None:
    with pytest.raises(InputError) as error:
        run({"selection": own(policy)})
    assert said in str(error.value)
    assert "policies.selection" in str(error.value)
    assert "\n" not in str(error.value)


def test_importance_that_is_not_there_is_told_without_a_policy_too(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"importance"):
        run(importance={"name": "recorded", "path": str(tmp_path / "no.npz")})
