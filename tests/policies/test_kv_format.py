"""Formats of KV: bytes by the papers' formulas, order, kernels, and what cannot be combined."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hw_profiles.errors import InputError
from hw_profiles.formats import Format
from hw_profiles.lines import CONTEXT, NOTHING, Line, upto
from policies.kv_format.fp8 import FP8
from policies.kv_format.int4 import Int4
from policies.kv_format.int8 import Int8
from policies.kv_format.kivi import KIVI
from policies.kv_format.quarot import QuaRot
from policies.kv_format.stored import vector_share
from policies.kv_format.think import ThinK
from policies.kv_format.zipcache import ZipCache
from policies.sequence.plan import FULL, PLAIN, Form, LayerView, SequencePolicy
from policies.tables import KV_FORMAT
from tests.policies.layer_cases import fold, layer_of

STORED = [name for name in KV_FORMAT if name not in ("none", "cachemir")]  # ciphertexts take more, not less


def layer(kv_heads: int = 32, *, heads: int = 32, element: float = 2, latent: bool = False) -> LayerView:
    """A layer of Llama-2-7B, or with fewer KV heads that of Mistral-7B; latent: of DeepSeek (512 + 64 values)."""
    return layer_of(kv_heads=kv_heads, heads=heads, element_bytes=element, latent=latent, ffn_width=11008)


def ratio(form: Form, tokens: int = 1_000_000) -> float:
    """Plain bytes over stored ones."""
    return tokens / form.of(CONTEXT).at(tokens, 0)


# ---- bytes


@pytest.mark.parametrize(("bits", "residual", "published"), [(2, 0, 5.33), (4, 0, 3.2)])
def test_kivi_is_as_small_as_its_bits_and_scales(bits: int, residual: int, published: float) -> None:
    assert ratio(KIVI(bits=bits, residual=residual).plan(layer(), FULL).form) == pytest.approx(published, abs=0.005)


@pytest.mark.parametrize(("residual", "published"), [(32, 4.17), (128, 2.52)])
def test_kivi_with_a_full_residual(residual: int, published: float) -> None:
    form = KIVI(residual=residual).plan(layer(), FULL).form
    assert (form.key_full, form.value_full) == (residual // 2, residual)  # keys go in bursts: the mean waits
    fullest = replace(form, key_full=residual)
    assert ratio(fullest, 498) == pytest.approx(published, abs=0.005)
    assert ratio(form, 498) > ratio(fullest, 498)
    short = form.of(CONTEXT)
    assert short.at(residual // 2, 0) == residual // 2  # as long as the residual, nothing is smaller


def test_kivi_with_bits_of_its_own_for_keys_and_values() -> None:
    both = KIVI(bits=4, residual=0).plan(layer(), FULL).form
    keys = KIVI(bits=4, value_bits=16, residual=0).plan(layer(), FULL).form
    assert (keys.key, keys.value) == (both.key, 1.0)
    values = KIVI(bits=4, key_bits=16, residual=0).plan(layer(), FULL).form
    assert (values.key, values.value) == (1.0, both.value)


def test_quarot_stores_68_bytes_for_256() -> None:
    form = QuaRot().plan(layer(), FULL).form
    assert form.key * 256 == form.value * 256 == 68
    assert QuaRot(group=32).plan(layer(), FULL).form.key * 256 == 64 + 4 * 4


def test_flexgen_stores_four_and_a_half_bits() -> None:
    assert Int4().plan(layer(), FULL).form.key * 16 == 4.5
    assert Int4(group=128).plan(layer(), FULL).form == QuaRot(efficiency=1.0).plan(layer(), FULL).form


def test_eight_bits() -> None:
    assert FP8().plan(layer(), FULL).form == Form(key=0.5, value=0.5)
    assert Int8().plan(layer(), FULL).form.key * 256 == 132


def test_zipcache_is_4_98_times_smaller_on_mistral() -> None:
    view = layer(8)
    plan = ZipCache().plan(view, FULL)
    form = replace(plan.form, key_full=0, value_full=0)
    assert ratio(form) == pytest.approx(4.98, abs=0.005)
    scales = 10 * 8 * 128  # per channel: an fp16 minimum and step twice, and one scale
    assert plan.extra.at(9000, 100) == scales + 9000 / 8
    assert ratio(replace(ZipCache(salient=1.0).plan(view, FULL).form, key_full=0, value_full=0)) < 4
    assert plan.form.key_full == 50


def test_think_drops_a_fifth_of_kv_at_ratio_0_4() -> None:
    view = layer()
    plan = ThinK(window=0).plan(view, FULL)
    assert plan.form.of(CONTEXT).at(10_000, 0) == pytest.approx(8000)
    assert plan.extra.at(10_000, 0) == 32 * 128 / 8  # a bit per channel
    whole = ThinK().plan(view, FULL).form.of(CONTEXT)
    assert whole.at(32, 0) == 32  # the newest are whole
    assert whole.at(10_000, 0) == pytest.approx(8000 + 32 * 0.2)


@pytest.mark.parametrize("policy", [FP8(), Int8(), Int4()], ids=["fp8", "int8", "int4"])
def test_a_latent_is_one_vector(policy: SequencePolicy) -> None:
    form = policy.plan(layer(latent=True), FULL).form
    scales = {FP8: 0, Int8: 4, Int4: 4 * 9}[type(policy)]
    bits = 4 if isinstance(policy, Int4) else 8
    assert form.key == form.value == (576 * bits / 8 + scales) / 1152


# ---- nothing changes where nothing is stored otherwise


@pytest.mark.parametrize(
    "policy", [KIVI(bits=16), ThinK(ratio=0.0), KV_FORMAT["none"]()], ids=["kivi", "think", "none"]
)
def test_sixteen_bits_and_no_channels_dropped_change_nothing(policy: SequencePolicy) -> None:
    assert policy.plan(layer(), FULL) is FULL


def test_quarot_in_sixteen_bits_only_rotates() -> None:
    plan = QuaRot(bits=16).plan(layer(), FULL)
    assert plan.form is PLAIN
    assert plan == replace(FULL, works=plan.works, prompt_works=plan.prompt_works)
    assert [work.kernel for work in plan.works] == ["rotate and quantise KV"]


@given(bits=st.sampled_from([2, 4, 8, 16]), tokens=st.integers(0, 100_000))
def test_more_bits_are_never_less_bytes(bits: int, tokens: int) -> None:
    form = KIVI(bits=bits).plan(layer(), FULL).form
    fewer = KIVI(bits=2).plan(layer(), FULL).form
    stored = form.of(CONTEXT).at(tokens, 0)
    assert fewer.of(CONTEXT).at(tokens, 0) <= stored * (1 + 1e-12) <= tokens * (1 + 1e-9)


# ---- order and combinations


def test_shares_of_keys_multiply_in_either_order() -> None:
    view = layer()
    one, other = fold(view, ThinK(), KIVI(residual=32)), fold(view, KIVI(residual=32), ThinK())
    assert one.form == other.form
    alone = KIVI(residual=32).plan(view, FULL).form
    assert one.form.key == pytest.approx(0.6 * alone.key)
    assert one.form.value == alone.value
    assert one.form.key_full == 32  # what either keeps whole
    assert {w.kernel for w in one.works} == {w.kernel for w in other.works}


@pytest.mark.parametrize(
    "policy", [KIVI(), QuaRot(), ZipCache(), Int4(), Int8(), FP8()], ids=lambda p: type(p).__name__
)
def test_numbers_are_quantised_once(policy: SequencePolicy) -> None:
    for first in (Int8(), KIVI(key_bits=2, value_bits=16)):
        with pytest.raises(InputError, match="quantised once"):
            fold(layer(), first, policy)


def test_a_cache_that_is_small_already_is_not_made_larger() -> None:
    small = layer(element=1)
    for policy in (FP8(), Int8()):
        with pytest.raises(InputError, match="no less than the engine's own KV format of 8 bits"):
            policy.plan(small, FULL)
    assert Int4().plan(small, FULL).form.key == 4.5 / 8
    assert vector_share(layer(), Format("fp16", 16)) == 1


@pytest.mark.parametrize("policy", [KIVI(), QuaRot(), ZipCache(), ThinK()], ids=lambda p: type(p).__name__)
def test_what_is_per_head_refuses_latents(policy: SequencePolicy) -> None:
    with pytest.raises(InputError, match=r"latent attention \(MLA\)"):
        policy.plan(layer(latent=True), FULL)


@pytest.mark.parametrize("name", STORED)
def test_formats_leave_the_tokens_alone(name: str) -> None:
    before = replace(FULL, kept=upto(500), attended=upto(500))
    plan = KV_FORMAT[name]().plan(layer(), before)
    assert (plan.kept, plan.attended, plan.moves, plan.host) == (before.kept, before.attended, (), NOTHING)
    assert 0 < plan.form.of(plan.kept).at(9000, 100) < 500


# ---- budgets on top


@pytest.mark.parametrize(
    ("kept", "tokens"),
    [(upto(1000), 1000), (Line(prompt=0.2), 800), (Line(slope=0.2), 1000), (Line(1, prompt_caps=((900, 1.0),)), 901)],
    ids=["tokens", "share of the prompt", "share of the context", "of the prompt"],
)
def test_of_what_a_budget_keeps_the_newest_stay_whole(kept: Line, tokens: int) -> None:
    form = KIVI().plan(layer(), FULL).form
    stored = form.of(kept).at(5000, 4000)
    expected = form.key / 2 * (tokens - 64) + form.value / 2 * (tokens - 128) + (64 + 128) / 2
    assert stored == pytest.approx(expected)


def test_what_a_prompt_keeps_and_all_that_follows() -> None:
    form = KIVI().plan(layer(), FULL).form
    kept = Line(slope=1.0, prompt=-1.0, prompt_caps=((1024, 1.0),))
    expected = form.key * (1024 + 10) + (1 - form.key) * (64 + 128) / 2
    assert form.of(kept).at(4010, 4000) == pytest.approx(expected)


# ---- kernels


PACKED = [FP8, Int8, Int4, KIVI, QuaRot, ZipCache]


@pytest.mark.parametrize("policy", PACKED)
def test_slower_attention_kernels_take_longer_and_store_no_more(policy: type) -> None:
    full, half = policy(efficiency=1.0).plan(layer(), FULL), policy(efficiency=0.5).plan(layer(), FULL)
    assert half.form.of(CONTEXT) == full.form.of(CONTEXT)
    beside = 5000 * full.form.beside
    reading = full.form.read(CONTEXT).at(5000, 0) - beside
    assert half.form.read(CONTEXT).at(5000, 0) - beside == pytest.approx(2 * reading)
    assert any("BitDecoding" in line or "16-bit" in line or "RTX 3090" in line for line in full_assumptions(policy))


def full_assumptions(policy: type) -> tuple[str, ...]:
    found: tuple[str, ...] = policy().assumptions
    return found


@pytest.mark.parametrize("name", STORED)
def test_what_is_packed_as_it_is_computed_is_small_in_the_prompt_too(name: str) -> None:
    at_once = name not in ("think", "zipcache")  # these choose when the prompt is complete
    plan = KV_FORMAT[name]().plan(layer(), FULL)
    assert plan.kept_in_prefill == (CONTEXT if at_once else None)


def test_unpacking_first_moves_more_than_it_saves() -> None:
    fused, apart = Int4().plan(layer(), FULL), Int4(fused=False).plan(layer(), FULL)
    assert fused.form.read(CONTEXT).at(1000, 0) == pytest.approx(281.25)
    # 6.5 passes over 16 bits by the unpacking, one by attention
    assert apart.form.read(CONTEXT).at(1000, 0) == pytest.approx(7500)
    assert apart.form.of(CONTEXT) == fused.form.of(CONTEXT)
    assert not fused.works
    new = layer().token_bytes * (1 + 4.5 / 16)
    assert apart.works[0].nbytes.at(5000, 10) == new
    assert apart.prompt_works[0].nbytes.at(700, 0) == 700 * new


def test_kivi_quantises_a_token_per_step_and_writes_its_scores() -> None:
    view = layer()
    plan = KIVI().plan(view, FULL)
    quantise = plan.works[0]
    assert quantise.nbytes.at(5000, 10) == pytest.approx(view.token_bytes * (1 + 0.1875))
    scores = plan.form.read(CONTEXT).at(1000, 0) - plan.form.of(CONTEXT).at(1000, 0)
    assert scores * view.token_bytes == pytest.approx(1000 * 4 * 2 * 32)  # four passes of 2 bytes per query head


def test_zipcache_writes_the_scores_of_its_probes_only() -> None:
    view = layer()
    plan = ZipCache(probes=0.1).plan(view, FULL)
    assert plan.prefill_flops == pytest.approx(1.1)
    assert plan.pair_bytes == pytest.approx(2 * 0.1 * 5 * 2 * 32)
    everything = ZipCache(probes=1.0).plan(view, FULL)
    assert everything.prefill_flops == 2.0
    assert everything.pair_bytes == pytest.approx(10 * plan.pair_bytes)
    assert ZipCache(probes=0.0).plan(view, FULL).pair_bytes == 0
    assert plan.after_prompt[0].nbytes.at(4096, 4096) == pytest.approx(
        4096 * view.token_bytes * (1 + (plan.form.key + plan.form.value) / 2)
    )


def test_zipcache_compresses_the_newest_alone_or_all_of_it() -> None:
    view = layer()
    fused, apart = ZipCache(fused=True).plan(view, FULL), ZipCache(fused=False).plan(view, FULL)
    share = (fused.form.key + fused.form.value) / 2
    assert fused.works[0].nbytes.at(9000, 10) == pytest.approx(view.token_bytes * (1 + share))
    assert apart.form.beside - fused.form.beside == pytest.approx(2 + (1 + share) / 100)
    assert ZipCache(fused=False, gap=200).plan(view, FULL).form.beside < apart.form.beside


def test_think_prunes_when_the_prompt_is_complete() -> None:
    view = layer()
    plan = ThinK().plan(view, FULL)
    assert plan.after_prompt[0].nbytes.at(1000, 1000) == pytest.approx(1000 * view.token_bytes / 2 * 2.6)
    assert not plan.prompt_works
    assert plan.works[0].nbytes.at(1000, 1000) == 2 * 32 * 128 * 2


def test_quarot_rotates_queries_and_keys_of_every_token() -> None:
    view = layer(8)
    plan = QuaRot().plan(view, FULL)
    rotated = (32 + 8) * 128
    expected = 2 * rotated * 2 + view.token_bytes * (1 + 68 / 256)
    assert plan.works[0].nbytes.at(5000, 10) == pytest.approx(expected)
    assert plan.works[0].flops.at(5000, 10) == rotated * 7
    assert plan.prompt_works[0].nbytes.at(300, 0) == pytest.approx(300 * expected)
    inputs = QuaRot(activations=True).plan(view, FULL).works[1]
    widths, outputs = 3 * 4096 + 11008, (32 + 2 * 8) * 128 + 2 * (4096 + 11008)
    assert inputs.nbytes.at(5000, 10) == pytest.approx(2.5 * widths + 4 * (4096 + 11008) + 8 * outputs)
    with pytest.raises(InputError, match="dense feed-forward"):
        QuaRot(activations=True).plan(replace(view, ffn_width=0), FULL)


@pytest.mark.parametrize("name", STORED)
def test_kernels_and_their_sources(name: str) -> None:
    plan = KV_FORMAT[name]().plan(layer(), FULL)
    works = (*plan.works, *plan.prompt_works, *plan.after_prompt)
    assert all(work.source for work in works)
    assert all(not work.nbytes.of_prompt for work in plan.prompt_works)
    assert hash(plan) == hash(KV_FORMAT[name]().plan(layer(), FULL))  # plans are values: equal layers share a cost


# ---- options


@pytest.mark.parametrize(
    ("policy", "option", "value"),
    [
        (KIVI, "bits", 3),
        (KIVI, "key_bits", True),
        (KIVI, "group", 0),
        (KIVI, "residual", 100),
        (QuaRot, "bits", 5),
        (QuaRot, "group", -1),
        (QuaRot, "activations", 1),
        (Int4, "group", 1),
        (Int4, "fused", "yes"),
        (ThinK, "ratio", 1.0),
        (ThinK, "window", -1),
        (ZipCache, "salient", 1.1),
        (ZipCache, "high", 9),
        (ZipCache, "low", 5),
        (ZipCache, "probes", -0.1),
        (ZipCache, "gap", 0),
        (FP8, "efficiency", 0),
        (KIVI, "efficiency", 1.5),
    ],
)
def test_wrong_options_are_named(policy: type, option: str, value: object) -> None:
    with pytest.raises(ValueError, match=rf"^{option}: found .*expected"):
        policy(**{option: value})
