"""Cachemir by its counts: ciphertexts, key switches, bootstraps, plaintexts over the link."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hw_profiles.errors import InputError
from hw_profiles.lines import CONTEXT
from policies.kv_format.cachemir import Cachemir
from policies.kv_format.int4 import Int4
from policies.sequence.plan import FULL
from tests.policies.layer_cases import layer_of

WEIGHTS = 4096 * (4096 + 2 * 1024) + 4096 * 4096 + 3 * 4096 * 14_336
"""Of a layer of Llama-3-8B."""


VIEW = layer_of(kv_heads=8, max_context=8192, max_seqs=1, weight_bytes=2 * WEIGHTS, ffn_width=14_336)


def test_a_ciphertext_holds_as_many_tokens_as_fit_its_slots() -> None:
    plan = Cachemir(ring=65_536, residues=3).plan(VIEW, FULL)
    ciphertext = 2 * 65_536 * 8 * 3
    tokens = 32_768 // 1024
    assert plan.form.of(CONTEXT).at(320, 1) * VIEW.token_bytes == pytest.approx(2 * ciphertext * 320 / tokens)
    assert plan.kept == plan.attended == CONTEXT
    assert plan.fixed_extra * 32 == pytest.approx(9.4 * 2**30)


def test_key_switches_are_counted() -> None:
    policy = Cachemir()
    assert policy.plaintexts(VIEW) == pytest.approx(WEIGHTS / 32_768)
    at = policy.switches(VIEW)
    assert at.at(0, 0) == pytest.approx(WEIGHTS / 32_768 + 3 + 2)  # 8 replicas of the hidden state, two appended
    assert at.at(3200, 1) - at.at(0, 0) == pytest.approx(2 * 3200 / 32 * (1 + 7))  # a product and 7 rotations of 128
    cost = Cachemir(switch=1.0, bootstrap=100.0, bootstraps=6).cost(VIEW)
    assert cost.at(0, 0) == pytest.approx(at.at(0, 0) + 600)


def test_appending_costs_the_same_however_long_the_cache_is() -> None:
    at = Cachemir().switches(VIEW)
    growth = [at.at(n + 32, 1) - at.at(n, 1) for n in (0, 1000, 8000)]
    assert growth == pytest.approx([16.0] * 3)  # attention alone grows: one more ciphertext of keys and of values


def test_weights_cross_the_link_as_plaintexts() -> None:
    plan = Cachemir().plan(VIEW, FULL)
    (move,) = plan.moves
    assert move.fixed == pytest.approx(WEIGHTS / 32_768 * 65_536 * 8)
    assert Cachemir.weights_on_host == 1.0
    assert plan.prompt_works[0].host_seconds.at(10, 10) == pytest.approx(10 * Cachemir().cost(VIEW).at(1, 1))


def test_what_it_refuses() -> None:
    with pytest.raises(InputError, match="another policy has changed the format"):
        Cachemir().plan(VIEW, Int4().plan(VIEW, FULL))
    with pytest.raises(InputError, match=r"latent attention \(MLA\)"):
        Cachemir().plan(replace(VIEW, latent=True), FULL)
    with pytest.raises(InputError, match="holds no token"):
        Cachemir(ring=1024).plan(VIEW, FULL)
    for options, named in (({"ring": 1000}, "ring"), ({"ring": 3000}, "ring"), ({"residues": 0}, "residues")):
        with pytest.raises(ValueError, match=rf"^{named}: found .*expected"):
            Cachemir(**options)
