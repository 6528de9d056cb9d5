"""A tier of no size is no tier: every table is the same byte for byte, under load, whatever else is set."""

import io

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

CHAT = {
    "requests": 120,
    "rate": 12,
    "turns": 3,
    "think_time": "3 s",
    "system_prompts": 3,
    "first_tokens": {"mean": 2000, "sigma": 1},
    "output_tokens": {"mean": 60, "sigma": 0.8},
}
SIZES = {"dram": "6 GiB", "c2c": "4 GiB", "ssd": "10 GiB", "remote": "14 GiB"}
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
    """The tables, less what they say of a tier: its column of hits and its samples."""
    tables = dict(result.tables)
    column = f"hit_{name}_tokens"
    if column in tables["requests"].column_names:
        assert not any(tables["requests"][column].to_pylist())
        tables["requests"] = tables["requests"].drop_columns([column])
    samples = tables["samples"].to_pandas()
    samples = samples[~samples["series"].astype(str).str.contains(name)] if "series" in samples else samples
    return tables, samples


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("present", [[], ["dram"], ["ssd"], ["dram", "ssd", "remote"], ["c2c", "ssd"]], ids="+".join)
def test_a_tier_of_no_size_is_no_tier(run, way, present):
    for name in SIZES:
        if name in present:
            continue
        order = [n for n in ("c2c", "dram", "ssd", "remote") if n in {*present, name}]
        full = [{"name": n, "capacity": "0 B" if n == name else SIZES[n]} for n in order]
        keywords = {"trace": {"generate": CHAT}, "blocks": 1500, **WAYS[way]}
        nothing = run(tiers=[{"name": "hbm"}, *(t for t in full if t["name"] != name)], **keywords)
        empty = run(tiers=[{"name": "hbm"}, *full], **keywords)
        ours, theirs = without(empty, name), without(nothing, name)
        for table in ("requests", "steps", "transfers"):
            assert stored(ours[0][table]) == stored(theirs[0][table]), (name, table)
        assert ours[1].equals(theirs[1]), name
