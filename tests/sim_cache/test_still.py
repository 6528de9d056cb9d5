"""A hierarchy with time standing still: by hand, against the bound, and what a policy of one's own may do wrong."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hw_profiles.errors import InputError
from policies.tables import EVICTION
from sim.cache.bound import Visits, lower_bound
from sim.cache.prices import prices_of, spent_s
from sim.cache.still import Still
from sim.inputs import load_inputs
from sim.scenario import Scenario

BLOCK, ENGINE = 32, 16


@pytest.fixture(scope="session")
def hierarchy(make_trace):
    """(scenario, inputs) of tiers of so many tokens each, HBM first, over rows of (input tokens, hash ids)."""
    loaded = {}

    def make(rows, tokens, *, base_dir=".", replicas=1, shared="node", more=None, tier=None):
        names = ("hbm", "dram", "ssd", "remote")
        document = {
            "schema": "kvsim-scenario/1",
            "trace": "quickstart",
            "model": "llama-3.1-8b",
            "hardware": {"profile": "h100-sxm", "replicas": replicas, "gpus_per_node": 2},
            "engine": {"block_tokens": ENGINE, "max_num_batched_tokens": 256},
            "tiers": [{"name": name} for name in names[: len(tokens)]],
            **(more or {}),
        }
        if not loaded:
            loaded["inputs"] = load_inputs(Scenario.from_dict({**document, "tiers": [{"name": "hbm"}], "policies": {}}))
        inputs = loaded["inputs"]
        size = inputs.token_bytes
        for item, held in zip(document["tiers"][1:], tokens[1:], strict=True):
            item.update(capacity=f"{held * size} B", shared=shared, **(tier or {}))
        scenario = Scenario.from_dict(document, base_dir=base_dir)
        inputs = replace(load_inputs(scenario), trace=make_trace(rows, BLOCK))
        budget = replace(inputs.budget, kv=tokens[0] * size, blocks=tokens[0] // ENGINE)
        return scenario, replace(inputs, budget=budget, hbm_bytes=tokens[0] * size)

    return make


def hits(made, eviction="lru"):
    return Still(*made).hits({"name": eviction}).tolist()


def test_full_blocks_of_the_engine_are_found_and_a_prompt_is_never_found_whole(hierarchy):
    rows = [(70, [1, 2, 3]), (70, [1, 2, 3]), (64, [1, 2]), (40, [1, 9])]
    # 70 tokens have 4 full blocks of the engine; 64 tokens too, of which the last is computed again.
    assert hits(hierarchy(rows, [320])) == [[0], [64], [48], [32]]


def test_what_hbm_gives_up_is_served_by_the_tier_behind(hierarchy):
    rows = [(64, [1, 2]), (64, [3, 4]), (65, [1, 2, 5])]
    assert hits(hierarchy(rows, [80, 640])) == [[0, 0], [0, 0], [0, 64]]
    assert hits(hierarchy(rows, [160, 640])) == [[0, 0], [0, 0], [64, 0]]
    nothing = {"policies": {"offload": "none"}}
    assert hits(hierarchy(rows, [80, 640], more=nothing)) == [[0, 0], [0, 0], [0, 0]]


def test_tiers_of_replicas_and_nodes_count_together(hierarchy):
    rows = [(64, [i, i + 100]) for i in range(6)]
    scenario, inputs = hierarchy(rows, [80, 640], replicas=3)
    assert Still(scenario, inputs).capacities == {"hbm": 240, "dram": 1280}
    private = hierarchy(rows, [80, 640], replicas=3, shared="private")
    assert Still(*private).capacities["dram"] == 3 * 640
    cluster = hierarchy(rows, [80, 640], replicas=3, shared="cluster")
    assert Still(*cluster).capacities["dram"] == 640


def test_a_request_that_no_replica_can_serve_is_left_out(hierarchy):
    made = hierarchy([(64, [1, 2]), (200, list(range(7)))], [80], replicas=4)
    assert Still(*made).served.tolist() == [0]


def test_belady_knows_what_comes_even_in_a_closed_loop(hierarchy):
    rows = [(32, [1]), (32, [2]), (32, [3]), (33, [1, 8]), (33, [1, 9])]
    scenario, inputs = hierarchy(rows, [80])
    after = np.array([-1, 0, 1, 2, 3])
    looped = replace(inputs.trace, after=after, delay_s=np.where(after < 0, np.nan, 1.0), closed_loop=True)
    assert hits((scenario, inputs), "lru") == [[0], [0], [0], [0], [32]]
    assert hits((scenario, inputs), "belady") == [[0], [0], [0], [32], [32]]
    assert hits((scenario, replace(inputs, trace=looped)), "belady") == hits((scenario, inputs), "belady")


def test_the_clock_is_that_of_arrivals(hierarchy):
    rows = [(33, [1, 2]), (33, [1, 2])]
    scenario, inputs = hierarchy(rows, [320])
    times = {
        gap: replace(inputs, trace=replace(inputs.trace, arrival_s=np.array([0.0, gap]))) for gap in (300.0, 301.0)
    }
    assert [hits((scenario, made), "ttl") for made in times.values()] == [[[0], [32]], [[0], [0]]]


def test_a_policy_that_fails_is_named_with_the_time(hierarchy, tmp_path):
    (tmp_path / "mine.py").write_text(
        "from policies.eviction.lru import LRU\n\nclass Mine(LRU):\n    def touch(self, block):\n        1 / 0\n"
    )
    made = hierarchy([(32, [1]), (33, [1, 2])], [320], base_dir=tmp_path)
    with pytest.raises(
        InputError, match=r"eviction policy Mine .*ZeroDivisionError: .*mine.py, line 5, in Mine.touch\), at 1 s"
    ):
        Still(*made).hits({"name": "mine.py:Mine"})


def test_a_policy_that_breaks_its_contract_is_named(hierarchy, tmp_path):
    (tmp_path / "mine.py").write_text(
        "from policies.eviction.lru import LRU\n\nclass Mine(LRU):\n    def victims(self):\n        return iter(())\n"
    )
    made = hierarchy([(64, [1, 2]), (64, [3, 4])], [80], base_dir=tmp_path)
    with pytest.raises(InputError, match=r"Mine.*"):
        Still(*made).hits({"name": "mine.py:Mine"})


@st.composite
def prompts(draw):
    """Prompts that share starts: paths in a tree, with a length in tokens."""
    rows = []
    for tree, branch, length, spare in draw(
        st.lists(
            st.tuples(st.integers(0, 2), st.integers(0, 2), st.integers(1, 5), st.integers(0, BLOCK - 1)),
            min_size=2,
            max_size=14,
        )
    ):
        ids = [100 * tree + 10 * depth + (branch if depth > 1 else 0) for depth in range(length)]
        tokens = BLOCK * length - spare
        rows.append((tokens, [*ids[:-1], ids[-1] if not spare else 1000 * spare + ids[-1]]))
    return rows


@settings(max_examples=60)
@given(
    rows=prompts(),
    tokens=st.tuples(st.integers(0, 6), st.lists(st.integers(0, 12), max_size=3)),
    eviction=st.sampled_from([*EVICTION, "belady"]),
    offload=st.sampled_from(["write_through", "write_back", "write_through_selective", "by_cost", "none"]),
    inclusive=st.booleans(),
    leaf_only=st.booleans(),
    admission=st.sampled_from(["always", "second_hit"]),
    choose=st.sampled_from(["always", "by_cost"]),
    replicas=st.integers(1, 2),
)
def test_no_policy_needs_fewer_seconds_than_the_bound(
    hierarchy, rows, tokens, eviction, offload, inclusive, leaf_only, admission, choose, replicas
):
    """Of 1 to 4 tiers: HBM has room for any prompt, the others for none or some blocks."""
    if not inclusive and offload.startswith("write_through"):
        offload = "write_back"
    made = hierarchy(
        rows,
        [5 * BLOCK + ENGINE + tokens[0] * ENGINE, *(ENGINE * size for size in tokens[1])],
        replicas=replicas,
        tier={"leaf_only": leaf_only, "inclusive": inclusive, "admission": admission},
        more={
            "policies": {"offload": offload},
            "engine": {"block_tokens": ENGINE, "max_num_batched_tokens": 256, "loading": {"choose": choose}},
        },
    )
    still = Still(*made)
    inputs = made[1]
    found = still.hits({"name": eviction})
    lengths, turn = inputs.trace.input_tokens, np.arange(len(rows))
    assert len(still.served) == len(rows)
    prices = prices_of(
        still.costs,
        list(still.capacities),
        chunk=BLOCK,
        longest=200,
        token_bytes=inputs.token_bytes,
    )
    visits = Visits(inputs.trace, turn, turn, turn, (lengths - 1) // ENGINE * ENGINE, np.ones(len(rows), bool))
    bound = lower_bound(visits, list(still.capacities.values()), prices)
    assert sum(spent_s(prices, lengths, found)) >= bound.seconds * (1 - 1e-12)
