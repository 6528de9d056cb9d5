"""Token relevance: the statistics that it was fitted to come out, and it moves the way it should beside them."""

from __future__ import annotations

import numpy as np
import pytest

from hw_profiles.lines import CONTEXT, NOTHING
from traces.importance import tokens


@pytest.mark.parametrize(("context", "keys"), [(500, 80), (1000, 146), (1500, 160), (2000, 164), (30_000, 164)])
def test_keys_for_is_what_infinigen_prints(context, keys):
    assert tokens.keys_for(0.9).at(context, context) == pytest.approx(keys)


def test_keys_for_the_tail_is_what_arkvale_prints():
    assert tokens.keys_for(0.99).at(10_000, 0) == pytest.approx(320)


def test_keys_grow_with_mass_and_never_exceed_the_context():
    masses = [0.0, 0.1, 0.5, 0.9, 0.99, 0.999, 1 - 1e-9, 1 - 1e-15, 1.0]
    for context in (1, 7, 300, 800, 1200, 5000):
        found = [tokens.keys_for(mass).at(context, 0) for mass in masses]
        assert min(np.diff(found)) >= -1e-9
        assert found[-1] == context
    assert (tokens.keys_for(0.0), tokens.keys_for(1.0)) == (NOTHING, CONTEXT)


def test_hit_ratio_is_pqcaches():
    assert tokens.hit_ratio(4096, 1600, 128) == pytest.approx(0.6, abs=5e-4)


def test_hit_ratio_grows_with_the_cache_and_falls_with_the_context_and_the_block():
    by_cache = [tokens.hit_ratio(size, 1600, 128) for size in (0, 1024, 2048, 4096, 8192, 12_288, 16_000)]
    assert by_cache == sorted(set(by_cache))
    assert (by_cache[0], by_cache[-1]) == (0.0, 1.0)
    by_context = [tokens.hit_ratio(4096, 1600, 128, context) for context in (4096, 8000, 16_000, 64_000)]
    assert by_context == sorted(set(by_context), reverse=True)
    assert by_context[0] == 1.0
    by_selected = [tokens.hit_ratio(4096, count, 128, 16_000) for count in (100, 1600, 8000, 16_000)]
    assert by_selected == sorted(set(by_selected), reverse=True)
    assert by_selected[-1] == 4096 / 16_000  # everything is selected: only size counts
    by_block = [tokens.hit_ratio(4096, 1600, size) for size in (1, 16, 128, 512, 4096)]
    assert by_block == sorted(set(by_block), reverse=True)


def test_of_nothing_selected_nothing_is_missed():
    assert tokens.hit_ratio(4096, 0, 128) == 1.0


def test_a_block_larger_than_the_cache_does_not_fit():
    assert tokens.hit_ratio(100, 1600, 128) == 0.0


def test_new_fraction_is_the_published_one_and_its_inverse_the_persistence():
    """55 % new means runs of 1 / 0.55 = 1.82 steps, which the same source prints beside it."""
    fresh = tokens.new_fraction(1600, 16_000)
    assert fresh == pytest.approx(0.55, abs=5e-4)
    assert 1 / fresh == pytest.approx(1.82, abs=0.01)
    assert tokens.new_fraction(16_000, 16_000) == 0.0


def test_layers_overlap_and_a_guess_of_the_next_layer_finds_what_it_is_said_to():
    assert tokens.layer_overlap(1600, 16_000) == pytest.approx(0.36, abs=5e-4)
    assert tokens.guessed(164, 400, 2000) == pytest.approx(0.9, abs=5e-4)
    by_fetched = [tokens.guessed(164, count, 2000) for count in (0, 50, 164, 400, 1000, 2000)]
    assert by_fetched == sorted(set(by_fetched))
    assert (by_fetched[0], by_fetched[-1]) == (0.0, 1.0)
    assert tokens.layer_overlap(2000, 2000) == 1.0


def test_closed_forms_hold_in_a_simulation_of_the_process():
    """Draw what the formulas describe: blocks whose constant part is alike, and an autoregression beside it."""
    rng = np.random.default_rng(3)
    blocks, size, steps = 400, 128, 60
    near = np.exp(-np.abs(np.subtract.outer(np.arange(size), np.arange(size))) / tokens.REGION)
    constant = (rng.standard_normal((blocks, size)) @ np.linalg.cholesky(near).T).ravel()
    moving = rng.standard_normal(constant.size)
    keep = np.exp(-1 / tokens.TAU)
    best = np.argsort(-constant.reshape(blocks, size).mean(axis=1))[: round(0.256 * blocks)]
    cached = np.isin(np.arange(constant.size) // size, best)
    hits, fresh, before = [], [], None
    for _ in range(steps):
        moving = keep * moving + np.sqrt(1 - keep**2) * rng.standard_normal(constant.size)
        score = np.sqrt(tokens.STEADY) * constant + np.sqrt(1 - tokens.STEADY) * moving
        chosen = score >= np.quantile(score, 0.9)
        hits.append(cached[chosen].mean())
        if before is not None:
            fresh.append(1 - before[chosen].mean())
        before = chosen
    assert np.mean(hits) == pytest.approx(0.6, abs=0.03)
    assert np.mean(fresh) == pytest.approx(0.55, abs=0.01)
