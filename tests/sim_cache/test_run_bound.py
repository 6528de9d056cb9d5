"""The bound of a run: by hand, and never beaten by an engine with queues, replicas, preemptions and prefetches."""

import json
import random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sim.run import simulate
from sim.scenario import Scenario

BLOCK, ENGINE = 512, 16


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The result of a run of rows (arrival s, input tokens, output tokens, hash ids), with its bound."""
    folder = tmp_path_factory.mktemp("runs")

    def made(rows, hbm_tokens, dram_tokens, **more):
        path = folder / "trace.jsonl"
        names = ("timestamp", "input_length", "output_length", "hash_ids")
        lines = [dict(zip(names, (1000 * row[0], *row[1:]), strict=True)) for row in rows]
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        tiers, shared = [{"name": "hbm"}], more.pop("shared", "node")
        if dram_tokens is not None:
            tiers.append({"name": "dram", "capacity": f"{dram_tokens * 128} KiB", "shared": shared})
        document = {
            "schema": "kvsim-scenario/1",
            "trace": {"path": str(path)},
            "model": "llama-3.1-8b",
            "hardware": {"profile": "h100-sxm", "replicas": more.pop("replicas", 1)},
            "engine": {"block_tokens": ENGINE, "num_gpu_blocks": hbm_tokens // ENGINE, **more.pop("engine", {})},
            "tiers": tiers,
            **more,
        }
        return simulate(Scenario.from_dict(document), bound=True)

    return made


def test_a_run_without_regret(run):
    rows = [(0, 1024, 4, [1, 2]), (50, 1025, 4, [1, 2, 3]), (100, 1026, 4, [1, 2, 4])]
    result = run(rows, 4096, None)
    bound = result.summary["bound"]
    each = bound["first_use_s"] / (1024 + 1 + 2)  # prompts of one full step: a token costs the same everywhere
    assert bound["load_recompute_s"] == pytest.approx(1027 * each)
    assert bound["lower_bound_s"] == pytest.approx(bound["load_recompute_s"])
    assert bound["regret"] == pytest.approx(0)
    assert bound["load_s"] == 0
    assert "without queueing" in bound["definition"]


def test_the_regret_of_a_run_by_hand(run):
    """Two prompts in turn, with room for one of them: what is computed again could not be kept but for 16 tokens."""
    rows = [(50 * i, 1025, 2, [i % 2 * 2 + 1, i % 2 * 2 + 2, 9 + i]) for i in range(6)]
    small = run(rows, 1056, None).summary["bound"]
    each = small["load_recompute_s"] / (6 * 1025)  # nothing is ever found
    # Of four repetitions 1,056 tokens keep one prompt all along (two of them), and 32 tokens of the other.
    assert small["lower_bound_s"] == pytest.approx(each * (6 * 1025 - 2 * 1024 - 2 * 32))
    behind = run(rows, 1056, 4096).summary["bound"]
    assert behind["load_s"] > 0
    assert behind["compute_s"] == pytest.approx(each * (2 * 1025 + 4))
    assert behind["lower_bound_s"] == pytest.approx(behind["compute_s"] + behind["load_s"] * (2 * 1024 - 2 * 32) / 4096)


def test_a_run_says_nothing_of_it_unless_asked(run):
    assert "bound" not in simulate(Scenario.from_dict({
        "schema": "kvsim-scenario/1", "trace": {"generate": {"requests": 3}}, "model": "llama-3.1-8b",
        "hardware": {"profile": "h100-sxm"},
    })).summary  # fmt: skip


def random_rows(source, count, gap, lengths):
    rows, now = [], 0.0
    for i in range(count):
        now += source.choice((0.0, gap * source.random()))
        tree, blocks = source.randrange(4), source.choice(lengths)
        whole = source.random() < 0.5
        ids = [100 * tree + depth for depth in range(blocks)]
        tokens = BLOCK * blocks - (0 if whole else source.randrange(1, BLOCK))
        rows.append((now, tokens, source.choice((1, 20, 300)), ids if whole else [*ids[:-1], 10_000 + i]))
    return rows


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    gap=st.sampled_from([0.01, 0.3, 5.0]),
    hbm=st.sampled_from([3072, 4096, 12_000]),
    dram=st.sampled_from([None, 0, 2048, 8192]),
    replicas=st.integers(1, 3),
    shared=st.sampled_from(["private", "node"]),
    eviction=st.sampled_from(["lru", "s3fifo", "belady", "gdsf"]),
    offload=st.sampled_from(["write_through", "write_back"]),
    prefetch=st.sampled_from([None, "on_arrival"]),
)
@example(1, 0.01, 3072, 2048, 1, "node", "lru", "write_through", None)
@example(2, 0.01, 3072, 8192, 2, "private", "lru", "write_back", "on_arrival")
def test_no_run_needs_fewer_seconds_than_its_bound(
    run, seed, gap, hbm, dram, replicas, shared, eviction, offload, prefetch
):
    rows = random_rows(random.Random(seed), 40, gap, (1, 2, 3, 5))
    policies = {"eviction": eviction, "offload": offload, **({"prefetch": prefetch} if prefetch and dram else {})}
    result = run(rows, hbm, dram, replicas=replicas, shared=shared, policies=policies)
    bound = result.summary["bound"]
    assert bound["load_recompute_s"] >= bound["lower_bound_s"] * (1 - 1e-12)
    assert bound["regret"] >= -1e-12
    assert bound["first_use_s"] <= bound["lower_bound_s"]


def test_the_property_covers_preemptions(run):
    result = run(random_rows(random.Random(1), 40, 0.01, (1, 2, 3, 5)), 3072, 2048)
    assert result.summary["preemptions"] > 0
