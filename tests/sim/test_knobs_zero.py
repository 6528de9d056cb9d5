"""A tier of no size is no tier: every table is the same byte for byte, under load, whatever else is set."""

import io

import pyarrow.parquet as pq
import pytest

from hw_profiles.errors import InputError

CHAT = {
    "requests": 40,
    "rate": 12,
    "turns": 3,
    "think_time": "3 s",
    "system_prompts": 3,
    "first_tokens": {"mean": 2000, "sigma": 1},
    "output_tokens": {"mean": 60, "sigma": 0.8},
}
SIZES = {"dram": "2 GiB", "c2c": "1 GiB", "ssd": "3 GiB", "remote": "5 GiB"}
WAYS = {
    "write_through": {},
    "write_back": {"policies": {"offload": "write_back"}},
    "by_cost": {"policies": {"offload": "by_cost"}},
    "selective": {"policies": {"offload": "write_through_selective"}},
    "layerwise": {"engine": {"loading": {"mode": "layerwise", "choose": "by_cost"}}},
    "on_arrival": {"policies": {"prefetch": {"name": "on_arrival", "stop": "wait_complete"}}},
    "on_arrival into hbm": {"policies": {"prefetch": {"name": "on_arrival", "into": "hbm"}}},
    "popularity": {"policies": {"prefetch": "popularity"}},
    "next_turn": {"policies": {"prefetch": {"name": "next_turn", "estimate": "mean"}}},
    "second_hit": {"policies": {"admission": "second_hit"}},
}


def stored(table):
    """The bytes of a table in a run directory."""
    file = io.BytesIO()
    pq.write_table(table, file, compression="zstd")
    return file.getvalue()


def without(result, name):
    """The tables, less the columns of hits and of loading from a tier, which are 0."""
    columns = [f"hit_{name}_tokens", f"load_{name}_s"]
    requests = result.tables["requests"]
    assert not any(any(requests[column].to_pylist()) for column in columns)
    return {**result.tables, "requests": requests.drop_columns(columns)}


def without_part(node, name):
    """The attribution, less the part of loading from a tier, which is 0."""
    if not isinstance(node, dict):
        return node
    part = f"load_{name}"
    assert not node.get(part)
    return {key: without_part(value, name) for key, value in node.items() if key != part}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("present", [[], ["ssd"], ["dram", "ssd", "remote"]], ids="+".join)
def test_a_tier_of_no_size_is_no_tier(run, way, present):
    for name in SIZES:
        if name in present or (not present and name != "dram"):
            continue
        order = [n for n in ("c2c", "dram", "ssd", "remote") if n in {*present, name}]
        full = [{"name": n, "capacity": "0 B" if n == name else SIZES[n]} for n in order]
        keywords = {"trace": {"generate": CHAT}, "blocks": 1500, **WAYS[way]}
        nothing = run(tiers=[{"name": "hbm"}, *(t for t in full if t["name"] != name)], **keywords)
        empty = run(tiers=[{"name": "hbm"}, *full], **keywords)
        ours, theirs = without(empty, name), nothing.tables
        for table in theirs:
            assert stored(ours[table]) == stored(theirs[table]), (name, table)
        assert list(empty.summary["tiers"]) == ["hbm", *order]
        assert not any(empty.summary["tiers"][name].values())
        for key, value in nothing.summary.items():
            if key not in ("tiers", "prefix", "metrics", "simulator", "config_sha256"):
                found = empty.summary[key]
                assert (without_part(found, name) if key == "attribution" else found) == value, key
        for key in set(nothing.summary["tiers"]):
            assert empty.summary["tiers"][key] == nothing.summary["tiers"][key]


@pytest.mark.parametrize("stop", ["best_effort", "wait_complete", "timeout"])
def test_a_fetch_into_a_tier_of_no_size_is_none(run, stop):
    tiers = [{"name": "hbm"}, {"name": "dram", "capacity": "0 B"}, {"name": "ssd", "capacity": "3 GiB"}]
    prefetch = {"name": "on_arrival", "into": "dram", "stop": stop}
    keywords = {"trace": {"generate": CHAT}, "blocks": 1500, "tiers": tiers}
    named, plain = run(policies={"prefetch": prefetch}, **keywords), run(**keywords)
    for table in ("requests", "transfers"):
        assert stored(named.tables[table]) == stored(plain.tables[table])


def test_the_policies_of_a_tier_of_no_size_must_exist(run):
    for family in ("eviction", "offload", "admission"):
        tiers = [
            {"name": "hbm"},
            {"name": "dram", "capacity": "0 B", family: "lruu"},
            {"name": "ssd", "capacity": "0 B"},
        ]
        with pytest.raises(InputError, match=f"tiers.dram.{family}: unknown {family} policy, found 'lruu'"):
            run(trace={"generate": CHAT}, tiers=tiers)


@pytest.mark.parametrize("family", ["eviction", "offload", "admission", "prefetch"])
def test_policies_that_nothing_uses_must_exist(run, family):
    """A default that the only tier overrides, or that there is no tier for."""
    tiers = [{"name": "hbm", **({"eviction": "lru"} if family == "eviction" else {})}]
    with pytest.raises(InputError, match=f"policies.{family}: unknown {family} policy, found 'lruu'"):
        run(trace={"generate": CHAT}, tiers=tiers, policies={family: "lruu"})
