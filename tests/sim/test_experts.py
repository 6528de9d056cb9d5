"""Expected experts of a step: closed forms, and a simulation of routers."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hw_profiles.mlp import MoE
from sim.cost.experts import ExpertLoad, selection


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


def test_experts_dealt_out_to_ranks():
    """Two of four ranks' experts each; the busiest rank holds the most popular and the fifth."""
    load = ExpertLoad(moe(8, 2, local=2), skew=1.0)
    chance = selection(8, 2, 1.0)
    assert load.rows(10) == pytest.approx(10 * (chance[0] + chance[4]))
    assert ExpertLoad(moe(8, 2, local=2)).rows(10) == pytest.approx(10 * 2 / 4)
