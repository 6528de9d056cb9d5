"""The regret study: a closed form, the policies it compares, and what it refuses."""

import json

import pytest

from hw_profiles.errors import InputError
from sim.cache.regret import run_regret
from sim.cache.save_regret import regret_document, save_regret
from sim.scenario import Scenario

TOKEN_BYTES = 2**17
"""KV of a token of llama-3.1-8b in bf16: 32 layers x 2 x 8 heads x 128 x 2 bytes."""


@pytest.fixture
def scenario(tmp_path):
    """A scenario over rows of (input tokens, hash ids), with blocks of 512 tokens and tiers of so many tokens."""

    def make(rows, hbm, dram=None, **more):
        lines = [
            {"timestamp": 1000 * i, "input_length": tokens, "output_length": 1, "hash_ids": ids}
            for i, (tokens, ids) in enumerate(rows)
        ]
        (tmp_path / "trace.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        tiers = [{"name": "hbm", "capacity": f"{hbm * TOKEN_BYTES} B"}]
        if dram is not None:
            tiers.append({"name": "dram", "capacity": f"{dram * TOKEN_BYTES} B"})
        return Scenario.from_dict(
            {
                "schema": "kvsim-scenario/1",
                "trace": {"path": "trace.jsonl"},
                "model": "llama-3.1-8b",
                "hardware": {"profile": "h100-sxm"},
                "tiers": tiers,
                **more,
            },
            base_dir=tmp_path,
        )

    return make


def test_regret_by_hand(scenario):
    """Two documents in turn, twice: with 16 tokens too little for one beside the other, none is there when it comes."""
    rows = [(513, [1, 11]), (513, [2, 12]), (513, [1, 13]), (513, [2, 14])]
    study = run_regret(scenario(rows, 1040), ["lru", "belady"])
    lru, belady = study.rows
    each = study.prices.compute_s[0]
    # A prompt in progress needs 528 tokens of memory, and HBM holds the other document beside it: nothing is lost.
    assert lru.seconds == belady.seconds == pytest.approx((2 * 513 + 2) * each)
    assert (lru.regret, study.bound.steps[0].missed) == (0, 0)
    tight = run_regret(scenario(rows, 1024), ["lru", "fifo"])
    assert [row.computed_tokens for row in tight.rows] == [4 * 513] * 2
    assert tight.bound.seconds == pytest.approx(
        (2 * 513 + 2) * each
    )  # both documents fit, but for the prompts in progress
    assert tight.rows[0].regret == pytest.approx(4 * 513 / (2 * 513 + 2) - 1)


def test_loads_by_hand(scenario):
    rows = [(513, [1, 11]), (513, [2, 12]), (513, [1, 13])]
    study = run_regret(scenario(rows, 528, 1024), ["lru"])
    (row,) = study.rows
    load = study.tiers[1].load_s_per_token
    assert row.hit_tokens == {"hbm": 0, "dram": 512}
    assert row.load_s == pytest.approx(512 * load)
    assert row.compute_s == pytest.approx((2 * 513 + 1) * study.prices.compute_s[0])
    # 1 and 2 are 1,024 tokens: HBM alone could have kept the first 512 for their reuse.
    assert study.bound.steps[0].missed == 0
    assert row.regret == pytest.approx(row.load_s / row.compute_s)


def test_policies_go_into_every_tier_and_scenario_means_its_own(scenario, tmp_path):
    (tmp_path / "mine.py").write_text("from policies.eviction.fifo import FIFO\n\nclass Mine(FIFO):\n    pass\n")
    rows = [(513 + 512 * (i % 3), [*range(10 * (i % 5), 10 * (i % 5) + 1 + i % 3), 1000 + i]) for i in range(60)]
    made = scenario(rows, 2560, 5120, policies={"eviction": "fifo"})
    specs = ["scenario", "fifo", "mine.py:Mine", "lru", {"name": "lru_k", "k": 3}]
    seen = []
    study = run_regret(made, specs, base_dir=tmp_path, progress=lambda *done: seen.append(done))
    assert [row.policy for row in study.rows] == ["scenario", "fifo", "mine.py:Mine", "lru", "lru_k(k=3)"]
    own, fifo, mine, lru = (row.hit_tokens for row in study.rows[:4])
    assert own == fifo == mine != lru
    assert seen == [(i, 5) for i in range(1, 6)]
    other = run_regret(made.set("policies.eviction", "lru").set("tiers.dram.eviction", "fifo"), ["scenario", "lru"])
    assert other.rows[1].hit_tokens == lru != other.rows[0].hit_tokens


def test_a_tier_of_no_size_and_requests_that_do_not_fit(scenario):
    rows = [(513, [1, 2]), (2000, [1, 2, 3, 4]), (513, [1, 5])]
    study = run_regret(scenario(rows, 1056, 0), ["lru"])
    assert [tier.name for tier in study.tiers] == ["hbm"]
    assert (study.requests, study.left_out, study.input_tokens) == (2, 1, 1026)


@pytest.mark.parametrize(
    ("policies", "said"),
    [
        (["lruu"], "unknown eviction policy, found 'lruu'.*did you mean 'lru'"),
        (["unbounded"], "a capacity, not a policy"),
        ([{"name": "lru_k", "kk": 3}], "lru_k has no such option"),
        ([3], "policy: found 3"),
        ([], "policy: none given"),
    ],
)
def test_wrong_policies(scenario, policies, said):
    with pytest.raises(InputError, match=said):
        run_regret(scenario([(513, [1, 2])], 1056), policies)


def test_what_cannot_be_studied(scenario, tmp_path):
    with pytest.raises(InputError, match="no request fits"):
        run_regret(scenario([(2000, [1, 2, 3, 4])], 528), ["lru"])
    (tmp_path / "blind.csv").write_text(
        "TIMESTAMP,ContextTokens,GeneratedTokens\n"
        "2023-11-16 18:17:03.9799600,480,10\n2023-11-16 18:17:04.0319600,318,8\n"
    )
    blind = scenario([(513, [1, 2])], 1056).set("trace", {"path": str(tmp_path / "blind.csv")})
    with pytest.raises(InputError, match=r"blind\.csv: has no hash ids"):
        run_regret(blind, ["lru"])


def test_files_say_the_same(scenario, tmp_path):
    study = run_regret(scenario([(513, [1, 2]), (513, [1, 3])], 1056, 2048), ["lru", "belady"])
    document = regret_document(study)
    save_regret(study, tmp_path / "out")
    assert json.loads((tmp_path / "out" / "cache.json").read_text()) == document
    assert document["schema"] == "kvsim-regret/1"
    first = document["policies"][0]
    assert first["load_recompute_s"] == first["load_s"] + first["compute_s"]
    assert first["regret"] == pytest.approx(first["load_recompute_s"] / document["bound"]["lower_bound_s"] - 1)
    assert sum(first["hit_tokens"].values()) + first["computed_tokens"] == document["input_tokens"] == 1026
    head, *lines = (tmp_path / "out" / "cache.csv").read_text().splitlines()
    assert head.startswith("policy,hit_hbm_tokens,hit_dram_tokens,computed_tokens,load_s")
    assert [line.split(",")[0] for line in lines] == ["lru", "belady"]
