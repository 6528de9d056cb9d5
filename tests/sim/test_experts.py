"""Expected experts of a step: closed forms, and a simulation of routers."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hw_profiles.mlp import MoE
from sim.cost.experts import LAYOUTS, ExpertLoad, Placement, placed, selection
from traces.random import stream


def moe(experts, top_k, local=None):
    return MoE(experts=experts, top_k=top_k, intermediate=64, local=local or experts)


@given(experts=st.integers(1, 300), share=st.floats(0, 1), skew=st.floats(0, 3))
def test_every_token_selects_top_k_different_experts(experts, share, skew):
    top_k = max(1, round(experts * share))
    chance = selection(experts, top_k, skew)
    assert chance.sum() == pytest.approx(top_k)
    assert chance.min() >= 0
    assert chance.max() <= 1 + 1e-12
    assert (np.diff(chance) <= 1e-12).all()  # most popular first


def test_zipf_by_hand():
    """Popularity 1, 1/2, 1/3, 1/4: of the 25/12 the first has 12/25."""
    assert selection(4, 1, 1.0) == pytest.approx([12 / 25, 6 / 25, 4 / 25, 3 / 25])
    # two of them: the first would be selected 24/25 times
    assert selection(4, 2, 1.0) == pytest.approx([24 / 25, 12 / 25, 8 / 25, 6 / 25])
    # three: the first always, the others share the remaining two in 6 : 4 : 3
    assert selection(4, 3, 1.0) == pytest.approx([1, 12 / 13, 8 / 13, 6 / 13])


def test_touched_experts_by_hand():
    load = ExpertLoad(moe(4, 1), skew=1.0)
    assert load.touched(2) == pytest.approx(sum(1 - (1 - q / 25) ** 2 for q in (12, 6, 4, 3)))
    assert ExpertLoad(moe(8, 2)).touched(3) == pytest.approx(8 * (1 - 0.75**3))
    assert ExpertLoad(moe(8, 2), skew=0.7).touched(1) == pytest.approx(2)


@pytest.mark.parametrize("skew", [0.0, 1.0])
def test_against_a_simulated_router(skew):
    """Tokens that draw 8 of 128 experts without replacement, popularity as stated."""
    rng = np.random.default_rng(0)
    popularity = np.arange(1, 129) ** -skew
    for tokens in (1, 8, 64):
        draws = rng.exponential(size=(400, tokens, 128)) / popularity
        chosen = np.argsort(draws, axis=-1)[:, :, :8].reshape(400, -1)
        touched = np.mean([len(set(row)) for row in chosen])
        # drawing without replacement flattens popularity, which q_e = min(1, c p_e) does not: 10 % with skew 1
        assert ExpertLoad(moe(128, 8), skew).touched(tokens) == pytest.approx(touched, rel=0.02 if not skew else 0.1)


def test_without_expert_parallelism_nothing_waits():
    """Every rank has a part of all experts: what they compute together, as on one GPU."""
    for skew in (0.0, 1.0):
        load = ExpertLoad(moe(8, 2), skew)
        assert load.rows(10) == pytest.approx(20)
        assert load.imbalance(10) == 1


def routed(chance, tokens, runs, top_k):
    """Simulated routers whose tokens select experts with these chances: bool[runs, tokens, experts].

    Systematic sampling over a shuffled order: exactly top_k different ones for each token, each with its chance."""
    rng = np.random.default_rng(1)
    order = rng.random((runs, tokens, len(chance))).argsort(axis=-1)
    ends = np.cumsum(chance[order], axis=-1) + rng.random((runs, tokens, 1))
    before = np.concatenate([ends[..., :1] - chance[order][..., :1], ends[..., :-1]], axis=-1)
    chosen = np.floor(ends + 1e-9) > np.floor(before + 1e-9)
    found = np.zeros_like(chosen)
    np.put_along_axis(found, order, chosen, axis=-1)
    return found


@pytest.mark.parametrize("skew", [0.0, 0.6, 1.0])
@pytest.mark.parametrize(("experts", "top_k", "ranks"), [(8, 2, 4), (64, 6, 8), (128, 8, 8)])
def test_the_busiest_rank_against_simulated_routers(experts, top_k, ranks, skew):
    """Mean over runs of the largest rank's rows and touched experts; each of the layouts has its share of the runs."""
    part = moe(experts, top_k, local=experts // ranks)
    load, chance = ExpertLoad(part, skew), selection(experts, top_k, skew)
    layouts = [stream(0, "experts", i).permutation(experts) for i in range(LAYOUTS if skew else 1)]
    for tokens in (1, 4, 32, 256):
        runs = 4000 // tokens + 12
        rows, touched = [], []
        for order in layouts:
            chosen = routed(chance, tokens, runs, top_k)[:, :, order].reshape(runs, tokens, ranks, -1)
            rows.append(chosen.sum(axis=(1, 3)).max(axis=1))
            touched.append(chosen.any(axis=1).sum(axis=2).max(axis=1))
        assert load.touched(tokens) == pytest.approx(np.mean(touched), rel=0.06)
        assert load.rows(tokens) == pytest.approx(np.mean(rows), rel=0.08)
        assert load.rows(tokens) * ranks >= tokens * top_k


def test_uniform_ranks_are_as_far_apart_as_the_largest_of_normals():
    """Eight equal ranks: mean + sigma x 1.4236, the expected largest of eight standard normals (Teichroew 1956)."""
    load = ExpertLoad(moe(128, 8, local=16))
    sigma = np.sqrt(1000 * 16 * (1 / 16) * (15 / 16))
    assert load.rows(1000) == pytest.approx(1000 + 1.4236 * sigma, rel=1e-4)


def test_imbalance_fades_with_tokens_unless_popularity_is_skewed():
    even, skewed = (ExpertLoad(moe(128, 8, local=16), skew) for skew in (0.0, 1.0))
    by_tokens = [even.imbalance(n) for n in (1, 10, 100, 1000, 10_000)]
    assert by_tokens == sorted(by_tokens, reverse=True)
    assert by_tokens[-1] < 1.02
    assert skewed.imbalance(10_000) > 1.3


def test_balanced_by_hand():
    """Chances 12, 6, 4, 3 of 25 on two ranks of two: 12 + 3 and 6 + 4. The first
    in three copies: 24 + 16 + 12 and 3 x 16 of a hundred."""
    chance = selection(4, 1, 1.0)
    assert placed(chance, 2, Placement("balanced")).ravel().tolist() == pytest.approx([0.48, 0.12, 0.24, 0.16])
    with_copies = placed(chance, 2, Placement("balanced", 2))[0]
    assert sorted(with_copies.sum(axis=1)) == pytest.approx([0.48, 0.52])
    assert with_copies.sum() == pytest.approx(1)
    assert with_copies.shape == (2, 3)


@pytest.mark.parametrize("redundant", [0, 32])
def test_balanced_beats_contiguous(redundant):
    part = moe(256, 8, local=32)
    contiguous, balanced = ExpertLoad(part, 0.8), ExpertLoad(part, 0.8, Placement("balanced", redundant))
    assert balanced.imbalance(4096) < contiguous.imbalance(4096)
    assert balanced.imbalance(4096) < (1.07 if redundant else 1.2)


def test_both_maxima_at_once_are_little_more_than_the_slowest_rank():
    """A rank's time by a roofline: whoever has most rows has most weights to read too, nearly."""
    experts, top_k, ranks, skew = 64, 6, 8, 0.8
    load, chance = ExpertLoad(moe(experts, top_k, local=8), skew), selection(experts, top_k, skew)
    for tokens in (4, 32, 256):
        slowest = []
        for i in range(LAYOUTS):
            order = stream(0, "experts", i).permutation(experts)
            chosen = routed(chance, tokens, 2000 // tokens + 12, top_k)[:, :, order]
            chosen = chosen.reshape(*chosen.shape[:2], ranks, -1)
            rows, touched = chosen.sum(axis=(1, 3)), chosen.any(axis=1).sum(axis=2)
            slowest.append(np.maximum(touched, rows / 20).max(axis=1))
        charged = max(load.touched(tokens), load.rows(tokens) / 20)
        assert charged == pytest.approx(np.mean(slowest), rel=0.08)
