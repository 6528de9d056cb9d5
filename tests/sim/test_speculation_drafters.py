"""Speculative decoding: memory and cost of drafters, when they help, every option."""

import pytest

from tests.sim.speculation_cases import DRAFT, NGRAM, engine


def test_a_draft_model_takes_weights_and_kv(run, prompt):
    rows = [(0, 512, 20, prompt(0, 512))]
    hardware = {"profile": "h100-sxm", "tp": 8}
    draft = {"method": "draft", "model": "llama-3.1-8b", "tokens": 3, "acceptance": 0.8}
    same = {"model": "llama-3.1-70b", "hardware": hardware}
    found = [run(rows, **same, engine={"max_num_seqs": 64, **more}).summary for more in ({}, {"speculation": draft})]
    plain, drafted = (s["hardware"]["hbm_budget"] for s in found)
    assert drafted["weights"] - plain["weights"] == found[1]["speculation"]["weight_bytes"]
    assert drafted["weights"] > plain["weights"] + 14.9 * 2**30 / 8
    assert drafted["block_bytes"] == plain["block_bytes"] * (327680 + 131072) / 327680
    assert drafted["blocks"] < plain["blocks"] * 0.72
    assert found[1]["hardware"]["kv_bytes_per_token"] == 327680 + 131072
    whole = run(rows, **same, engine={"max_num_seqs": 64, "speculation": {**draft, "draft_tp": 1}}).summary
    assert whole["hardware"]["hbm_budget"]["blocks"] < drafted["blocks"]  # all of it on every rank


def test_an_mtp_layer_takes_a_layer(run, prompt):
    rows = [(0, 512, 20, prompt(0, 512))]
    mtp = {"method": "mtp", "tokens": 2, "acceptance": 0.8}
    plain, layer = (run(rows, engine={"max_num_seqs": 64, **more}) for more in ({}, {"speculation": mtp}))
    blocks = [r.summary["hardware"]["hbm_budget"]["block_bytes"] for r in (plain, layer)]
    assert blocks[1] == blocks[0] * 33 / 32
    of_a_layer = 2 * (4096 * (4096 + 2 * 1024 + 4096 + 3 * 14336) + 2 * 4096)
    join = 2 * (2 * 4096 * 4096 + 3 * 4096)
    assert layer.summary["speculation"]["weight_bytes"] == of_a_layer + join
    steps = layer.frames["steps"]
    assert (steps.works_s > 0).all()
    assert layer.summary["speculation"]["draft_s"] == pytest.approx(steps.works_s.sum())
    # a layer and the head, twice: some 2 x (1/32 of 15 GB and 1 GB), of an hour of weights
    share = steps.works_s.sum() / (steps.end_s - steps.start_s).sum()
    assert 0.1 < share < 0.35


@pytest.mark.parametrize(
    "spec",
    [
        {"method": "draft", "model": "llama-3.1-8b"},
        {"method": "mtp"},
        {"method": "ngram"},
    ],
)
def test_more_drafted_tokens_cost_more_when_they_are_wrong(run, prompt, spec):
    rows = [(0, 1000, 100, prompt(i, 1000)) for i in range(8)]
    found = [
        run(rows, engine={"speculation": {**spec, "tokens": k, "acceptance": 0.0}}).summary["tpot_ms"]["mean"]
        for k in (1, 3, 9)
    ]
    plain = run(rows).summary["tpot_ms"]["mean"]
    assert plain < found[0] < found[1] < found[2]


def test_it_helps_alone_and_not_in_a_large_batch(run, prompt):
    """Alone a step reads all weights for one token, so drafts are almost free; with hundreds of rows arithmetic is
    what a step takes, and wrong drafts are work for nothing."""
    gains = []
    for seqs in (1, 16, 256):
        rows = [(0, 64, 200, prompt(i, 64)) for i in range(seqs)]
        with_k = {"speculation": {"method": "mtp", "tokens": 4, "acceptance": 0.6}}
        both = [run(rows, engine=e, hardware={"profile": "h100-sxm"}) for e in ({}, with_k)]
        plain, drafted = (r.summary["throughput"]["output_tokens_per_s"] for r in both)
        gains.append(drafted / plain)
    assert gains[0] > 1.4
    assert gains[0] > gains[1] > gains[2]
    assert gains[2] < 1.0


def test_tiers_carry_the_drafters_kv(run, prompt):
    rows = [(0, 4096, 5, prompt(0, 4096)), (20, 4096, 5, prompt(1, 4096)), (40, 4096, 5, prompt(0, 4096))]
    mtp = {"speculation": {"method": "mtp", "tokens": 2, "acceptance": 0.8}}
    plain, layer = (run(rows, blocks=300, dram="10 GiB", engine=e).summary for e in ({}, mtp))
    for key in ("stored_bytes", "loaded_bytes"):
        assert layer["tiers"]["dram"][key] == plain["tiers"]["dram"][key] * 33 / 32 > 0


def test_rows_count_against_the_steps_tokens(run, prompt):
    """A decoding sequence takes four tokens of a step's 16: a long prompt beside it runs in chunks of 12."""
    rows = [(0, 16, 100, prompt(0, 16)), (0.02, 120, 2, prompt(1, 120))]
    small = {**engine(), "max_num_seqs": 4, "max_num_batched_tokens": 16}
    steps = run(rows, engine=small).frames["steps"]
    beside = steps[(steps.prefill_seqs > 0) & (steps.decode_seqs > 0)]
    assert (beside.prefill_tokens == 12).all()
    assert len(beside) == 10


OPTIONS = [
    ("acceptance", ([0.9, 0.2, 0.0], [0.9, 0.5, 0.1], [0.9, 0.9, 0.9]), NGRAM, -1),
    ("acceptance", (0.2, 0.6, 0.95), NGRAM, -1),
    ("match", (0.1, 0.5, 1.0), NGRAM, -1),
    ("lookup_time", ("0 s", "1 ms", "4 ms"), NGRAM, 1),
    ("tokens", (1, 2, 3), {**NGRAM, "acceptance": 1.0}, -1),
    ("method", ("ngram", "mtp"), {"tokens": 3, "acceptance": 0.7}, 1),
    ("draft_tp", (4, 1), DRAFT, 1),
    ("model", ("llama-3.1-8b", "llama-3.1-70b"), DRAFT, 1),
]


@pytest.mark.parametrize(("key", "values", "others", "sign"), OPTIONS)
def test_every_option_moves_tpot(run, prompt, key, values, others, sign):
    rows = [(0.05 * i, 600, 120, prompt(i, 600)) for i in range(4)]
    tp = {"profile": "h100-sxm", "tp": 4}
    where = {"model": "llama-3.1-70b", "hardware": tp} if others is DRAFT else {}
    runs = [run(rows, **where, engine={"speculation": {**others, key: value}}) for value in values]
    found = [result.summary["tpot_ms"]["mean"] for result in runs]
    assert found == sorted(set(found), reverse=sign < 0)
