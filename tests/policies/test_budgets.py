"""Budgets by layer and head: totals, padding, coverage; LaCache's ladder and KVCrush's representatives."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hw_profiles.errors import InputError
from hw_profiles.lines import upto
from policies.retention.audiokv import AudioKV
from policies.retention.baklava import BaKlaVa
from policies.retention.budgets import DividedBudget, allot
from policies.retention.kvcrush import KVCrush
from policies.retention.lacache import LaCache
from policies.retention.snapkv import SnapKV
from policies.retention.streaming_llm import StreamingLLM
from policies.retention.xkv import XKV
from policies.retention.zigzagkv import ZigZagKV
from policies.sequence.plan import FULL, LayerView
from tests.policies.layer_cases import layer_of

LAYERS, HEADS, LONGEST = 16, 8, 32_768
DIVIDED = [XKV, ZigZagKV, BaKlaVa, AudioKV]
NUMBERS = st.lists(st.floats(0.01, 10), min_size=LAYERS, max_size=LAYERS)


class Even:
    """Attention that is as much as the tokens kept."""

    name = "even"

    def coverage(self, kept: float, context: float) -> float:
        return kept / context


def layer(index: int = 3) -> LayerView:
    return layer_of(Even(), kv_heads=HEADS, index=index, layers=LAYERS, max_context=LONGEST)


def memory(policy: DividedBudget, n: int, prompt: int) -> float:
    """Bytes over all layers."""
    plans = [policy.plan(layer(i), FULL) for i in range(LAYERS)]
    return sum(p.form.of(p.kept).at(n, prompt) * layer().token_bytes + p.extra.at(n, prompt) for p in plans)


@given(total=st.integers(0, 10**6), weights=NUMBERS, least=st.integers(0, 100))
def test_parts_add_up_to_the_total(total: int, weights: list[float], least: int) -> None:
    total += least * len(weights)
    parts = allot(total, weights, least)
    assert sum(parts) == total
    assert min(parts) >= least
    for part, weight in zip(parts, weights, strict=True):
        assert abs(part - least - (total - least * len(weights)) * weight / sum(weights)) < 1


@pytest.mark.parametrize("policy", DIVIDED)
@settings(max_examples=20)
@given(weights=NUMBERS, heads=st.lists(st.floats(0.01, 10), min_size=HEADS, max_size=HEADS))
def test_bytes_are_those_of_the_total_however_it_is_divided(
    policy: type[DividedBudget], weights: list[float], heads: list[float]
) -> None:
    even = memory(policy(budget=1000), 20_500, 20_000)
    assert even == pytest.approx(LAYERS * (1000 + 500) * layer().token_bytes)
    assert memory(policy(budget=1000, weights=weights, head_weights=heads), 20_500, 20_000) == pytest.approx(even)


def test_padding_costs_the_longest() -> None:
    heads = [1.0] * (HEADS - 1) + [3.0]
    options = {"budget": 1032, "window": 32, "weights": [1, 3], "head_weights": heads}
    ragged, padded, whole = (
        memory(BaKlaVa(**options, storage=storage), 20_000, 20_000)  # type: ignore[arg-type]
        for storage in ("ragged", "heads", "layers")
    )
    assert ragged == pytest.approx(LAYERS * 1032 * layer().token_bytes)
    assert padded == pytest.approx(LAYERS * (32 + 1000 * 3 / 10 * HEADS) * layer().token_bytes, rel=0.002)
    assert whole == pytest.approx(LAYERS * (32 + 1000 * 1.5 * 3 / 10 * HEADS) * layer().token_bytes, rel=0.002)
    assert BaKlaVa(storage="layers").plan(layer(), FULL).extra.zero  # alike: nothing to pad
    plan = BaKlaVa(**options, storage="layers").plan(layer(), FULL)  # type: ignore[arg-type]
    assert plan.attended == BaKlaVa(**options).plan(layer(), FULL).attended  # type: ignore[arg-type]


def test_two_numbers_are_the_ends_of_a_straight_line() -> None:
    parts = XKV(budget=1032, weights=[3, 1]).budgets(layer())
    assert sum(parts) == 1032 * LAYERS * HEADS
    assert parts == sorted(parts, reverse=True)
    assert (parts[0] - 32 * HEADS) / (parts[-1] - 32 * HEADS) == pytest.approx(3, rel=1e-3)
    with pytest.raises(InputError, match="expected 16 numbers, or 2"):
        XKV(weights=[1, 2, 3]).plan(layer(), FULL)


def test_alike_they_are_snapkv() -> None:
    snapkv = SnapKV(budget=1000).plan(layer(), FULL)
    plan = XKV(budget=1000).plan(layer(), FULL)
    assert (plan.kept, plan.attended, plan.works) == (snapkv.kept, snapkv.attended, ())
    assert [w.nbytes for w in plan.after_prompt] == [w.nbytes for w in snapkv.after_prompt]
    with pytest.raises(InputError, match="another policy has dropped"):
        XKV().plan(layer(), replace(FULL, kept=upto(100), attended=upto(100)))


def test_what_they_do_beside() -> None:
    smooth = AudioKV().plan(layer(), FULL).after_prompt[1]
    assert smooth.flops.at(8192, 8192) == pytest.approx(HEADS * 2 * 5 * 8192 * 13)
    assert smooth.nbytes.at(8192, 8192) == 8192 * 16 * HEADS
    assert ZigZagKV().plan(layer(), FULL).after_prompt[1].nbytes.at(1000, 1000) == 1000 * 4 * 2 * 32


def test_coverage_is_the_mean_of_heads() -> None:
    policy = BaKlaVa(budget=1000, window=0 + 1, head_weights=[1.0] * 4 + [0.0] * 4)
    assert policy.coverage(layer(), 10_000, 10_000) == pytest.approx((1999 + 1) / 2 / 10_000, rel=1e-3)
    assert XKV(budget=1000).coverage(layer(), 500, 400) == 1.0


class Recorded(Even):
    """Deeper layers need fewer tokens."""

    def layer_keys(self, mass: float) -> list[float]:
        return [mass * 100 * (LAYERS - i) for i in range(LAYERS)]


def test_uncertainty_comes_from_data_that_tells_layers_apart() -> None:
    view = replace(layer(), importance=Recorded())  # type: ignore[arg-type]
    parts = ZigZagKV(budget=1032).budgets(view)
    assert parts == ZigZagKV(budget=1032, weights=[LAYERS, 1]).budgets(layer())
    assert parts[0] > parts[-1]
    assert sum(parts) == 1032 * LAYERS * HEADS
    assert ZigZagKV(budget=1032, weights=[1, 1]).budgets(view) == [1032 * HEADS] * LAYERS  # given weights go first
    assert ZigZagKV(budget=1032).budgets(replace(view, layers=8)) == [1032 * HEADS] * 8  # of another model
    assert ZigZagKV(budget=1032).budgets(layer()) == [1032 * HEADS] * LAYERS
    assert XKV(budget=1032).budgets(view) == [1032 * HEADS] * LAYERS


# ---- LaCache


@given(n=st.integers(1, LONGEST), budget=st.integers(100, 5000))
def test_lacache_keeps_its_budget(n: int, budget: int) -> None:
    plan = LaCache(budget=budget, span=8).plan(layer(), FULL)
    assert plan.kept.at(n, 1) == plan.attended.at(n, 1) == min(n, budget)
    assert plan.extra.zero


def test_lacache_needs_no_scores_and_sees_further_than_a_window() -> None:
    policy = LaCache(budget=2048, span=8)
    plan = policy.plan(layer(), FULL)
    assert (plan.pair_bytes, plan.prefill_flops, plan.works) == (0.0, 1.0, ())
    assert sum(w.flops.at(9000, 9000) for w in plan.after_prompt) == 0
    # one of two is kept: 1024 tokens, and ten generations of as many, of which the last has a token left
    assert policy.history(layer()) == 11 * 1024
    window = StreamingLLM(sinks=0, window=2048).plan(layer(), FULL)
    assert plan.kept.at(20_000, 1) == window.kept.at(20_000, 1)


def test_the_published_code_copies_its_cache_to_thin_a_ladder() -> None:
    def copied(span: int, overlap: int = 0) -> float:
        (work,) = LaCache(budget=2048, span=span, overlap=overlap, drop="copy").plan(layer(), FULL).works
        return work.nbytes.at(20_000, 1) / (2 * 2048 * layer().token_bytes)

    assert copied(8) == 1  # of 16 layers: 2 tokens, 1 kept: one goes per copy
    assert copied(4) == pytest.approx(1 / 3)  # 4 tokens, 1 kept
    assert copied(4, 2) == pytest.approx(1 / 5)  # 7 tokens, 2 kept
    with pytest.raises(InputError, match="keeps every token in all 16 layers"):
        LaCache(span=16).plan(layer(), FULL)


# ---- KVCrush


def test_kvcrush_takes_snapkvs_bytes_and_a_bit_per_head() -> None:
    crush, snapkv = KVCrush(budget=1000).plan(layer(), FULL), SnapKV(budget=1000).plan(layer(), FULL)
    assert (crush.kept, crush.extra, crush.works) == (snapkv.kept, snapkv.extra, snapkv.works)
    assert crush.after_prompt[0] == snapkv.after_prompt[0]
    assert crush.after_prompt[2] == snapkv.after_prompt[1]
    buckets = crush.after_prompt[1]
    assert buckets.nbytes.at(1000, 1000) == 1000 * (2 * HEADS + 2 * HEADS / 8)
    assert buckets.nbytes.at(1000, 1000) < 0.02 * snapkv.after_prompt[0].nbytes.at(1000, 1000)


def test_kvcrush_covers_what_its_important_tokens_hold() -> None:
    half = KVCrush(budget=1000, important=0.5).coverage(layer(), 10_000, 10_000)
    assert half == pytest.approx(0.05)
    assert KVCrush(budget=1000, important=1.0).coverage(layer(), 10_000, 10_000) == pytest.approx(0.1)
    assert math.isclose(KVCrush(budget=LONGEST).coverage(layer(), 10_000, 10_000), 1.0)
