"""Every example runs, and shows what its comments say."""

from pathlib import Path

import pytest

from hw_profiles.errors import InputError
from kvsim import Scenario
from traces.catalog import locate

EXAMPLES = {path.name: path for path in sorted((Path(__file__).parents[2] / "examples").glob("*.yaml"))}
FEW = 400
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


@pytest.mark.parametrize("name", EXAMPLES)
def test_says_what_it_is(name):
    lines = EXAMPLES[name].read_text().splitlines()
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
