"""A run that begins with what another one left: same contents and order, the same requests hit, mistakes refused."""

import hashlib
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hw_profiles.errors import InputError
from policies.tables import EVICTION
from sim.cache.regret import run_regret
from sim.cache_state import FILE
from sim.result import Result
from sim.run import simulate

HBM = {"name": "hbm"}
CHAT = {"generate": {"requests": 80, "rate": 3, "turns": 4, "think_time": "10 s"}}
BIG = [HBM, {"name": "dram", "capacity": "200 GiB", "shared": "node"}]
SMALL = [HBM, {"name": "dram", "capacity": "6 GiB"}, {"name": "ssd", "capacity": "9 GiB"}]


@pytest.fixture
def first(scenario, tmp_path):
    """Runs a scenario and saves its state; (result, path of the state)."""

    def go(*args, **keywords):
        result = simulate(scenario(*args, **keywords), check=True, save_cache_state=True)
        result.save(tmp_path / "first")
        return result, str(tmp_path / "first" / FILE)

    return go


def held(result):
    """(instance, key, tokens) of every block that others can hit, coldest first."""
    return result.cache_state.select(["instance", "key", "tokens"]).to_pylist()


def test_the_second_run_hits_everything_that_the_first_stored(run, first):
    cold, state = first(trace=CHAT, tiers=BIG)
    warm = run(trace=CHAT, tiers=BIG, warm_start=state)
    requests = warm.frames["requests"]
    found = sum(requests[f"hit_{tier}_tokens"] for tier in ("hbm", "dram"))
    assert list(found) == [(n - 1) // 16 * 16 for n in requests.input_tokens]
    assert warm.summary["prefix"]["hit_ratio"] > cold.summary["prefix"]["hit_ratio"]
    assert warm.summary["ttft_ms"]["mean"] < cold.summary["ttft_ms"]["mean"]
    assert warm.summary["tiers"]["dram"]["stored_bytes"] == 0  # what is there already is not stored again
    assert not warm.summary["warnings"]
    restored = {row["tier"]: 0 for row in cold.cache_state.to_pylist()}
    for row in cold.cache_state.to_pylist():
        restored[row["tier"]] += 1
    assert warm.summary["warm_start"] == {
        tier: {"restored_blocks": n, "left_out_blocks": 0} for tier, n in restored.items()
    }


def test_without_warm_start_nothing_is_said(run):
    assert "warm_start" not in run(trace=CHAT, tiers=BIG).summary


@pytest.mark.parametrize("eviction", ["lru", "fifo"])
def test_going_on_is_as_if_it_had_not_stopped(scenario, first, write_trace, prompt, eviction):
    """A run of the first half of a trace, and one of all of it that begins with what the first left: at the end the
    last uses decide what is there, and in which order, as if the first half had come twice."""
    families = [1, 2, 3, 1, 4, 2, 5, 1, 3, 6, 2, 4]
    rows = [(30.0 * i, 1024, 1, prompt(f, 1024)) for i, f in enumerate(families)]
    tiers = [HBM, {"name": "dram", "capacity": "420 MiB"}]
    path = str(write_trace(rows))
    keywords = {"blocks": 136, "tiers": tiers, "policies": {"eviction": eviction}}
    whole = simulate(scenario(trace={"path": path}, **keywords), save_cache_state=True)
    half, state = first(trace={"path": path, "limit": 6}, **keywords)
    again = simulate(scenario(trace={"path": path}, warm_start=state, **keywords), save_cache_state=True)
    assert held(half) != held(whole)
    assert held(again) == held(whole)


@pytest.mark.parametrize("eviction", [*EVICTION, "belady"])
def test_contents_and_order_come_back_under_every_policy(scenario, first, eviction):
    """Saved at the end of a run without requests that reach the tiers, the state is what it was."""
    keywords = {"blocks": 3000, "tiers": SMALL, "policies": {"eviction": eviction}}
    _, state = first(trace=CHAT, **keywords)
    warm = scenario(trace=CHAT, warm_start=state, **keywords)
    kept = restored_only(warm)
    before = pq.read_table(state).select(["instance", "key", "tokens", "uses", "turn"]).to_pylist()
    assert by_instance(kept) == by_instance(before)
    if eviction in ("lru", "fifo"):
        assert kept == before


def by_instance(rows):
    """Keys that each tier holds."""
    return {r["instance"]: sorted(x["key"] for x in rows if x["instance"] == r["instance"]) for r in rows}


def restored_only(scenario):
    """What the tiers hold before the first request comes."""
    from sim.cache_state import state_table
    from sim.cluster import Cluster
    from sim.inputs import load_inputs

    cluster = Cluster(scenario, load_inputs(scenario))
    for tiers in cluster.tiers:
        for tier in tiers:
            tier.check()
    table = state_table((tier for tiers in cluster.tiers for tier in tiers), cluster.identity())
    return table.select(["instance", "key", "tokens", "uses", "turn"]).to_pylist()


def test_large_blocks_come_back_whole(run, first):
    tiers = [HBM, {"name": "dram", "capacity": "8 GiB", "block_tokens": 1024, "leaf_only": True, "pinned": "1 GiB"}]
    cold, state = first(trace=CHAT, blocks=3000, tiers=tiers)
    assert {len(row["members"]) for row in cold.cache_state.to_pylist() if row["tier"] == "dram"} == {2}
    warm = run(trace=CHAT, blocks=3000, tiers=tiers, warm_start=state)
    assert warm.summary["prefix"]["hit_ratio"] > cold.summary["prefix"]["hit_ratio"]


def test_a_smaller_tier_leaves_out_the_coldest(scenario, run, first):
    cold, state = first(trace=CHAT, tiers=BIG)
    smaller = [HBM, {**BIG[1], "capacity": "2 GiB"}]
    rows = [row for row in cold.cache_state.to_pylist() if row["tier"] == "dram"]
    room, fits = 2 << 30, 0
    for row in reversed(rows):
        room -= row["tokens"] * 131072
        fits += room >= 0
        if room < 0:
            break
    assert 0 < fits < len(rows)
    kept = [r for r in restored_only(scenario(trace=CHAT, tiers=smaller, warm_start=state)) if "dram" in r["instance"]]
    assert [r["key"] for r in kept] == [row["key"] for row in rows[-fits:]]
    summary = run(trace=CHAT, tiers=smaller, warm_start=state).summary
    left = len(rows) - fits
    assert summary["warm_start"]["dram"] == {"restored_blocks": fits, "left_out_blocks": left}
    said = f"warm_start: {left} of {len(rows)} blocks of dram found no room, the coldest ones"
    assert summary["warnings"] == [said]


def test_a_tier_of_no_size_takes_nothing(run, first):
    _, state = first(trace=CHAT, tiers=BIG)
    empty = [HBM, {**BIG[1], "capacity": "0 B"}]
    summary = run(trace=CHAT, tiers=empty, warm_start=state).summary
    assert summary["warm_start"]["dram"]["restored_blocks"] == 0


def test_only_some_tiers(run, first):
    """After a restart of the engines HBM is empty, host memory and disks are not."""
    _, state = first(trace=CHAT, tiers=BIG)
    summary = run(trace=CHAT, tiers=BIG, warm_start={"path": state, "tiers": ["dram"]}).summary
    assert set(summary["warm_start"]) == {"dram"}
    assert summary["prefix"]["hit_tokens"]["dram"] > 0
    added = run(trace=CHAT, tiers=[*BIG, {"name": "ssd", "capacity": "1 TiB"}], warm_start=state).summary
    assert set(added["warm_start"]) == {"hbm", "dram"}  # a tier that the state does not know begins empty


def test_what_was_there_is_not_counted_as_stored(run, first):
    _, state = first(trace=CHAT, blocks=3000, tiers=SMALL)
    for tier in run(trace=CHAT, blocks=3000, tiers=SMALL, warm_start=state).summary["tiers"].values():
        assert tier["never_loaded_bytes"] <= tier["stored_bytes"]


def test_the_hash_covers_the_content_and_not_the_place(scenario, first, tmp_path):
    _, state = first(trace=CHAT, blocks=3000, tiers=SMALL)
    base = {"trace": {**CHAT, "limit": 5}, "blocks": 3000, "tiers": SMALL}
    table = pq.read_table(state)
    copy, other = tmp_path / "elsewhere.parquet", tmp_path / "other.parquet"
    copy.write_bytes((tmp_path / "first" / FILE).read_bytes())
    pq.write_table(table.slice(1), other)
    hashes = [
        scenario(**base, **({"warm_start": str(path)} if path else {})).run().summary["config_sha256"]
        for path in (None, state, copy, other)
    ]
    assert hashes[1] == hashes[2]
    assert len(set(hashes)) == 3


def test_the_state_is_the_same_every_time(first, tmp_path):
    files = []
    for _ in range(2):
        first(trace=CHAT, blocks=3000, tiers=SMALL)
        files.append(hashlib.sha256((tmp_path / "first" / FILE).read_bytes()).hexdigest())
    assert files[0] == files[1]


def test_saving_again_without_it_leaves_no_old_state(scenario, tmp_path):
    built = scenario(trace=CHAT, tiers=BIG)
    simulate(built, save_cache_state=True).save(tmp_path)
    assert Result.load(tmp_path).cache_state.num_rows > 0
    built.run().save(tmp_path)
    assert not (tmp_path / FILE).exists()
    assert Result.load(tmp_path).cache_state is None


def test_the_scenario_of_the_run_directory_runs_the_same_again(scenario, first, tmp_path):
    _, state = first(trace=CHAT, tiers=BIG)
    result = scenario(trace=CHAT, tiers=BIG, warm_start=state).run()
    again = type(scenario(trace=CHAT)).load(result.save(tmp_path / "second") / "scenario.yaml").run()
    assert again.frames["requests"].equals(result.frames["requests"])
    assert again.summary["config_sha256"] == result.summary["config_sha256"]


OTHER = {"generate": {**CHAT["generate"], "requests": 81}}
BAD = [
    ({"trace": OTHER}, "warm_start: the state has the hashes of another trace, found 'generated.*expected generated"),
    ({"model": "llama-2-7b"}, "warm_start: the state has the KV of another model, found 'llama-3.1-8b, 131072 B a"),
    ({"engine": {"kv_dtype": "fp8"}}, "warm_start: the state has the KV of another model, .*expected .* 65536 B a"),
    ({"tiers": [HBM]}, "warm_start: the state has blocks of tier dram, which the scenario does not have, found 'hbm'"),
    (
        {"tiers": [HBM, {**BIG[1], "block_tokens": 256}]},
        "warm_start: the state has other blocks in dram, found 16, expected 256",
    ),
    (
        {"hardware": {"profile": "h100-sxm", "replicas": 2}},
        r"warm_start: the state has other instances of hbm, found \['hbm/0'\], expected \['hbm/0', 'hbm/1'\]",
    ),
]


@pytest.mark.parametrize(("change", "said"), BAD, ids=[s[12:50] for _, s in BAD])
def test_what_is_not_alike_is_refused(scenario, first, change, said):
    _, state = first(trace=CHAT, tiers=BIG)
    with pytest.raises(InputError, match=f"^scenario: {said}") as error:
        scenario(**{"trace": CHAT, "tiers": BIG, **change}, warm_start=state).run()
    assert "\n" not in str(error.value)


def test_files_that_are_no_state(scenario, first, tmp_path):
    _, state = first(trace=CHAT, tiers=BIG)
    text, plain, cut = tmp_path / "text.parquet", tmp_path / "plain.parquet", tmp_path / "cut.parquet"
    text.write_text("no parquet")
    pq.write_table(pa.table({"a": [1]}), plain)
    table = pq.read_table(state)
    pq.write_table(table.drop_columns(["uses"]), cut)
    cases = {
        text: "text.parquet: not a saved cache state: ",
        plain: "plain.parquet: schema: not a saved cache state, found 'nothing', expected kvsim-cache-state/1",
        cut: "cut.parquet: a saved cache state that is not whole: ",
        tmp_path / "none.parquet": "none.parquet: file not found",
    }
    for path, said in cases.items():
        with pytest.raises(InputError, match=said):
            scenario(trace=CHAT, tiers=BIG, warm_start=str(path)).run()
    meta = json.loads(table.schema.metadata[b"kvsim"])
    meta["more"] = 1
    pq.write_table(table.replace_schema_metadata({"kvsim": json.dumps(meta)}), cut)
    with pytest.raises(InputError, match=r"cut.parquet: a saved cache state that is not whole"):
        scenario(trace=CHAT, tiers=BIG, warm_start=str(cut)).run()


def test_mistakes_in_the_section(scenario, first):
    _, state = first(trace=CHAT, tiers=BIG)
    with pytest.raises(InputError, match=r"^scenario: warm_start.tiers: no such tier, found 'dran', .*'dram'"):
        scenario(trace=CHAT, tiers=BIG, warm_start={"path": state, "tiers": ["dran"]})
    more = [*BIG, {"name": "ssd", "capacity": "1 TiB"}]
    with pytest.raises(InputError, match=r"^scenario: warm_start.tiers: the state has no such tier, found 'ssd'"):
        scenario(trace=CHAT, tiers=more, warm_start={"path": state, "tiers": ["ssd"]}).run()
    with pytest.raises(InputError, match=r"^scenario: warm_start.path: missing"):
        scenario(trace=CHAT, tiers=BIG, warm_start={"tiers": ["dram"]})
    with pytest.raises(InputError, match=r"^scenario: warm_start: the bound is of caches that are empty at first"):
        simulate(scenario(trace=CHAT, tiers=BIG, warm_start=state), bound=True)
    with pytest.raises(InputError, match=r"^scenario: warm_start: the bound is of caches that are empty at first"):
        run_regret(scenario(trace=CHAT, tiers=BIG, warm_start=state), ["lru"])
