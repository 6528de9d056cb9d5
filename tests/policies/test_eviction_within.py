"""Scissorhands, CORM and SnapStream: what is kept, its memory by formula, and what follows from the importance data."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hw_profiles.errors import InputError
from hw_profiles.lines import CONTEXT, Line, constant, upto
from policies.kv_format.int4 import Int4
from policies.retention.corm import CORM
from policies.retention.scissorhands import Scissorhands
from policies.retention.snapstream import SnapStream
from policies.sequence.plan import FULL, LayerView
from tests.policies.layer_cases import layer_of
from traces.importance.synthetic import Synthetic

LONGEST = 32_768


@dataclass
class Pages:
    """The `hot` best units of `page` tokens hold the attention, `rest` of it is spread over the others; `new` units of
    what a query cares for are not in any cache."""

    hot: int = 10
    rest: float = 0.01
    new: float = 0.1
    page: int = 32
    name: str = "pages"

    def coverage(self, kept: float, context: float) -> float:
        units, all_units = kept / self.page, context / self.page
        if all_units <= self.hot:
            return kept / context
        most = (1 - self.rest) * min(units, self.hot) / self.hot
        return most + self.rest * max(0.0, units - self.hot) / (all_units - self.hot)

    def recalls(self, selected: int, cached: int, page_tokens: int) -> Line:
        return constant(self.new)


def layer(importance: object, *, latent: bool = False) -> LayerView:
    return layer_of(importance, latent=latent, max_context=LONGEST)


VIEW = layer(Pages())


# ---- Scissorhands


@given(n=st.integers(1, LONGEST), budget=st.integers(100, 5000), drop=st.sampled_from([0.1, 0.5, 0.9]))
def test_scissorhands_reads_the_mean_of_its_cuts_and_has_room_for_its_budget(n: int, budget: int, drop: float) -> None:
    plan = Scissorhands(budget=budget, drop=drop, recent=5).plan(VIEW, FULL)
    kept = plan.kept.at(n, 1)
    assert kept == plan.attended.at(n, 1) == min(n, budget - round(budget * drop / 2))
    held = min(n, budget)
    counts = 2 * 32 * held
    assert plan.extra.at(n, 1) == pytest.approx((held - kept) * VIEW.token_bytes + counts, abs=1e-3)


def test_scissorhands_of_a_share_of_the_prompt() -> None:
    plan = Scissorhands(budget=0.2).plan(VIEW, FULL)
    assert plan.kept.at(3000, 1000) == pytest.approx(150)
    held = plan.kept.at(3000, 1000) + (plan.extra.at(3000, 1000) - 200 * 64) / VIEW.token_bytes
    assert held == pytest.approx(200)


def test_scissorhands_writes_the_scores_of_the_steps_that_it_counts() -> None:
    long, short = (Scissorhands(budget=4000, window=w).plan(VIEW, FULL).works[0] for w in (2000, 500))
    assert long.nbytes.at(9000, 1) == pytest.approx(4 * short.nbytes.at(9000, 1))
    every = Scissorhands(budget=4000, window=2000).plan(VIEW, FULL).works[0]
    assert every == Scissorhands(budget=4000, window=9000).plan(VIEW, FULL).works[0]  # no more than all steps


def test_a_cut_moves_what_is_left_once_in_the_steps_that_fill_the_room() -> None:
    cut = Scissorhands(budget=1000, drop=0.5).plan(VIEW, FULL).works[1]
    assert cut.nbytes.at(1000, 1) == 0
    assert cut.nbytes.at(9000, 1) == pytest.approx(2 * 500 * VIEW.token_bytes / 500)


def test_scissorhands_keeps_less_attention_where_it_is_even() -> None:
    policy = Scissorhands(budget=1000)
    peaked, even = (policy.coverage(layer(Pages(rest=rest)), 20_000, 10_000) for rest in (0.01, 0.98))
    assert peaked > 0.99
    assert even < 0.1


# ---- CORM


def test_corm_keeps_what_its_window_cares_for() -> None:
    """Ten pages by each query, and 255 queries that each bring a tenth of a page: 35.5 pages, and the recent tokens."""
    kept = CORM(window=256, recent=256).kept(VIEW)
    assert kept.at(16_384, 1) == pytest.approx((10 + 25.5) * 32 + 256, rel=0.01)
    assert kept.at(256, 1) == 256


def test_corm_keeps_what_is_not_new_alone() -> None:
    settled = CORM(window=256, recent=256).kept(layer(Pages(new=0.0)))
    assert settled.at(16_384, 1) == pytest.approx(10 * 32 + 256)
    restless = CORM(window=256, recent=256).kept(layer(Pages(new=50.0)))
    assert restless.at(16_384, 1) == pytest.approx(16_384)


@pytest.mark.parametrize("setting", ["recommended", "best_log", "slow"])
def test_the_share_that_corm_keeps_falls_with_the_context_and_grows_with_the_window(setting: str) -> None:
    view = layer(Synthetic(setting))
    lines = [CORM(window=window).kept(view) for window in (64, 256, 1024)]
    for line in lines:
        shares = [line.at(n, 1) / n for n in (256, 1000, 4000, 16_000, 32_000)]
        assert shares == sorted(shares, reverse=True)
        assert all(line.at(n + 1, 1) >= line.at(n, 1) for n in range(0, 30_000, 777))
    at = [line.at(8000, 1) for line in lines]
    assert at == sorted(at)
    assert at[0] < at[-1]


def test_corm_has_a_bit_per_query_token_and_head() -> None:
    plan = CORM(window=256).plan(VIEW, FULL)
    assert plan.extra.at(9000, 1) == pytest.approx(plan.kept.at(9000, 1) * 32 * 32)
    assert plan.extra.at(9000, 1) / (plan.kept.at(9000, 1) * VIEW.token_bytes) == pytest.approx(1 / 16)
    with pytest.raises(InputError, match="another policy has dropped"):
        CORM().plan(VIEW, replace(FULL, kept=upto(100), attended=upto(100)))


# ---- SnapStream


@given(n=st.integers(1, LONGEST))
def test_a_row_takes_the_same_memory_however_much_is_in_it(n: int) -> None:
    stream = SnapStream(sinks=4, selected=1020, ring=1024)
    plan = stream.plan(VIEW, FULL)
    assert plan.kept.at(n, 1) == plan.attended.at(n, 1) == min(n, 2048)
    held = plan.form.of(plan.kept).at(n, 1) * VIEW.token_bytes + plan.extra.at(n, 1)
    assert held == 2048 * VIEW.token_bytes
    assert SnapStream(sinks=4, selected=1020, ring=1024, slots="grown").plan(VIEW, FULL).extra.zero
    packed = stream.plan(VIEW, Int4().plan(VIEW, FULL))
    assert packed.form.of(packed.kept).at(n, 1) * VIEW.token_bytes + packed.extra.at(n, 1) == pytest.approx(
        2048 * VIEW.token_bytes * 4.5 / 16
    )


def test_a_prompt_needs_a_buffer_and_its_last_queries() -> None:
    plan = SnapStream(sinks=4, selected=1020, ring=1024, window=32).plan(VIEW, FULL)
    assert plan.fixed_extra == LONGEST * VIEW.token_bytes
    assert plan.kept_in_prefill == upto(2048)
    assert SnapStream(selected=1020, ring=1024, prompt_buffer=False).plan(VIEW, FULL).fixed_extra == 0
    vote, gathered = plan.after_prompt
    assert vote.flops.at(9000, 9000) == 9000 * 2 * 32 * 32 * 128
    assert gathered.nbytes.at(9000, 9000) == 2 * 2048 * VIEW.token_bytes
    assert not plan.works  # decoding overwrites a slot
    assert plan.prefill_flops == 1


def test_snapstream_keeps_latents_for_all_heads() -> None:
    view = layer(Pages(), latent=True)
    plan = SnapStream(selected=1020, ring=1024).plan(view, FULL)
    assert plan.kept.at(9000, 1) == 2048
    assert plan.after_prompt[0].flops.at(1, 1) == 2 * 32 * 32 * 576  # every head's query over the latent
    assert plan.kept != CONTEXT
