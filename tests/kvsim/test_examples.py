"""Every example runs, and shows what its comments say."""

from pathlib import Path

import pytest

from hw_profiles.errors import InputError
from kvsim import Scenario
from traces.catalog import locate

FILES = sorted((Path(__file__).parents[2] / "examples").glob("*.yaml"))
EXAMPLES = {path.name: path for path in FILES if "schema: kvsim-scenario/1" in path.read_text()}
FEW = 200
"""Requests (or clients, a tenth of that) that make a test of an example quick."""


def scenario(name: str, *, short: bool = False) -> Scenario:
    """The example, or its first requests alone; the test is skipped where its trace is not on this machine."""
    loaded = Scenario.load(EXAMPLES[name])
    trace = loaded.spec.trace
    if trace.name is not None:
        try:
            locate(trace.name)
        except InputError:
            pytest.skip(f"trace {trace.name} is not on this machine (KVSIM_TRACES)")
    if short and trace.clients is None:
        return loaded.set("trace.limit", FEW)
    return loaded.set("trace.clients.clients", FEW // 10) if short else loaded


@pytest.mark.parametrize("name", EXAMPLES)
def test_runs_and_loses_nothing(name):
    summary = scenario(name, short=True).run(check=True).summary
    assert summary["requests"]["finished"] == summary["requests"]["arrived"] > 0
    for tier in list(summary["tiers"].values())[1:]:
        assert tier["stored_bytes"] > 0  # else the tier is there for nothing


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_says_what_it_is(path):
    lines = path.read_text().splitlines()
    assert lines[0].startswith("# ")
    assert all(len(line) <= 130 for line in lines)


def test_the_ssd_makes_up_for_the_memory():
    own = scenario("ssd_tier.yaml")
    drive, none, memory = (
        s.run().summary for s in (own, own.set("tiers.ssd.capacity", "0 B"), scenario("quickstart.yaml"))
    )
    assert none["prefix"]["hit_ratio"] + 0.1 < memory["prefix"]["hit_ratio"] <= drive["prefix"]["hit_ratio"]
    assert memory["ttft_ms"]["mean"] < drive["ttft_ms"]["mean"] < none["ttft_ms"]["mean"]


def test_fetching_before_the_next_turn_halves_the_median_ttft():
    own = scenario("prefetch.yaml")
    ahead, none = own.run().summary, own.set("policies.prefetch", "none").run().summary
    assert ahead["prefetch"]["used_bytes"] > 0.9 * ahead["prefetch"]["fetched_bytes"] > 0
    assert ahead["ttft_ms"]["p50"] < 0.6 * none["ttft_ms"]["p50"]
    assert none["prefix"]["hit_tokens"]["dram"] < 0.1 * ahead["prefix"]["hit_tokens"]["dram"]


def test_the_sweep_runs(tmp_path):
    from sim.whatif.sweep import run_sweep
    from sim.whatif.sweep_file import load_sweep
    from sim.whatif.variants import Variant

    scenario("compare_eviction.yaml")  # skips without the trace
    variants = load_sweep(next(path for path in FILES if path.name == "sweep_policies.yaml")).variants
    assert len(variants) == 12
    short = [Variant(v.label, v.scenario.set("trace.limit", FEW), v.settings) for v in variants[:2]]
    rows = run_sweep(short, tmp_path, workers=1)
    assert [row["error"] for row in rows] == [None, None]
    assert len({row["config_sha256"] for row in rows}) == 2


def test_the_search_names_what_there_is():
    from sim.whatif.sweep_file import load_sweep

    found = load_sweep(next(path for path in FILES if path.name == "search_dram.yaml"), samples=3)
    assert found.search is not None
    assert (found.search.metric, found.search.meet_slo, found.runs) == ("ttft_p99_ms", True, 3)


def test_the_example_plan_and_comparison_run_limited():
    from sim.whatif.compare import compare
    from sim.whatif.plan import PlanJob, run_plan, with_slo
    from sim.whatif.prices import load_prices
    from sim.whatif.runs import Job, run_jobs
    from sim.whatif.variants import expand

    few = with_slo(scenario("plan_dram.yaml", short=True), "ttft_p95=5s")  # its first minutes are its hardest
    sizes = ("0 B", "256 GiB", "1 TiB")
    found = run_plan(PlanJob(Job.of("dram", few), "tiers.dram.capacity", sizes, load_prices()))
    assert found.answer is not None
    assert found.answer.met
    both = expand(scenario("compare_eviction.yaml", short=True), [("policies.eviction", ["lru", "s3fifo"])])
    runs = run_jobs([Job.of(variant.label, variant.scenario) for variant in both], workers=1)
    assert compare([[run] for run in runs]).labels == ("lru", "s3fifo")


def test_a_drafter_pays_while_batches_are_small():
    """The page docs/speculation.md: less time per token at a quiet load, later first tokens, and nothing gained when
    hundreds decode at once."""
    own = scenario("speculation.yaml", short=True)
    drafted, none = own.run().summary, own.set("engine.speculation", None).run().summary
    assert drafted["tpot_ms"]["mean"] < 0.8 * none["tpot_ms"]["mean"]
    assert drafted["ttft_ms"]["mean"] > none["ttft_ms"]["mean"]
    assert drafted["tiers"]["hbm"]["capacity_bytes"] < none["tiers"]["hbm"]["capacity_bytes"]
    crowd = [("trace.generate.requests", 256), ("trace.generate.rate", 100), ("trace.generate.think_time", "10 ms")]
    crowd += [("trace.generate.first_tokens.mean", 100), ("trace.generate.output_tokens", {"mean": 300, "sigma": 0.01})]
    many = own.set_all(crowd)
    drafted, none = many.run().summary, many.set("engine.speculation", None).run().summary
    assert drafted["throughput"]["output_tokens_per_s"] < 0.9 * none["throughput"]["output_tokens_per_s"]
