"""BCT, ZipVL and KVComp: memory and work by formula, limit cases, and what the importance data decide."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hw_profiles.errors import InputError
from hw_profiles.lines import CONTEXT, Line, upto
from policies.kv_format.int4 import Int4
from policies.kv_format.kvcomp import KVComp, code_bits
from policies.kv_format.zipcache import ZipCache
from policies.retention.bct import BoundedCache
from policies.selection.zipvl import ZipVL
from policies.sequence.plan import FULL, LayerView
from tests.policies.layer_cases import layer_of
from traces.importance.synthetic import Synthetic

LONGEST = 32_768


@dataclass
class Keys:
    """`mass` of the attention is on 1000 x mass tokens, or on all of a shorter context."""

    name: str = "keys"

    def keys_for(self, mass: float) -> Line:
        return upto(round(1000 * mass))

    def coverage(self, kept: float, context: float) -> float:
        return min(1.0, kept / min(1000, context))


def layer(**changes: Any) -> LayerView:
    return layer_of(Keys(), max_context=LONGEST, **changes)


VIEW = layer()


# ---- BCT


@given(n=st.integers(1, LONGEST))
def test_slots_take_the_same_memory_whatever_the_context(n: int) -> None:
    plan = BoundedCache(capacity=2048).plan(VIEW, FULL)
    assert plan.kept.at(n, 1) == plan.attended.at(n, 1) == min(n, 2048)
    assert plan.kept.at(n, 1) * VIEW.token_bytes + plan.extra.at(n, 1) == 2048 * VIEW.token_bytes
    assert plan.kept_in_prefill == plan.kept


def test_a_step_rewrites_the_slots_that_are_said() -> None:
    whole, half = (BoundedCache(capacity=2048, written=share).plan(VIEW, FULL).works[0] for share in (1.0, 0.5))
    assert whole.nbytes.at(30_000, 1) == 2 * 2048 * VIEW.token_bytes
    assert half.nbytes.at(30_000, 1) == whole.nbytes.at(30_000, 1) / 2
    assert whole.nbytes.at(20_000, 1) == whole.nbytes.at(30_000, 1)


def test_a_prompt_attends_slots_and_its_chunk() -> None:
    plan = BoundedCache(capacity=2048, chunk=512).plan(VIEW, FULL)
    attend, gates = plan.prompt_works
    assert plan.prefill_flops == 0
    assert attend.flops.at(2048, 2048) == pytest.approx(4 * 32 * 128 * 2048 * 2048 / 2)
    grown = attend.flops.at(10_240, 10_240) - attend.flops.at(2048, 2048)
    assert grown == pytest.approx(4 * 32 * 128 * 8192 * (2048 + 256))
    assert gates.nbytes.at(512, 512) == pytest.approx(2 * 2048 * VIEW.token_bytes)  # once per chunk


def test_bounded_slots_that_hold_everything_change_nothing() -> None:
    assert BoundedCache(capacity=LONGEST).plan(VIEW, FULL) is FULL
    assert BoundedCache().plan(layer(window=512), FULL) is FULL
    assert BoundedCache(capacity=2048).plan(layer(latent=True), FULL).kept.at(9000, 1) == 2048
    with pytest.raises(InputError, match="another policy has dropped"):
        BoundedCache().plan(VIEW, replace(FULL, kept=upto(100), attended=upto(100)))


# ---- ZipVL


@given(prompt=st.integers(1, 30_000), answer=st.integers(0, 2000), mass=st.sampled_from([0.5, 0.9, 0.975]))
def test_zipvl_keeps_what_holds_the_mass_and_what_follows(prompt: int, answer: int, mass: float) -> None:
    plan = ZipVL(mass=mass).plan(VIEW, FULL)
    kept = plan.kept.at(prompt + answer, prompt)
    assert kept == plan.attended.at(prompt + answer, prompt) == min(prompt, round(1000 * mass)) + answer


def test_only_important_tokens_attend_in_the_prompt() -> None:
    plan = ZipVL(mass=0.9).plan(VIEW, FULL)
    probing, attend, _ = plan.after_prompt
    assert plan.prefill_flops == 0
    assert attend.flops.at(20_000, 20_000) == pytest.approx(4 * 32 * 128 * 900**2 / 2)
    # all tokens of a short prompt, by straight lines between lengths a quarter power of two apart
    assert attend.flops.at(800, 800) == pytest.approx(4 * 32 * 128 * 800**2 / 2, rel=0.02)
    assert probing.flops.at(20_000, 20_000) == 20_000 * 2 * 128 * 32 * 128


def test_zipvl_packs_in_two_kinds_of_bits() -> None:
    plan = ZipVL(mass=0.9, others="pack").plan(VIEW, FULL)
    assert plan.kept == plan.attended == CONTEXT
    n = 9000
    held = plan.form.of(plan.kept).at(n, n) * VIEW.token_bytes + plan.extra.at(n, n)
    bits = 900 * 4 + (n - 900) * 2
    scales = n * 4  # of values, 32 bits per token
    assert held == pytest.approx(VIEW.token_bytes / 16 * bits + scales)
    (read,) = plan.works
    assert read.nbytes.at(n, n) == plan.extra.at(n, n)
    with pytest.raises(InputError, match="quantised once"):
        ZipVL(others="pack").plan(VIEW, Int4().plan(VIEW, FULL))


def test_all_of_the_mass_is_the_full_cache() -> None:
    assert ZipVL(mass=1.0).plan(VIEW, FULL) is FULL
    assert ZipVL(full_layers=4).plan(VIEW, FULL) is FULL
    assert ZipVL().plan(layer(window=512), FULL) is FULL
    assert ZipVL(mass=1.0).coverage(VIEW, 9000, 8000) == 1.0
    assert ZipVL(mass=0.5).coverage(VIEW, 9000, 9000) == pytest.approx(0.5)
    scored = ZipCache(probes=0.1).plan(VIEW, FULL)
    assert ZipVL().plan(VIEW, scored).prefill_flops == pytest.approx(0.1)  # what another policy wants written


def test_the_share_of_important_tokens_falls_with_the_prompt() -> None:
    view = replace(VIEW, importance=Synthetic())
    kept = ZipVL().plan(view, FULL).kept
    shares = [kept.at(n, n) / n for n in (100, 500, 2000, 8000, 32_000)]
    assert shares == sorted(shares, reverse=True)
    assert shares[-1] < 0.02


# ---- KVComp


def test_a_code_of_normal_values_is_as_long_as_their_entropy() -> None:
    """Within the tenth of a bit that Huffman's whole lengths cost. The mean ranges of 25 and 100 normal values,
    3.931 and 5.015, are the constants d2 of control charts (ASTM E2587)."""
    for step, unit, spread in ((0.02, 25, 3.931), (0.05, 100, 5.015), (0.1, 100, 5.015)):
        entropy = math.log2(math.sqrt(2 * math.pi * math.e) / (step * spread))
        assert entropy - 0.02 <= code_bits(step, unit) <= entropy + 0.1
    assert code_bits(1.0, 64) >= 1  # no code is shorter than a bit
    lengths = [code_bits(step, 64) for step in (0.01, 0.05, 0.1, 0.3, 1.0)]
    assert lengths == sorted(lengths, reverse=True)


def test_coded_bytes_are_codes_and_headers() -> None:
    form = KVComp(key_step=0.1, value_step=0.2, block=64).plan(VIEW, FULL).form
    assert form.key * 16 == pytest.approx(code_bits(0.1, 64) + 48 / 64)
    assert form.value * 16 == pytest.approx(code_bits(0.2, 128) + 48 / 128)
    assert (form.key_full, form.value_full) == (32, 32)
    assert form.of(CONTEXT).at(20, 1) == 20
    fixed = math.ceil(math.log2(1 / 0.1 + 1)) + 48 / 64
    assert form.key * 16 < fixed  # a code saves over fixed lengths


def test_decompression_is_the_second_bound_of_attention() -> None:
    slow, plain, fast = (KVComp(speed=speed, block=2048).plan(VIEW, FULL).form for speed in (0.5, 1.0, 100.0))
    n = 10_000_000
    assert plain.read(CONTEXT).at(n, 1) == pytest.approx(n, rel=1e-3)
    assert slow.read(CONTEXT).at(n, 1) == pytest.approx(2 * n, rel=1e-3)
    assert fast.read(CONTEXT).at(n, 1) == fast.of(CONTEXT).at(n, 1) < n / 3


# ---- options


@pytest.mark.parametrize(
    ("policy", "options", "named"),
    [
        (BoundedCache, {"capacity": 0}, "capacity"),
        (BoundedCache, {"written": 1.5}, "written"),
        (BoundedCache, {"chunk": 0}, "chunk"),
        (ZipVL, {"mass": 0}, "mass"),
        (ZipVL, {"others": "keep"}, "others"),
        (ZipVL, {"low": 5}, "low"),
        (KVComp, {"key_step": 0}, "key_step"),
        (KVComp, {"speed": 0}, "speed"),
    ],
)
def test_wrong_options_are_named(policy: type, options: dict[str, object], named: str) -> None:
    with pytest.raises(ValueError, match=rf"^{named}: found .*expected"):
        policy(**options)
